"""Stored labels without a teacher: distributions that are often right, for the examples of any config."""

from pathlib import Path

import numpy as np

from metassl_tf.config import Config
from metassl_tf.engine.load import load_split_examples
from metassl_tf.engine.stored_labels import Contents, LabelStore


def contents_of(config: Config, *, teacher: str = "a teacher") -> Contents:
    """What the folder of a config's labels says of itself."""
    dataset, split, parts = load_split_examples(config)
    return Contents(
        split=split.hash,
        parameters=split.parameters,
        teacher=teacher,
        class_names=dataset.class_names,
        num_labeled=len(parts.labeled),
        num_unlabeled=len(parts.unlabeled),
    )


def store_labels(config: Config, *, share_right: float = 0.7) -> np.ndarray:
    """Fills the config's `--stored_labels`; returns the distributions, labeled examples first."""
    dataset, _, parts = load_split_examples(config)
    generator = np.random.default_rng(0)
    truth = np.concatenate([parts.labeled.labels, parts.unlabeled.labels])
    said = np.where(generator.random(len(truth)) < share_right, truth, (truth + 1) % dataset.num_classes)
    distributions = (
        generator.dirichlet(np.ones(dataset.num_classes), len(truth)) + 2 * np.eye(dataset.num_classes)[said]
    )
    distributions = (distributions / 3).astype(np.float32)
    store = LabelStore(Path(config.data.stored_labels))
    contents = contents_of(config)
    for part in store.begin(contents):
        store.write(part, distributions[contents.places(part)])
    store.finish()
    return distributions
