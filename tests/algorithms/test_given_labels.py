"""Given labels at logits whose losses can be worked out by hand."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.base import Losses
from metassl_tf.algorithms.given_labels import GivenLabels
from metassl_tf.learner.step import reduce_terms
from tests.algorithms.given_logits import logits_of, losses_at

STRONG = [[0.2, 0.8], [0.3, 0.7], [0.6, 0.4], [0.9, 0.1]]
GIVEN = [1, 0, -1, 0]


def logits() -> dict[str, tf.Variable]:
    return {"labeled": logits_of([[0.25, 0.75]]), "strong": logits_of(STRONG)}


def losses(variables: dict[str, tf.Variable] | None = None, **changes: Any) -> Losses:
    arguments = {"labels": [0], "truth": [1, 1, 0, -1], "columns": {"given_label": GIVEN}, **changes}
    return losses_at(GivenLabels(), variables or logits(), **arguments)


def test_strong_view_learns_the_given_label_and_nothing_where_there_is_none() -> None:
    found = losses()
    term = found.unlabeled["given_label"]
    np.testing.assert_allclose(term.counted_values, -np.log([0.8, 0.3, 1.0, 0.9]), rtol=1e-5, atol=1e-7)
    assert term.mask is not None
    assert term.mask.numpy().tolist() == [1, 1, 0, 1]
    np.testing.assert_allclose(found.labeled["cross_entropy"].values, [-np.log(0.25)], rtol=1e-5)


def test_mean_is_over_the_whole_unlabeled_batch() -> None:
    loss, sums = reduce_terms(losses(), tf.constant(3.0))
    total = -np.log([0.8, 0.3, 0.9]).sum()
    assert float(loss) == pytest.approx(-np.log(0.25) + 3 * total / 4, rel=1e-5)
    assert sums["loss/given_label"].numpy() == pytest.approx([total, 4], rel=1e-5)


def test_gradient_of_the_strong_view_is_softmax_minus_given_label() -> None:
    variables = logits()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(losses(variables).unlabeled["given_label"].counted_values)
    expected = [[0.2, 0.8 - 1], [0.3 - 1, 0.7], [0, 0], [0.9 - 1, 0.1]]
    np.testing.assert_allclose(tape.gradient(total, variables["strong"]), expected, atol=1e-6)


def test_metrics_say_how_many_given_labels_are_right_and_how_many_the_model_believes() -> None:
    metrics = losses().metrics
    accuracy, agreement = metrics["given_label_accuracy"], metrics["given_label_agreement"]
    assert accuracy.counts.numpy().tolist() == [1, 1, 0, 0]  # given, and the truth is known
    assert (accuracy.values * accuracy.counts).numpy().tolist() == [1, 0, 0, 0]
    assert agreement.counts.numpy().tolist() == [1, 1, 0, 1]
    assert (agreement.values * agreement.counts).numpy().tolist() == [1, 0, 0, 1]


def test_right_given_labels_are_labels() -> None:
    strong = losses(columns={"given_label": [0] * 4}).unlabeled["given_label"].counted_values
    labeled = losses({"labeled": logits_of(STRONG), "strong": logits_of(STRONG)}, labels=[0] * 4)
    np.testing.assert_array_equal(strong, labeled.labeled["cross_entropy"].values)
