"""Metrics agree with scikit-learn's, and the calibration error with one computed by hand."""

import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as reference

from metassl_tf.engine.metrics import CALIBRATION_BINS, calibration, confusion_matrix, evaluate_logits

CLASSES = 12


@pytest.fixture(params=range(3))
def predicted(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 [200, classes] that know something about the labels, and these."""
    random = np.random.default_rng(request.param)
    labels = random.integers(0, CLASSES, 200)
    logits = random.normal(size=(200, CLASSES)) + 2 * np.eye(CLASSES)[labels] * random.uniform(size=(200, 1))
    return logits.astype(np.float32), labels


def test_metrics_are_those_of_scikit_learn(predicted: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = predicted
    found = evaluate_logits(logits, labels)
    probabilities = softmax(logits.astype(np.float64), axis=1)
    guess, classes = logits.argmax(axis=1), np.arange(CLASSES)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, guess))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, guess))
    assert found["loss"] == pytest.approx(reference.log_loss(labels, probabilities, labels=classes))
    assert found["recall"] == pytest.approx(reference.recall_score(labels, guess, average=None))
    top_5 = reference.top_k_accuracy_score(labels, probabilities, k=5, labels=classes)
    assert found["top_5_accuracy"] == pytest.approx(top_5)
    assert 0 < found["accuracy"] < top_5 < 1
    np.testing.assert_array_equal(
        confusion_matrix(labels, guess, CLASSES), reference.confusion_matrix(labels, guess, labels=classes)
    )
    assert all(isinstance(value, (float, list)) for value in found.values())


def test_top_5_exists_from_ten_classes_up(predicted: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = predicted
    assert "top_5_accuracy" in evaluate_logits(logits[:, :10], labels % 10)
    assert "top_5_accuracy" not in evaluate_logits(logits[:, :9], labels % 9)


def test_unknown_labels_are_left_out(predicted: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = predicted
    hidden = np.where(np.arange(len(labels)) % 3, labels, -1)
    assert evaluate_logits(logits, hidden) == evaluate_logits(logits[hidden >= 0], labels[hidden >= 0])
    assert evaluate_logits(logits, hidden) != evaluate_logits(logits, labels)


def test_absent_class_has_no_recall_and_no_part_in_the_balance(predicted: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = predicted
    present = labels != 4
    found = evaluate_logits(logits[present], labels[present])
    assert found["recall"][4] is None
    assert [value for value in found["recall"] if value is None] == [None]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true", UserWarning)
        expected = reference.balanced_accuracy_score(labels[present], logits[present].argmax(axis=1))
    assert found["balanced_accuracy"] == pytest.approx(expected)
    assert found["accuracy"] != pytest.approx(found["balanced_accuracy"])


def test_huge_logits_have_a_finite_loss() -> None:
    logits = np.array([[1e30, 0.0], [1e4, 0.0]], np.float32)
    found = evaluate_logits(logits, np.array([0, 1]))
    assert found["loss"] == pytest.approx(5000)
    assert found["accuracy"] == 0.5


def test_calibration_error_by_hand() -> None:
    # Two of three right at 0.7, which is bin (10/15, 11/15]; one of two at 0.95, the last bin.
    probabilities = np.array([[0.7, 0.3], [0.3, 0.7], [0.7, 0.3], [0.95, 0.05], [0.05, 0.95]])
    labels = np.array([0, 1, 1, 0, 0])
    share, confidence, accuracy = calibration(labels, probabilities)
    assert share[[10, 14]] == pytest.approx([0.6, 0.4])
    assert confidence[[10, 14]] == pytest.approx([0.7, 0.95])
    assert accuracy[[10, 14]] == pytest.approx([2 / 3, 0.5])
    assert np.isnan(np.delete(confidence, [10, 14])).all()
    assert np.isnan(np.delete(accuracy, [10, 14])).all()
    expected = 0.6 * (0.7 - 2 / 3) + 0.4 * (0.95 - 0.5)
    assert evaluate_logits(np.log(probabilities), labels)["calibration_error"] == pytest.approx(expected)


@pytest.mark.parametrize(("confidence", "position"), [(1.0, 14), (14 / 15, 13), (0.5, 7), (1 / 15 + 1e-9, 1)])
def test_bins_of_confidence_include_their_upper_bound(confidence: float, position: int) -> None:
    classes = 20
    probabilities = np.full((1, classes), (1 - confidence) / (classes - 1))
    probabilities[0, 3] = confidence
    share, _, _ = calibration(np.array([3]), probabilities)
    assert share.shape == (CALIBRATION_BINS,)
    assert share.argmax() == position
    assert share.sum() == 1
