"""Pseudo-Label at logits whose losses can be worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.pseudo_label import PseudoLabel
from metassl_tf.learner.step import reduce_terms
from tests.algorithms.given_logits import logits_of, losses_at

UNLABELED = [[0.9, 0.1], [0.5, 0.5], [0.05, 0.95], [0.6, 0.4]]


def test_mask_belongs_to_its_own_example_and_the_mean_is_over_the_whole_batch() -> None:
    logits = {"labeled": logits_of([[0.5, 0.5]]), "unlabeled": logits_of(UNLABELED)}
    losses = losses_at(PseudoLabel(threshold=0.8), logits, labels=[0], truth=[0, 0, 1, 0])
    expected = -np.log([0.9, 1.0, 0.95, 1.0])
    np.testing.assert_allclose(losses.unlabeled["pseudo_label"].counted_values, expected, rtol=1e-5)

    loss, sums = reduce_terms(losses, tf.ones([]))
    assert float(loss) == pytest.approx(-np.log(0.5) + expected.sum() / 4, rel=1e-6)
    assert sums["loss/pseudo_label"].numpy() == pytest.approx([expected.sum(), 4], rel=1e-5)
    # What the released code computes, where a [B, 1] mask meets [B] losses: mean loss times mean mask.
    broadcast = -np.log([0.9, 0.5, 0.95, 0.6]).mean() * 0.5
    assert abs(float(loss) + np.log(0.5) - broadcast) > 0.1


def test_threshold_itself_is_not_above_the_threshold() -> None:
    logits = {"labeled": logits_of([[0.5, 0.5]]), "unlabeled": logits_of([[0.5, 0.5], [0.51, 0.49]])}
    losses = losses_at(PseudoLabel(threshold=0.5), logits, labels=[0], truth=[0, 0])
    assert (losses.unlabeled["pseudo_label"].counted_values.numpy() > 0).tolist() == [False, True]


def test_gradient_treats_the_pseudo_label_as_a_constant() -> None:
    logits = {"labeled": logits_of([[0.5, 0.5]]), "unlabeled": logits_of(UNLABELED)}
    with tf.GradientTape() as tape:
        losses = losses_at(PseudoLabel(threshold=0.8), logits, labels=[0], truth=[0, 0, 1, 0])
        total = tf.reduce_sum(losses.unlabeled["pseudo_label"].counted_values)
    expected = [[0.9 - 1, 0.1], [0, 0], [0.05, 0.95 - 1], [0, 0]]  # softmax minus one-hot, where confident
    np.testing.assert_allclose(tape.gradient(total, logits["unlabeled"]), expected, atol=1e-6)


def test_metrics_count_confident_examples_whose_truth_is_known() -> None:
    logits = {"labeled": logits_of([[0.5, 0.5]]), "unlabeled": logits_of([*UNLABELED, [0.99, 0.01]])}
    metrics = losses_at(PseudoLabel(threshold=0.8), logits, labels=[0], truth=[0, 0, 0, 0, -1]).metrics
    share, accuracy = metrics["share_above_threshold"], metrics["pseudo_label_accuracy"]
    assert share.values.numpy().tolist() == [1, 0, 1, 0, 1]
    assert share.counts.numpy().tolist() == [1] * 5
    assert accuracy.counts.numpy().tolist() == [1, 0, 1, 0, 0]
    assert (accuracy.values * accuracy.counts).numpy().tolist() == [1, 0, 0, 0, 0]
