"""What every algorithm in the table promises: its loss is the paper's, and its gradients flow where they should."""

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms import ALGORITHMS
from metassl_tf.algorithms.base import Algorithm, Losses
from metassl_tf.algorithms.batch import Batch, Examples, Inputs
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.passes import Pass
from metassl_tf.learner.step import reduce_terms
from tests.algorithms.cases import CASES, variants
from tests.learner import tiny

# More examples than a step would need, so that each mask keeps some of them and drops some.
MANY = {"labeled": 16, "unlabeled": 32}


@functools.cache
def learner() -> Learner:
    """One for all tests: nothing here updates it."""
    return Learner(tiny.network(), tiny.optimization(), seed=0)


def new_pass(step: int) -> Pass:
    return learner().begin(tiny.context(step).step)


def losses_of(algorithm: Algorithm, batch: Batch, *, step: int = 7) -> Losses:
    return algorithm.losses(new_pass(step), batch, tiny.context(step))


def total_of(losses: Losses, unlabeled_weight: float = 1.0) -> float:
    return float(reduce_terms(losses, tf.constant(unlabeled_weight))[0])


def terms_of(losses: Losses) -> dict[str, Any]:
    return losses.labeled | losses.unlabeled


def take(examples: Examples, rows: list[int]) -> Examples:
    return tf.nest.map_structure(lambda values: tf.gather(values, rows), examples)


@pytest.mark.parametrize(("name", "settings"), [(name, settings) for name in CASES for settings in variants(name)])
def test_loss_is_the_papers(name: str, settings: dict[str, Any]) -> None:
    algorithm = ALGORITHMS[name](**settings)
    network = tiny.in_numpy(tiny.network())
    for seed, step in itertools.product(range(2), (0, 4, 9)):
        batch = tiny.batch_for(algorithm, seed=seed, **MANY)
        losses = losses_of(algorithm, batch, step=step)
        labeled, unlabeled = CASES[name].golden(algorithm, network, batch, step / tiny.STEPS)
        assert total_of(losses, 0.0) == pytest.approx(labeled, rel=1e-5)
        assert total_of(losses, 2.5) == pytest.approx(labeled + 2.5 * unlabeled, rel=1e-5)


def test_masks_of_those_comparisons_drop_some_examples_and_keep_some(name: str) -> None:
    batch = tiny.batch_for(ALGORITHMS[name](), **MANY)
    for average in losses_of(ALGORITHMS[name](), batch).metrics.values():
        assert 0 < average.values.numpy().mean() < 1


def test_every_hyperparameter_changes_the_loss_or_what_is_needed(name: str) -> None:
    def effect(settings: dict[str, Any]) -> tuple[np.ndarray, Any]:
        algorithm = ALGORITHMS[name](**settings)
        totals = [
            total_of(losses_of(algorithm, tiny.batch_for(algorithm, seed=seed, **MANY), step=step))
            for seed, step in itertools.product(range(2), (2, 8))
        ]
        return np.array(totals), algorithm.needs()

    for field, values in CASES[name].alternatives.items():
        effects = [effect({}), *(effect({field: value}) for value in values)]
        for (losses, needs), (other_losses, other_needs) in itertools.combinations(effects, 2):
            assert needs != other_needs or np.abs(losses - other_losses).max() > 1e-3, field


def test_every_term_reaches_every_trainable_variable(name: str, algorithm: Algorithm) -> None:
    with tf.GradientTape(persistent=True) as tape:
        losses = losses_of(algorithm, tiny.batch_for(algorithm, **MANY))
        sums = {name: tf.reduce_sum(term.counted_values) for name, term in terms_of(losses).items()}
    assert sums.keys() == CASES[name].learns.keys()
    for total in sums.values():
        assert all(float(tf.norm(gradient)) > 1e-3 for gradient in tape.gradient(total, learner().trainable_variables))


class FixedLogits:
    """A forward pass whose logits are variables of their own, so that each branch's gradient can be told apart."""

    def __init__(self) -> None:
        self.logits: dict[str, tf.Variable] = {}

    def __call__(self, inputs: Mapping[str, Inputs], **_: Any) -> dict[str, tf.Tensor]:
        for name, values in inputs.items():
            draws = np.random.default_rng(len(self.logits)).normal(size=(values.shape[0], tiny.CLASSES))
            self.logits[name] = tf.Variable(2 * draws, dtype=tf.float32)
        return {name: tf.convert_to_tensor(self.logits[name]) for name in inputs}


