"""FixMatch at logits whose losses can be worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.fixmatch import FixMatch
from metassl_tf.learner.step import reduce_terms
from tests.algorithms.given_logits import logits_of, losses_at

WEAK = [[0.9, 0.1], [0.6, 0.4], [0.04, 0.96], [0.3, 0.7]]
STRONG = [[0.2, 0.8], [0.3, 0.7], [0.6, 0.4], [0.9, 0.1]]


def logits() -> dict[str, tf.Variable]:
    return {"labeled": logits_of([[0.25, 0.75]]), "weak": logits_of(WEAK), "strong": logits_of(STRONG)}


def test_strong_view_learns_the_weak_views_label_where_that_is_confident() -> None:
    losses = losses_at(FixMatch(threshold=0.8), logits(), labels=[0], truth=[0] * 4)
    expected = -np.log([0.2, 1.0, 0.4, 1.0])
    np.testing.assert_allclose(losses.unlabeled["consistency"].counted_values, expected, rtol=1e-5)
    np.testing.assert_allclose(losses.labeled["cross_entropy"].values, [-np.log(0.25)], rtol=1e-5)


def test_mean_is_over_the_whole_unlabeled_batch() -> None:
    losses = losses_at(FixMatch(threshold=0.8), logits(), labels=[0], truth=[0] * 4)
    loss, sums = reduce_terms(losses, tf.constant(3.0))
    total = -np.log(0.2) - np.log(0.4)
    assert float(loss) == pytest.approx(-np.log(0.25) + 3 * total / 4, rel=1e-5)
    assert sums["loss/consistency"].numpy() == pytest.approx([total, 4], rel=1e-5)


def test_threshold_itself_is_confident_enough() -> None:
    even = {"labeled": logits_of([[0.5, 0.5]]), "weak": logits_of([[0.5, 0.5]]), "strong": logits_of([[0.5, 0.5]])}
    losses = losses_at(FixMatch(threshold=0.5), even, labels=[0], truth=[0])
    np.testing.assert_allclose(losses.unlabeled["consistency"].counted_values, [-np.log(0.5)], rtol=1e-6)


def test_gradient_of_the_strong_view_is_softmax_minus_pseudo_label() -> None:
    variables = logits()
    with tf.GradientTape() as tape:
        losses = losses_at(FixMatch(threshold=0.8), variables, labels=[0], truth=[0] * 4)
        total = tf.reduce_sum(losses.unlabeled["consistency"].counted_values)
    expected = [[0.2 - 1, 0.8], [0, 0], [0.6, 0.4 - 1], [0, 0]]
    np.testing.assert_allclose(tape.gradient(total, variables["strong"]), expected, atol=1e-6)


def test_default_threshold_is_the_papers() -> None:
    assert FixMatch().threshold == 0.95
