"""Noisy Student at logits whose losses can be worked out by hand."""

import numpy as np
import pytest

from metassl_tf.algorithms.base import Losses
from metassl_tf.algorithms.noisy_student import NoisyStudent
from metassl_tf.learner.step import reduce_terms
from tests.algorithms.given_logits import logits_of, losses_at

STRONG = [[0.2, 0.8], [0.3, 0.7], [0.9, 0.1]]
SAID = [[0.4, 0.6], [1.0, 0.0], [0.75, 0.25]]


def losses() -> Losses:
    variables = {"labeled": logits_of([[0.25, 0.75]]), "strong": logits_of(STRONG)}
    return losses_at(NoisyStudent(), variables, labels=[0], truth=[1, 1, -1], columns={"teacher_label": SAID})


def test_student_sees_strong_views_alone() -> None:
    needs = NoisyStudent().needs()
    assert {*needs.labeled_views.values(), *needs.unlabeled_views.values()} == {"strong"}


def test_labels_are_soft() -> None:
    found = losses()
    expected = [-(q * np.log(p)).sum() for q, p in zip(np.array(SAID), np.array(STRONG), strict=True)]
    np.testing.assert_allclose(found.unlabeled["teacher_label"].values, expected, rtol=1e-5)
    loss, _ = reduce_terms(found, np.float32(3.0))
    assert float(loss) == pytest.approx(-np.log(0.25) + 3 * np.mean(expected), rel=1e-5)


def test_metrics_say_how_good_how_sure_and_how_well_learned_the_labels_are() -> None:
    metrics = losses().metrics
    accuracy, agreement = metrics["teacher_label_accuracy"], metrics["agreement"]
    assert accuracy.counts.numpy().tolist() == [1, 1, 0]  # the truth is known
    assert (accuracy.values * accuracy.counts).numpy().tolist() == [1, 0, 0]
    assert (agreement.values * agreement.counts).numpy().tolist() == [1, 0, 1]
    entropy = [-(row * np.log(row)).sum() if row.all() else 0.0 for row in np.array(SAID)]
    np.testing.assert_allclose(metrics["teacher_label_entropy"].values, entropy, rtol=1e-5)
