"""The last layer in closed form is the network restricted to its last layer; which parameters the other scopes hold."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.hypergrad import last_layer
from metassl_tf.hypergrad.products import (
    Vector,
    forward_mode_product,
    gradient,
    hessian_vector_product,
    jacobian_vector_product,
)
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.step import evaluate, reduce_terms
from metassl_tf.meta.scopes import Objective, network_objective, scope_parameters, validation_share
from metassl_tf.models.base import ModelSettings
from metassl_tf.models.convnet import ConvNet
from metassl_tf.models.mlp import MLP
from metassl_tf.models.resnet import ResNet50
from metassl_tf.models.wide_resnet import WideResNet
from tests.learner import tiny
from tests.meta import reference
from tests.meta.reference import ALGORITHMS, UNLABELED_WEIGHT, WEIGHTS, relative_error

SMALL_MODELS: dict[str, ModelSettings] = {
    "mlp": MLP(hidden_units=(8, 6)),
    "convnet": ConvNet(filters=4),
    "wide_resnet": WideResNet(depth=10, width=1),
}


def as_matrix(vector: Vector) -> np.ndarray:
    """Kernel and bias as the last layer's matrix."""
    return np.concatenate([vector[0], vector[1][np.newaxis]])


def both(algorithm: str, *, training: bool) -> tuple[Objective, Objective, Any]:
    """The last layer's objective by replay and by running the network again, and the layer."""
    own = reference.learner()
    step, examples = reference.step_losses(ALGORITHMS[algorithm]), reference.validation()
    replayed, layer = reference.objective(own, "last_layer", step, examples, training=training)
    inputs = {"validation": examples.views["plain"]}
    whole = network_objective(
        own,
        "last_layer",
        step,
        validation=inputs,
        validation_loss=lambda logits: validation_share(logits, examples.label),
        training=training,
    )
    return replayed, whole, layer


@pytest.mark.parametrize(
    ("algorithm", "training"), [("fixmatch", True), ("uda", True), ("pseudo_label", True), ("fixmatch", False)]
)
def test_replayed_losses_and_derivatives_are_the_networks_own(algorithm: str, training: bool) -> None:
    replayed, whole, layer = both(algorithm, training=training)
    generator = np.random.default_rng(0)
    vector = [tf.constant(generator.normal(size=part.shape), tf.float32) for part in whole.parameters]
    matrix = [tf.constant(as_matrix(vector))]
    # At the present parameters and away from them.
    moved = [part + 0.3 * change for part, change in zip(whole.parameters, vector, strict=True)]
    for at in (whole.parameters, moved):
        at_matrix = [tf.constant(as_matrix(at))]
        for mine, theirs in (
            (replayed.training(at_matrix), whole.training(at)),
            (replayed.validation(at_matrix), whole.validation(at)),
            (replayed.unlabeled(at_matrix), whole.unlabeled(at)),
        ):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)
        for loss in ("training", "validation"):
            mine = gradient(getattr(replayed, loss), at_matrix)[0]
            assert relative_error(mine, as_matrix(gradient(getattr(whole, loss), at))) < 1e-5
            mine = hessian_vector_product(getattr(replayed, loss), at_matrix, matrix)[0]
            theirs = hessian_vector_product(getattr(whole, loss), at, vector)
            assert relative_error(mine, as_matrix(theirs)) < 1e-5
        scores = jacobian_vector_product(whole.unlabeled, at, vector)
        assert relative_error(forward_mode_product(replayed.unlabeled, at_matrix, matrix), scores) < 1e-5
    # The Hessian in closed form, L2 included.
    blocks = last_layer.curvature_blocks(
        lambda outputs: layer.step.training(layer.replay(outputs)), layer.features @ replayed.parameters[0]
    )
    decay = tf.broadcast_to(replayed.decay[0], replayed.parameters[0].shape)
    closed = last_layer.hessian(layer.features, blocks) + np.diag(np.reshape(decay, -1))
    with tf.GradientTape() as tape:
        tape.watch(whole.parameters)
        parts = gradient(
            lambda at: whole.training(at) + 0.5 * reference.L2 * tf.reduce_sum(at[0] ** 2), whole.parameters
        )
        slope = tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)
    jacobian = tape.jacobian(slope, whole.parameters)
    # Rows and columns of kernel, then bias, are those of the matrix.
    dense = np.concatenate([np.reshape(part, [closed.shape[0], -1]) for part in jacobian], axis=1)
    assert relative_error(closed, dense) < 1e-5


