"""A dataset of points that can be told apart, for tests of splits and of what is done to them."""

from typing import Any

import numpy as np

from metassl_tf.data.examples import Dataset, Examples

NAMES = ("a", "b", "c")
PARTS = ("labeled", "validation", "meta_validation", "unlabeled", "test")


def examples(count: int, start: int = 0, unknown: int = 0) -> Examples:
    """Points whose first coordinate tells them apart; the last `unknown` have no label."""
    inputs = np.arange(start, start + count, dtype=np.float32)[:, np.newaxis] * np.ones((1, 2), np.float32)
    labels = np.random.RandomState(start).randint(0, 3, count)
    labels[count - unknown :] = -1
    return Examples(inputs, labels, (2,))


def dataset(num_train: int = 90, pool: int = 0, validation: int = 0, **changes: Any) -> Dataset:
    return Dataset(
        name="numbers",
        train=examples(num_train, unknown=changes.pop("unknown", 0)),
        test=examples(20, start=100_000),
        class_names=NAMES,
        unlabeled=examples(pool, start=200_000) if pool else None,
        validation=examples(validation, start=300_000) if validation else None,
        modality="points",
        **changes,
    )


def values(part: Examples) -> set[float]:
    return set(part.inputs[:, 0].tolist())
