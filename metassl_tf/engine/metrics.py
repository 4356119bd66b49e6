"""Numbers that say how good predictions are, from the logits of a whole set. NumPy, float64, no state."""

from typing import Any

import numpy as np
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix as count_confusions

CALIBRATION_BINS = 15


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts examples by true class (rows) and predicted class (columns), int64 [classes, classes]."""
    return count_confusions(labels, predictions, labels=np.arange(num_classes))


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reliability diagram over equal bins of confidence (Guo et al., arXiv:1706.04599).

    Args:
      labels: int [examples].
      probabilities: [examples, classes].

    Returns:
      Three [bins] arrays: share of examples, mean confidence, accuracy; the last two are NaN in empty bins.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bins, weights=confidence, minlength=CALIBRATION_BINS) / counts
        accuracy = np.bincount(bins, weights=right, minlength=CALIBRATION_BINS) / counts
    return counts / len(labels), mean_confidence, accuracy


def evaluate_logits(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Computes every metric of a set.

    Args:
      logits: [examples, classes].
      labels: int [examples]; examples with -1 have no known class and are left out.

    Returns:
      `accuracy`, `balanced_accuracy` (mean recall over the classes present), `loss` (mean cross-entropy in nats),
      `calibration_error` (expected calibration error), `recall` (one per class, None where the class is absent),
      and `top_5_accuracy` from ten classes up.
    """
    known = labels >= 0
    logits, labels = logits[known].astype(np.float64), labels[known]
    num_classes = logits.shape[1]
    log_probabilities = log_softmax(logits, axis=1)
    probabilities = np.exp(log_probabilities)
    confusion = confusion_matrix(labels, logits.argmax(axis=1), num_classes)
    present = confusion.sum(axis=1)
    recall = [float(confusion[k, k] / present[k]) if present[k] else None for k in range(num_classes)]
    share, confidence, accuracy = calibration(labels, probabilities)
    metrics: dict[str, Any] = {
        "accuracy": float(np.trace(confusion) / len(labels)),
        "balanced_accuracy": float(np.mean([value for value in recall if value is not None])),
        "loss": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "calibration_error": float(np.nansum(share * np.abs(confidence - accuracy))),
        "recall": recall,
    }
    if num_classes >= 10:
        rank = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(axis=1)
        metrics["top_5_accuracy"] = float((rank < 5).mean())
    return metrics
