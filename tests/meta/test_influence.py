"""Eq. 6 on a network with batch norm: every inverse and every scope, on one device and on two."""

import dataclasses
import unittest.mock
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.hypergrad.last_layer import curvature_blocks, hessian
from metassl_tf.hypergrad.products import Vector, forward_mode_product, gradient, jacobian_vector_product, saving_memory
from metassl_tf.losses import squared_error
from metassl_tf.meta.influence import influence
from tests.learner import tiny
from tests.meta import reference
from tests.meta.influences import DAMPING, found, inverse
from tests.meta.reference import ALGORITHMS, UNLABELED_WEIGHT, WEIGHTS, relative_error


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_exact_is_the_dense_solution(algorithm: str, training: bool) -> None:
    problem = reference.last_layer_problem(reference.learner().model, ALGORITHMS[algorithm], training=training)
    derivative, loss, grew = found(algorithm, inverse("exact"), training=training)
    assert relative_error(derivative, problem.influence(DAMPING)) < 1e-5
    assert loss == pytest.approx(problem.validation_loss, rel=1e-5)
    assert not grew
    np.testing.assert_array_equal(derivative != 0, problem.mask)  # masked: exactly 0


def test_masked_examples_have_the_derivative_they_would_have() -> None:
    model, algorithm = reference.learner().model, ALGORITHMS["fixmatch"]
    expected = reference.last_layer_problem(model, algorithm, masked=False).influence(DAMPING)
    derivative, _, _ = found("fixmatch", inverse("exact"), masked=False)
    assert relative_error(derivative, expected) < 1e-5
    assert np.all(derivative != 0)


def test_iterated_inverses_reach_the_exact_one_on_the_last_layer() -> None:
    expected, _, _ = found("fixmatch", inverse("exact"))
    for method, settings in {
        "conjugate_gradient": {"iterations": 40},
        "neumann": {"iterations": 400, "step_size": 0.5},
    }.items():
        derivative, _, grew = found("fixmatch", inverse(method, **settings))
        assert relative_error(derivative, expected) < 1e-4, method
        assert not grew
    few, _, _ = found("fixmatch", inverse("conjugate_gradient", iterations=2))
    assert relative_error(few, expected) > 1e-3


@pytest.mark.parametrize("scope", ["last_layer", "last_block", "all"])
def test_identity_is_the_inner_product(scope: str) -> None:
    own, algorithm = reference.learner(), ALGORITHMS["fixmatch"]
    problem = reference.network_problem(own, algorithm)
    # In the model's order: hidden kernel, batch norm's scale and offset, last kernel and bias.
    sizes = [int(tf.size(variable)) for variable in own.trainable_variables]
    start = {"last_layer": sum(sizes[:-2]), "last_block": 0, "all": 0}[scope]
    expected = -problem.unlabeled[:, start:] @ problem.validation[start:]
    derivative, _, _ = found("fixmatch", inverse("identity"), scope=scope)
    assert relative_error(derivative, expected) < 1e-5


# Those whose losses are convex in the logits, for which Gauss' and Newton's curvature is the Hessian itself.
@pytest.mark.parametrize("algorithm", ["fixmatch", "uda", "pseudo_label"])
def test_whole_network_in_training_mode_follows_the_jacobian_of_the_losses(algorithm: str) -> None:
    """Batch norm lets every example act on the losses of all: gradients of single examples would be others."""
    damping = 8.0  # more than the network bends down anywhere
    problem = reference.network_problem(reference.learner(), ALGORITHMS[algorithm])
    assert np.linalg.eigvalsh(problem.hessian).min() > -damping / 2
    derivative, loss, _ = found(algorithm, inverse("conjugate_gradient", iterations=40, damping=damping), scope="all")
    assert relative_error(derivative, problem.influence(damping)) < 1e-4
    assert loss == pytest.approx(problem.validation_loss, rel=1e-5)
    np.testing.assert_array_equal(derivative != 0, problem.mask)


def test_squared_error_needs_the_curvature_of_gauss_and_newton() -> None:
    """Its Hessian has directions that bend down further than the damping lifts, where a factorisation fails."""
    own, losses = reference.learner(), reference.step_losses(ALGORITHMS["squared_error"], unlabeled_weight=300.0)
    _, layer = reference.objective(own, "last_layer", losses, reference.validation())
    assert layer is not None

    def hessian_with(error: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> np.ndarray:
        with unittest.mock.patch.object(reference.losses, "squared_error", error):
            blocks = curvature_blocks(
                lambda outputs: losses.training(layer.replay(outputs)), layer.features @ layer.matrix()
            )
        return hessian(layer.features, blocks).numpy()

    plain = hessian_with(lambda target, logits: tf.reduce_sum((tf.nn.softmax(logits) - target) ** 2, axis=-1))
    assert np.linalg.eigvalsh(plain)[0] < -DAMPING - reference.L2
    assert np.linalg.eigvalsh(hessian_with(squared_error))[0] > -1e-6
    derivative, _, _ = found("squared_error", inverse("exact"), unlabeled_weight=300.0)
    assert np.isfinite(derivative).all()


def test_neumann_on_the_whole_network_is_the_partial_sum() -> None:
    problem = reference.network_problem(reference.learner(), ALGORITHMS["fixmatch"])
    matrix = np.eye(len(problem.hessian)) - 0.1 * (problem.hessian + DAMPING * np.eye(len(problem.hessian)))
    direction = 0.1 * sum(np.linalg.matrix_power(matrix, power) @ problem.validation for power in range(5))
    derivative, _, _ = found("fixmatch", inverse("neumann", iterations=5), scope="all")
    assert relative_error(derivative, -problem.unlabeled @ direction) < 1e-4


def test_whole_network_in_inference_mode_follows_gradients_of_single_examples() -> None:
    own, algorithm = reference.learner(), ALGORITHMS["fixmatch"]
    problem = reference.network_problem(own, algorithm, training=False)
    batch = tiny.batch_for(algorithm)
    target = tf.argmax(own.predict(batch.unlabeled.views["weak"], parameters="raw"), axis=1)
    each = []
    for place in range(tiny.UNLABELED):
        with tf.GradientTape() as tape:
            logits = own.predict(batch.unlabeled.views["strong"][place : place + 1], parameters="raw")
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=target[place : place + 1], logits=logits)
        parts = tape.gradient(loss, own.trainable_variables)
        each.append(np.concatenate([np.reshape(part, -1) for part in parts]))
    each = np.stack(each) * (UNLABELED_WEIGHT * problem.mask / tiny.UNLABELED)[:, np.newaxis]
    derivative, _, _ = found("fixmatch", inverse("identity"), scope="all", training=False)
    assert relative_error(derivative, -each @ problem.validation) < 1e-5


