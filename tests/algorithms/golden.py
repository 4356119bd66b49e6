"""Every algorithm once more, in NumPy and float64, example by example as the paper writes it.

A golden function returns the labeled and the unlabeled part of the loss of one batch, before the unlabeled weight.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from metassl_tf.algorithms.batch import Batch

Network = Callable[[np.ndarray], np.ndarray]
Golden = Callable[[Any, Network, Batch, float], tuple[float, float]]


def _probabilities(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _array(tensor: Any) -> np.ndarray:
    return tensor.numpy().astype(np.float64)


def _labeled_loss(network: Network, batch: Batch, *, view: str = "weak", smoothing: float = 0.0) -> float:
    """FixMatch, Eq. 3: the mean of -log p(y | x), with smoothed labels (Szegedy et al., 2016)."""
    probabilities = _probabilities(network(_array(batch.labeled.views[view])))
    labels = batch.labeled.label.numpy()
    values = [
        -(1 - smoothing) * math.log(row[label]) - smoothing * np.log(row).mean()
        for row, label in zip(probabilities, labels, strict=True)
    ]
    return float(np.mean(values))


def supervised(settings: Any, network: Network, batch: Batch, progress: float) -> tuple[float, float]:
    """Cross-entropy with smoothed labels (Szegedy et al., 2016) of examples mixed in pairs (arXiv:1710.09412)."""
    del progress
    inputs = _array(batch.labeled.views[settings.labeled_view])
    classes = network(inputs).shape[1]
    targets = np.full((len(inputs), classes), settings.label_smoothing / classes)
    for target, label in zip(targets, batch.labeled.label.numpy(), strict=True):
        target[label] += 1 - settings.label_smoothing
    mixed_inputs, mixed_targets = inputs.copy(), targets.copy()
    if settings.mixup:
        for example, draw in enumerate(_array(batch.draws["mixup"])):
            partner = example + 1 if example % 2 == 0 else example - 1
            own = max(draw, 1 - draw)
            mixed_inputs[example] = own * inputs[example] + (1 - own) * inputs[partner]
            mixed_targets[example] = own * targets[example] + (1 - own) * targets[partner]
    log_probabilities = np.log(_probabilities(network(mixed_inputs)))
    return float(-(mixed_targets * log_probabilities).sum() / len(inputs)), 0.0


def pseudo_label(settings: Any, network: Network, batch: Batch, progress: float) -> tuple[float, float]:
    """Lee (2013), Eq. 15, with a threshold on the largest probability."""
    del progress
    total = 0.0
    probabilities = _probabilities(network(_array(batch.unlabeled.views["weak"])))
    for row in probabilities:
        if row.max() > settings.threshold:
            total += -math.log(row[row.argmax()])
    return _labeled_loss(network, batch, smoothing=settings.label_smoothing), total / len(probabilities)


def fixmatch(settings: Any, network: Network, batch: Batch, progress: float) -> tuple[float, float]:
    """arXiv:2001.07685, Eq. 3 and 4."""
    del progress
    total = 0.0
    weak = _probabilities(network(_array(batch.unlabeled.views["weak"])))
    strong = _probabilities(network(_array(batch.unlabeled.views["strong"])))
    for weak_row, strong_row in zip(weak, strong, strict=True):
        if weak_row.max() >= settings.threshold:
            total += -math.log(strong_row[weak_row.argmax()])
    return _labeled_loss(network, batch), total / len(weak)


def given_labels(settings: Any, network: Network, batch: Batch, progress: float) -> tuple[float, float]:
    """-log p(given label) of the strong view, summed over those that have one, divided by all."""
    del settings, progress
    total = 0.0
    strong = _probabilities(network(_array(batch.unlabeled.views["strong"])))
    given = batch.unlabeled.columns["given_label"].numpy()
    for row, label in zip(strong, given, strict=True):
        if label >= 0:
            total += -math.log(row[label])
    return _labeled_loss(network, batch), total / len(given)


def noisy_student(settings: Any, network: Network, batch: Batch, progress: float) -> tuple[float, float]:
    """arXiv:1911.04252, Algorithm 1, step 4: cross-entropy with labels and with a teacher's distributions."""
    del progress
    supervised = _labeled_loss(network, batch, view="strong", smoothing=settings.label_smoothing)
    strong = _probabilities(network(_array(batch.unlabeled.views["strong"])))
    total = 0.0
    for row, target in zip(strong, _array(batch.unlabeled.columns["teacher_label"]), strict=True):
        total += sum(-q * math.log(p) for q, p in zip(target, row, strict=True))
    return supervised, total / len(strong)


def uda(settings: Any, network: Network, batch: Batch, progress: float) -> tuple[float, float]:
    """arXiv:1904.12848, Eq. 1 with the sharpening, masking and training-signal annealing of section 3.2."""
    logits = network(_array(batch.unlabeled.views["weak"]))
    raw, tempered = _probabilities(logits), _probabilities(logits / settings.temperature)
    strong = _probabilities(network(_array(batch.unlabeled.views["strong"])))
    total = 0.0
    for raw_row, target, prediction in zip(raw, tempered, strong, strict=True):
        confidence = {"raw": raw_row, "tempered": target}[settings.confidence].max()
        if confidence > settings.threshold:
            total += sum(q * math.log(q / p) for q, p in zip(target, prediction, strict=True))
    return _annealed_loss(settings, network, batch, progress), total / len(raw)


def _annealed_loss(settings: Any, network: Network, batch: Batch, progress: float) -> float:
    """UDA's labeled loss: labels that are predicted better than eta_t are left out, and the rest is averaged."""
    probabilities = _probabilities(network(_array(batch.labeled.views["weak"])))
    smoothing, classes = settings.label_smoothing, probabilities.shape[1]
    losses = [
        -(1 - smoothing) * math.log(row[label]) - smoothing / classes * np.log(row).sum()
        for row, label in zip(probabilities, batch.labeled.label.numpy(), strict=True)
    ]
    if settings.annealing == "none":
        return sum(losses) / len(losses)
    growth = {
        "linear": progress,
        "log": 1 - math.exp(-5 * progress),
        "exp": math.exp(5 * (progress - 1)),
    }[settings.annealing]
    threshold = growth * (1 - 1 / classes) + 1 / classes
    right = [row[label] for row, label in zip(probabilities, batch.labeled.label.numpy(), strict=True)]
    kept = [loss for loss, probability in zip(losses, right, strict=True) if probability <= threshold]
    return sum(kept) / max(len(kept), 1)