def test_some_examples_are_masked_and_some_are_not() -> None:
    """What all of these tests need."""
    for algorithm in ALGORITHMS.values():
        for training in (True, False):
            mask = reference.last_layer_problem(reference.learner().model, algorithm, training=training).mask
            assert 0 < mask.sum() < tiny.UNLABELED


def test_weight_decay_is_on_the_kernel_and_not_on_the_bias() -> None:
    replayed, whole, _ = both("fixmatch", training=True)
    assert whole.decay == [reference.L2, 0.0]
    np.testing.assert_allclose(replayed.decay[0][:, 0], [reference.L2] * tiny.HIDDEN + [0.0])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_losses_are_those_that_the_step_minimises(algorithm: str) -> None:
    replayed, _, _ = both(algorithm, training=True)
    evaluated = evaluate(
        reference.learner(),
        ALGORITHMS[algorithm],
        tiny.batch_for(ALGORITHMS[algorithm]),
        tiny.context(),
        unlabeled_weight=tf.constant(UNLABELED_WEIGHT),
        example_weights=tf.constant(WEIGHTS),
    )
    problem = reference.last_layer_problem(reference.learner().model, ALGORITHMS[algorithm])
    np.testing.assert_allclose(replayed.training(replayed.parameters), evaluated.sums["loss"][0], rtol=1e-6)
    assert problem.training_loss == pytest.approx(float(evaluated.sums["loss"][0]), rel=1e-5)
    np.testing.assert_allclose(replayed.validation(replayed.parameters), problem.validation_loss, rtol=1e-5)
    slope = gradient(replayed.training, replayed.parameters)[0]
    np.testing.assert_allclose(slope, as_matrix(evaluated.gradients[-2:]), rtol=1e-4, atol=1e-6)


def test_subset_of_examples_estimates_the_same_loss() -> None:
    """Both sides are drawn from; each example counts twice or not at all."""
    replayed, _, _ = both("fixmatch", training=True)
    size = tiny.UNLABELED + tiny.LABELED
    assert replayed.num_examples == size
    total = replayed.training(replayed.parameters)
    generator = np.random.default_rng(0)
    halves = 2.0 * generator.integers(2, size=size)
    parts = [replayed.training(replayed.parameters, tf.constant(half, tf.float32)) for half in (halves, 2.0 - halves)]
    np.testing.assert_allclose(0.5 * (parts[0] + parts[1]), total, rtol=1e-6)
    for place in range(size):  # every entry of the subset is one example's
        without = np.ones(size)
        without[place] = 0.0
        changed = replayed.training(replayed.parameters, tf.constant(without, tf.float32))
        counts = place >= tiny.UNLABELED or (
            WEIGHTS[place] > 0 and float(replayed.unlabeled(replayed.parameters)[place]) > 0
        )
        assert (abs(float(changed - total)) > 1e-7) == bool(counts)


def test_weighted_contributions_add_up_to_the_unlabeled_loss() -> None:
    own = reference.learner()
    algorithm = ALGORITHMS["fixmatch"]
    for masked in (True, False):
        step = reference.step_losses(algorithm, masked=masked)
        each = step.unlabeled(own.begin(step.context.step))
        losses = step.terms(own.begin(step.context.step))
        term = losses.unlabeled["consistency"]
        values = term.mask * term.values if masked else term.values
        np.testing.assert_allclose(each, UNLABELED_WEIGHT * values / tiny.UNLABELED, rtol=1e-6)
    loss = reduce_terms(losses, tf.constant(UNLABELED_WEIGHT), tf.constant(WEIGHTS))[0]
    labeled = tf.reduce_mean(losses.labeled["cross_entropy"].values)
    masked_each = UNLABELED_WEIGHT * term.mask * term.values / tiny.UNLABELED
    np.testing.assert_allclose(loss, labeled + tf.reduce_sum(WEIGHTS * masked_each), rtol=1e-6)


def gradients_in_inference(index: list[int], weights: list[float], *, divisor: int) -> np.ndarray:
    """Of the weighted loss of some unlabeled examples, batch norm in inference mode, by all parameters."""
    own, algorithm = reference.learner(), ALGORITHMS["fixmatch"]
    full = tiny.batch_for(algorithm)
    unlabeled = tf.nest.map_structure(lambda values: tf.gather(values, index), full.unlabeled)
    batch = full._replace(unlabeled=unlabeled)
    with tf.GradientTape() as tape:
        forward = own.begin(tf.constant(0, tf.int64), training=False)
        losses = algorithm.losses(forward, batch, tiny.context())
        share = reduce_terms(losses, tf.constant(len(index) / divisor), tf.constant(weights))[0]
    parts = tape.gradient(share, own.trainable_variables)
    return np.concatenate([np.reshape(part, -1) for part in parts])


