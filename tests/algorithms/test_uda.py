"""UDA at logits whose losses can be worked out by hand: sharpening, masking, training-signal annealing."""

import math

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.base import Context
from metassl_tf.algorithms.uda import Uda
from metassl_tf.learner.step import reduce_terms
from tests.algorithms.given_logits import logits_of, losses_at

WEAK = np.array([[0.7, 0.3], [0.55, 0.45], [0.9, 0.1]])
STRONG = np.array([[0.4, 0.6], [0.5, 0.5], [0.3, 0.7]])


def logits(labeled: list[list[float]] | None = None) -> dict[str, tf.Variable]:
    return {
        "labeled": logits_of(labeled or [[0.5, 0.5]]),
        "weak": logits_of(WEAK),
        "strong": logits_of(STRONG),
    }


def sharpened(temperature: float) -> np.ndarray:
    powers = WEAK ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("confidence", "kept"),
    [("raw", [0, 0, 1]), ("tempered", [1, 0, 1])],  # sharpened at 0.5, 0.7 becomes 0.845 and 0.55 becomes 0.599
)
def test_threshold_meets_the_raw_or_the_tempered_probability(confidence: str, kept: list[int]) -> None:
    losses = losses_at(Uda(temperature=0.5, confidence=confidence), logits(), labels=[0], truth=[0, 0, 0])
    target = sharpened(0.5)
    divergence = (target * np.log(target / STRONG)).sum(axis=1)
    np.testing.assert_allclose(losses.unlabeled["consistency"].counted_values, kept * divergence, rtol=1e-5)
    share = losses.metrics["share_above_threshold"]
    assert share.values.numpy().tolist() == kept
    sums = reduce_terms(losses, tf.ones([]))[1]
    assert float(sums["loss/consistency"][1]) == 3  # masked ones too


def test_threshold_itself_is_not_above_the_threshold() -> None:
    even = {"labeled": logits_of([[0.5, 0.5]]), "weak": logits_of([[0.5, 0.5]]), "strong": logits_of([[0.9, 0.1]])}
    for threshold, used in ((0.5, False), (0.49, True)):
        losses = losses_at(Uda(threshold=threshold), even, labels=[0], truth=[0])
        assert (losses.unlabeled["consistency"].counted_values.numpy() > 0).tolist() == [used]


def test_gradient_of_the_strong_view_is_softmax_minus_target() -> None:
    variables = logits()
    with tf.GradientTape() as tape:
        losses = losses_at(Uda(temperature=0.5, threshold=0.8), variables, labels=[0], truth=[0, 0, 0])
        total = tf.reduce_sum(losses.unlabeled["consistency"].counted_values)
    expected = [[0], [0], [1]] * (STRONG - sharpened(0.5))
    np.testing.assert_allclose(tape.gradient(total, variables["strong"]), expected, atol=1e-6)


LABELED = [[0.9, 0.1], [0.7, 0.3], [0.4, 0.6]]  # all of class 0


@pytest.mark.parametrize(
    ("annealing", "step", "threshold"),
    [
        ("linear", 0, 0.5),
        ("linear", 50, 0.75),
        ("linear", 100, 1.0),
        ("log", 0, 0.5),
        ("log", 10, 0.5 + (1 - math.exp(-0.5)) / 2),  # 0.697
        ("exp", 0, 0.5 + math.exp(-5) / 2),
        ("exp", 90, 0.5 + math.exp(-0.5) / 2),  # 0.803
    ],
)
def test_annealing_drops_labels_that_are_predicted_too_well(annealing: str, step: int, threshold: float) -> None:
    context = Context(tf.constant(step, tf.int64), 100)
    losses = losses_at(Uda(annealing=annealing), logits(LABELED), labels=[0, 0, 0], truth=[0, 0, 0], context=context)
    kept = [probability <= threshold for probability in (0.9, 0.7, 0.4)]
    term = losses.labeled["cross_entropy"]
    np.testing.assert_allclose(term.values, kept * -np.log([0.9, 0.7, 0.4]), rtol=1e-5)
    assert term.counts is not None
    assert term.counts.numpy().tolist() == kept
    assert losses.metrics["share_kept_labeled"].values.numpy().tolist() == kept

    share, sums = reduce_terms(losses, tf.zeros([]))
    total, count = -np.log([0.9, 0.7, 0.4])[kept].sum(), sum(kept)
    assert float(share) == pytest.approx(total / count, rel=1e-5)
    assert sums["loss/cross_entropy"].numpy() == pytest.approx([total, count], rel=1e-5)


def test_annealing_that_keeps_no_label_divides_by_one() -> None:
    losses = losses_at(Uda(annealing="linear"), logits([[0.9, 0.1]] * 2), labels=[0, 0], truth=[0, 0, 0])
    share, sums = reduce_terms(losses, tf.zeros([]))
    assert float(share) == 0
    assert sums["loss/cross_entropy"].numpy().tolist() == [0, 1]


def test_default_annealing_keeps_every_label() -> None:
    losses = losses_at(Uda(), logits(LABELED), labels=[0, 0, 0], truth=[0, 0, 0])
    assert losses.labeled["cross_entropy"].counts is None
    assert "share_kept_labeled" not in losses.metrics
