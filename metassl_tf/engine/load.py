"""The examples of a run: loaded, split, and made less reliable where the settings ask for it."""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metassl_tf.algorithms.batch import GIVEN_LABEL, TEACHER_LABEL
from metassl_tf.config import Config, DataSettings
from metassl_tf.data.examples import Dataset, Examples, empty_like
from metassl_tf.data.pollution import pollute, separate_unknown_classes
from metassl_tf.data.selection import most_confident
from metassl_tf.data.sources import check_reading, load_dataset, load_unlabeled
from metassl_tf.data.splits import Split, SplitExamples, make_split, split_examples
from metassl_tf.data.unreliable import GIVEN_LABELS, give_labels, with_given_labels
from metassl_tf.engine.predictor import of_task, predict_examples
from metassl_tf.engine.stored_labels import LabelStore
from metassl_tf.errors import UserError, near_match

_BATCH_SIZE = 256  # of a model that labels; it does not change what it says

# Settings that change the examples, beside those that choose among them: part of a split's parameters.
_CHANGES = ("unknown_classes", "pollute_unlabeled", "pollution", "given_labels", "flip_labels")


class Loaded(NamedTuple):
    """What a run learns from and is measured on.

    Attributes:
      dataset: what the source gave, without unknown classes and with what pollutes it.
      split: who is labeled, unlabeled, validation and test.
      examples: those of each part of the split.
    """

    dataset: Dataset
    split: Split
    examples: SplitExamples


def load_examples(config: Config) -> Loaded:
    """Loads the data of a run, with the labels that others gave to the unlabeled ones where the run needs them.

    Args:
      config: of the run.

    Returns:
      The dataset, its split, and the examples.

    Raises:
      UserError: the data are missing or not as the settings expect them.
    """
    loaded, columns = load_split_examples(config), config.needs.unlabeled_columns
    if GIVEN_LABEL in columns:
        loaded = _with_given_labels(loaded, config)
    if TEACHER_LABEL in columns:
        loaded = _with_stored_labels(loaded, config)
    return loaded


def load_split_examples(config: Config) -> Loaded:
    """Loads the data of a run with nothing but what their source says of them.

    Pollution and labels that others gave come after the split, so that who is labeled does not depend on them.

    Args, returns and raises as `load_examples`.
    """
    data = config.data
    dataset = _load_dataset(config)
    strangers = empty_like(dataset.train)
    if data.unknown_classes:
        dataset, strangers = separate_unknown_classes(dataset, data.unknown_classes)
    split = make_split(
        dataset,
        num_labeled=data.num_labeled,
        num_validation=data.num_validation,
        num_meta_validation=data.num_meta_validation,
        split_seed=data.split_seed,
        protocol=data.split_protocol,
        labeled_in_unlabeled=data.labeled_in_unlabeled,
        changes={name: getattr(data, name) for name in _CHANGES},
    )
    if data.pollute_unlabeled:
        dataset, split = pollute(
            dataset,
            split,
            strangers,
            share=data.pollute_unlabeled,
            pollution=data.pollution,
            split_seed=data.split_seed,
        )
    return Loaded(dataset, split, split_examples(dataset, split))


def check_sources(data: DataSettings) -> None:
    """Refuses settings of reading that the chosen sources do not heed; see `check_reading`."""
    check_reading(
        data.dataset,
        data.unlabeled_dataset,
        data_dir=data.data_dir,
        download=data.download,
        strict_data=data.strict_data,
    )


def _load_dataset(config: Config) -> Dataset:
    """What the sources give, with a pool of unlabeled examples of its own where the settings name one."""
    data = config.data
    check_sources(data)
    dataset = load_dataset(
        data.dataset,
        settings=config.source,
        data_dir=data.data_dir,
        image_size=data.image_size,
        channels=data.channels,
        download=data.download,
        strict_data=data.strict_data,
        memory_limit=data.memory_limit,
        split_seed=data.split_seed,
    )
    if data.unlabeled_dataset and config.needs.unlabeled_views:
        dataset = load_unlabeled(
            data.unlabeled_dataset,
            dataset,
            data_dir=data.data_dir,
            download=data.download,
            strict_data=data.strict_data,
            memory_limit=data.memory_limit,
            split_seed=data.split_seed,
        )
    return dataset


def _with_given_labels(loaded: Loaded, config: Config) -> Loaded:
    data, dataset = config.data, loaded.dataset
    unlabeled, given_labels = loaded.examples.unlabeled, data.given_labels
    if given_labels not in GIVEN_LABELS:
        unlabeled, given_labels = _labeled_by_model(Path(given_labels), unlabeled, dataset.class_names), "source"
    unlabeled = give_labels(
        unlabeled,
        loaded.split,
        given_labels=given_labels,
        flip_labels=data.flip_labels,
        num_classes=dataset.num_classes,
        split_seed=data.split_seed,
    )
    return loaded._replace(examples=loaded.examples._replace(unlabeled=unlabeled))


def _with_stored_labels(loaded: Loaded, config: Config) -> Loaded:
    """The examples with a teacher's distributions, and of the unlabeled ones those that the settings choose by them."""
    data, (dataset, split, examples) = config.data, loaded
    if not data.stored_labels:
        raise UserError(
            f"--algorithm={config.train.algorithm} learns from the labels that a teacher has stored, and there are "
            "none. Expected --stored_labels=DIR, the folder that python -m metassl_tf.label fills."
        )
    stored = LabelStore(Path(data.stored_labels)).read(split, dataset.class_names)
    kept = most_confident(stored.unlabeled, per_class=data.most_confident_per_class, balance=data.balance_classes)
    parameters = {**json.loads(split.parameters), "stored_labels": stored.digest}
    split = dataclasses.replace(
        split, unlabeled=split.unlabeled[kept], parameters=json.dumps(parameters, sort_keys=True)
    )
    examples = examples._replace(
        labeled=examples.labeled.with_columns({TEACHER_LABEL: stored.labeled}),
        unlabeled=examples.unlabeled.take(kept).with_columns({TEACHER_LABEL: stored.unlabeled[kept]}),
    )
    return Loaded(dataset, split, examples)


def _labeled_by_model(path: Path, unlabeled: Examples, class_names: tuple[str, ...]) -> Examples:
    """The examples with the predictions of a trained model as their given labels."""
    if not path.exists():
        raise UserError(
            f"--given_labels={path} is neither {' nor '.join(GIVEN_LABELS)}, and no such file or folder exists. "
            f"Expected one of: {', '.join(GIVEN_LABELS)}, or the workdir, export or .keras file of a model."
            f"{near_match(str(path), list(GIVEN_LABELS))}"
        )
    predictor = of_task(path, flag="--given_labels", shape=unlabeled.shape, class_names=class_names)
    logits = predict_examples(predictor, unlabeled, batch_size=_BATCH_SIZE)[predictor.exported]
    positions = np.array([class_names.index(name) for name in predictor.interface.class_names])
    return with_given_labels(unlabeled, positions[logits.argmax(axis=1)])