def test_weight_of_zero_removes_an_example_and_two_is_a_second_copy() -> None:
    """With a fixed divisor; batch norm in training mode would let the example act on the others all the same."""
    everyone = list(range(tiny.UNLABELED))
    mask = reference.last_layer_problem(reference.learner().model, ALGORITHMS["fixmatch"], training=False).mask
    chosen = int(np.flatnonzero(mask)[0])
    plain = [0.7] * tiny.UNLABELED

    def with_weight(value: float) -> np.ndarray:
        changed = [value if place == chosen else weight for place, weight in enumerate(plain)]
        return gradients_in_inference(everyone, changed, divisor=tiny.UNLABELED)

    others = [place for place in everyone if place != chosen]
    removed = gradients_in_inference(others, plain[1:], divisor=tiny.UNLABELED)
    np.testing.assert_allclose(with_weight(0.0), removed, rtol=1e-4, atol=1e-6)
    copied = gradients_in_inference([*everyone, chosen], [*plain, 0.7], divisor=tiny.UNLABELED)
    np.testing.assert_allclose(with_weight(1.4), copied, rtol=1e-4, atol=1e-6)
    assert relative_error(removed, copied) > 1e-2


def test_dropout_of_the_replay_is_that_of_the_training_pass() -> None:
    own = reference.learner(dropout=0.5)
    step = reference.step_losses(ALGORITHMS["fixmatch"], step=4)
    evaluated = evaluate(
        own,
        step.algorithm,
        step.batch,
        step.context,
        unlabeled_weight=step.unlabeled_weight,
        example_weights=step.example_weights,
    )
    features = evaluated.forward.calls[0].features
    assert 0.3 < np.mean(features == 0) < 0.7
    logits = tf.concat(list(evaluated.forward.calls[0].logits.values()), axis=0)
    np.testing.assert_allclose(features @ own.head.kernel + own.head.bias, logits, rtol=1e-5, atol=1e-6)
    for scope in ("last_layer", "all"):
        found, _ = reference.objective(own, scope, step, reference.validation())
        np.testing.assert_allclose(found.training(found.parameters), evaluated.sums["loss"][0], rtol=1e-5)
    other = reference.step_losses(step.algorithm, step=5)
    found, _ = reference.objective(own, "last_layer", other, reference.validation())
    assert abs(float(found.training(found.parameters) - evaluated.sums["loss"][0])) > 1e-3


def names(model: keras.Model, scope: str) -> list[str]:
    return [parameter.path for parameter in scope_parameters(Learner(model, tiny.optimization(), seed=0), scope)]


def test_scopes_of_the_models() -> None:
    classifier = ["classifier/kernel", "classifier/bias"]
    for name, settings in SMALL_MODELS.items():
        model = settings.build((8, 8, 1), 3)
        assert names(model, "last_layer") == classifier
        assert names(model, "all") == [variable.path for variable in model.trainable_variables]
        block = {path.split("/")[0] for path in names(model, "last_block")}
        assert (
            block
            == {
                "mlp": {"hidden2", "classifier"},
                "convnet": {"stage3_2_conv", "stage3_2_bn", "classifier"},
                "wide_resnet": {
                    *(f"stage3_block1_{part}" for part in ("1_bn", "1_conv", "2_bn", "2_conv", "shortcut_conv")),
                    "head_bn",
                    "classifier",
                },
            }[name]
        )


def test_last_block_of_a_deeper_residual_network() -> None:
    model = WideResNet(depth=16, width=1).build((8, 8, 1), 3)
    block = {path.split("/")[0] for path in names(model, "last_block")}
    assert block == {f"stage3_block2_{part}" for part in ("1_bn", "1_conv", "2_bn", "2_conv")} | {
        "head_bn",
        "classifier",
    }


def test_last_block_of_resnet50() -> None:
    model = ResNet50().build((32, 32, 3), 3)
    block = {path.split("/")[0] for path in names(model, "last_block")}
    assert block == {f"stack3_block2_{number}_{kind}" for number in (1, 2, 3) for kind in ("conv", "bn")} | {
        "classifier"
    }


def test_last_block_of_nested_and_of_shallow_models() -> None:
    body = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="one"), keras.layers.Dense(3, name="two")])
    inputs = keras.Input((4,))
    nested = keras.Model(inputs, keras.layers.Dense(2, name="three")(body(inputs)))
    assert {path.split("/")[-2] for path in names(nested, "last_block")} == {"two", "three"}
    single = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert names(single, "last_block") == names(single, "all") == names(single, "last_layer")