def test_targets_and_masks_pass_no_gradient_at_all(name: str, algorithm: Algorithm) -> None:
    forward = FixedLogits()
    with tf.GradientTape(persistent=True) as tape:
        losses = algorithm.losses(forward, tiny.batch_for(algorithm, **MANY), tiny.context(7))
        sums = {name: tf.reduce_sum(term.counted_values) for name, term in terms_of(losses).items()}
    for term, total in sums.items():
        gradients = tape.gradient(total, forward.logits, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        learning = {name for name, gradient in gradients.items() if np.any(gradient.numpy() != 0)}
        assert learning == CASES[name].learns[term]


def test_moving_statistics_follow_exactly_one_pass(algorithm: Algorithm) -> None:
    forward, updates = new_pass(step=0), []

    def spy(inputs: Mapping[str, Inputs], *, update_statistics: bool = True, **options: Any) -> dict[str, tf.Tensor]:
        updates.append(update_statistics)
        return forward(inputs, update_statistics=update_statistics, **options)

    algorithm.losses(spy, tiny.batch_for(algorithm), tiny.context())
    assert updates.count(True) == 1


def test_every_value_has_the_shape_of_its_examples(algorithm: Algorithm) -> None:
    losses = losses_of(algorithm, tiny.batch_for(algorithm))
    for terms, size in ((losses.labeled, tiny.LABELED), (losses.unlabeled, tiny.UNLABELED)):
        for term in terms.values():
            assert term.values.shape == [size]
            assert term.counts is None or term.counts.shape == [size]
    for average in losses.metrics.values():
        assert average.values.shape == average.counts.shape
        assert average.values.shape.rank == 1


def test_every_value_belongs_to_its_own_example(algorithm: Algorithm) -> None:
    """Fails where masks and losses are broadcast against each other, as in the released Pseudo-Label baseline."""
    batch = tiny.batch_for(algorithm, labeled=8, unlabeled=8)
    whole = terms_of(losses_of(algorithm, batch))
    for start in range(0, 8, 2):  # in pairs, since mixup pairs neighbours
        rows = [start, start + 1]
        unlabeled = take(batch.unlabeled, rows) if batch.unlabeled.views else batch.unlabeled
        draws = {name: tf.gather(draw, rows) for name, draw in batch.draws.items()}
        pair = terms_of(losses_of(algorithm, Batch(take(batch.labeled, rows), unlabeled, draws)))
        for name, term in whole.items():
            expected = tf.gather(term.counted_values, rows)
            np.testing.assert_allclose(pair[name].counted_values, expected, rtol=1e-5, atol=1e-6)


def test_weight_2_is_a_duplicate_and_weight_0_a_removal(algorithm: Algorithm) -> None:
    """At a fixed divisor; the network has no batch norm, under which examples act on each other."""
    if algorithm.needs().draws:
        pytest.skip("a mixed example has two owners")
    batch = tiny.batch_for(algorithm, labeled=8, unlabeled=8)
    rows = [0, 0, *range(2, 8)]
    unlabeled = take(batch.unlabeled, rows) if batch.unlabeled.views else batch.unlabeled
    edited = Batch(take(batch.labeled, rows), unlabeled, {})
    weights = tf.constant([2.0, 0.0, *[1.0] * 6])

    def losses_and_gradients(batch: Batch, weights: tf.Tensor) -> list[Any]:
        with tf.GradientTape(persistent=True) as tape:
            terms = terms_of(losses_of(algorithm, batch)).values()
            losses = [tf.reduce_sum(weights * term.counted_values) for term in terms]
        return [[loss, *tape.gradient(loss, learner().trainable_variables)] for loss in losses]

    weighted, counted = losses_and_gradients(batch, weights), losses_and_gradients(edited, tf.ones([8]))
    for expected, received in zip(tf.nest.flatten(weighted), tf.nest.flatten(counted), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_truth_about_unlabeled_examples_never_reaches_the_loss(algorithm: Algorithm) -> None:
    batch = tiny.batch_for(algorithm)
    unknown = batch._replace(unlabeled=batch.unlabeled._replace(label=-tf.ones_like(batch.unlabeled.label)))
    known, blind = terms_of(losses_of(algorithm, batch)), terms_of(losses_of(algorithm, unknown))
    for name, term in known.items():
        np.testing.assert_array_equal(term.counted_values, blind[name].counted_values)
