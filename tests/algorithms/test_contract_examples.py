"""What every algorithm in the table promises: an example's loss is its own, and the truth about it is not used."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.base import Algorithm
from metassl_tf.algorithms.batch import Batch, Side
from tests.algorithms.evaluation import learner, losses_of, terms_of
from tests.learner import tiny


def take(examples: Side, rows: list[int]) -> Side:
    return tf.nest.map_structure(lambda values: tf.gather(values, rows), examples)


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
    for start in range(0, 8, 2):  # in pairs, since mixup pairs neighbors
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