def test_modes_of_batch_norm_give_different_influences() -> None:
    for scope in ("last_layer", "all"):
        training, _, _ = found("fixmatch", inverse("identity"), scope=scope)
        inference, _, _ = found("fixmatch", inverse("identity"), scope=scope, training=False)
        assert relative_error(inference, training) > 0.01


def test_forward_mode_is_double_backward_through_synchronised_batch_norm_on_one_device() -> None:
    for algorithm in ALGORITHMS.values():
        objective, _ = reference.objective(
            reference.learner(), "all", reference.step_losses(algorithm), reference.validation()
        )
        direction = gradient(objective.validation, objective.parameters)
        scores = [
            along(objective.unlabeled, objective.parameters, direction)
            for along in (forward_mode_product, jacobian_vector_product)
        ]
        assert relative_error(*scores) < 1e-5


def test_only_the_pass_that_is_differentiated_forward_saves_memory() -> None:
    objective, _ = reference.objective(
        reference.learner(), "all", reference.step_losses(ALGORITHMS["fixmatch"]), reference.validation()
    )
    saves: dict[str, set[bool]] = {"unlabeled": set(), "validation": set()}

    def spied(name: str) -> Callable[[Vector], tf.Tensor]:
        def losses(at: Vector) -> tf.Tensor:
            saves[name].add(saving_memory())
            return getattr(objective, name)(at)

        return losses

    spying = dataclasses.replace(objective, **{name: spied(name) for name in saves})
    influence(spying, inverse("identity"), layer=None, seed=tf.constant([0, 0]))
    assert saves == {"unlabeled": {True}, "validation": {False}}


def test_stochastic_estimates_scatter_around_the_series() -> None:
    expected, _, _ = found("fixmatch", inverse("neumann", iterations=6))
    how = inverse("stochastic", iterations=6)
    own, losses = reference.learner(), reference.step_losses(ALGORITHMS["fixmatch"])

    @tf.function(autograph=False)
    def sample(seed: tf.Tensor) -> tf.Tensor:
        objective, layer = reference.objective(own, "last_layer", losses, reference.validation())
        return influence(objective, how, layer=layer, seed=seed).derivative

    drawn = np.stack([sample(tf.constant([number, 0])).numpy() for number in range(200)])
    np.testing.assert_array_equal(sample(tf.constant([0, 0])), drawn[0])
    assert np.ptp(drawn[:, expected != 0], axis=0).min() > 0
    error = (drawn.mean(axis=0) - expected)[expected != 0]
    bars = drawn.std(axis=0, ddof=1)[expected != 0] / np.sqrt(len(drawn))
    assert np.mean((error / bars) ** 2) < 3.0


def test_derivative_is_free_of_the_weight_and_scales_with_the_unlabeled_weight() -> None:
    plain, _, _ = found("fixmatch", inverse("identity"))
    other, _, _ = found("fixmatch", inverse("identity"), weights=np.full(tiny.UNLABELED, 9.0, np.float32))
    np.testing.assert_array_equal(plain, other)
    tripled, _, _ = found("fixmatch", inverse("identity"), unlabeled_weight=3 * UNLABELED_WEIGHT)
    np.testing.assert_allclose(tripled, 3 * plain, rtol=1e-5)


def test_hessian_is_that_of_the_weighted_loss() -> None:
    plain, _, _ = found("fixmatch", inverse("exact"))
    other, _, _ = found("fixmatch", inverse("exact"), weights=WEIGHTS[::-1].copy())
    assert relative_error(other, plain) > 0.01


@pytest.mark.parametrize("method", ["neumann", "unrolled", "stochastic"])
def test_series_that_grows_says_so_and_one_that_starts_from_nothing_does_not(method: str) -> None:
    assert found("fixmatch", inverse(method, step_size=1e3, iterations=8))[2]
    own = reference.learner()
    own.head.bias.assign([float("nan")] * tiny.CLASSES)  # the network's fault, and not the series'
    derivative, loss, grew = found("fixmatch", inverse(method, iterations=3), own=own)
    assert not grew
    assert np.isnan(loss)
    assert np.any(np.isnan(derivative))
