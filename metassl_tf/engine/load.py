"""The examples of a run: loaded, split, and made less reliable where the settings ask for it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from metassl_tf.algorithms.base import GIVEN_LABEL
from metassl_tf.config import Config
from metassl_tf.data.examples import Dataset, Examples, empty_like
from metassl_tf.data.pollution import pollute, separate_unknown_classes
from metassl_tf.data.sources import load_dataset, load_unlabeled
from metassl_tf.data.splits import Split, SplitExamples, make_split, split_examples
from metassl_tf.data.unreliable import GIVEN_LABELS, give_labels, with_given_labels
from metassl_tf.engine.predictor import from_saved, predict_examples
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
    """Loads the data of a run.

    Pollution and given labels come after the split, so that who is labeled does not depend on them.

    Args:
      config: of the run.

    Returns:
      The dataset, its split, and the examples.

    Raises:
      UserError: the data are missing or not as the settings expect them.
    """
    data, needs = config.data, config.needs
    dataset = load_dataset(
        data.dataset,
        settings=config.source,
        data_dir=data.data_dir,
        image_size=data.image_size,
        channels=data.channels,
        download=data.download,
        strict_data=data.strict_data,
        split_seed=data.split_seed,
    )
    if data.unlabeled_dataset and needs.unlabeled_views:
        dataset = load_unlabeled(
            data.unlabeled_dataset,
            dataset,
            data_dir=data.data_dir,
            download=data.download,
            strict_data=data.strict_data,
            split_seed=data.split_seed,
        )
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
    examples = split_examples(dataset, split)
    if GIVEN_LABEL in needs.unlabeled_columns:
        unlabeled, given_labels = examples.unlabeled, data.given_labels
        if given_labels not in GIVEN_LABELS:
            unlabeled, given_labels = _labeled_by_model(Path(given_labels), unlabeled, dataset.class_names), "source"
        unlabeled = give_labels(
            unlabeled,
            split,
            given_labels=given_labels,
            flip_labels=data.flip_labels,
            num_classes=dataset.num_classes,
            split_seed=data.split_seed,
        )
        examples = examples._replace(unlabeled=unlabeled)
    return Loaded(dataset, split, examples)


def _labeled_by_model(path: Path, unlabeled: Examples, class_names: tuple[str, ...]) -> Examples:
    """The examples with the predictions of a trained model as their given labels."""
    if not path.exists():
        raise UserError(
            f"--given_labels={path} is neither {' nor '.join(GIVEN_LABELS)}, and no such file or folder exists. "
            f"Expected one of: {', '.join(GIVEN_LABELS)}, or the workdir, export or .keras file of a model."
            f"{near_match(str(path), list(GIVEN_LABELS))}"
        )
    predictor = from_saved(path / "export" if (path / "export").is_dir() else path, flag="--given_labels")
    interface = predictor.interface
    if interface.shape != unlabeled.shape or set(interface.class_names) != set(class_names):
        raise UserError(
            f"--given_labels={path} is a model of examples {list(interface.shape)} and of the classes "
            f"{', '.join(interface.class_names)}; here they are {list(unlabeled.shape)} and {', '.join(class_names)}. "
            "Expected a model of the same: train it with the same --dataset and --image_size."
        )
    logits = predict_examples(predictor, unlabeled, batch_size=_BATCH_SIZE)["model"]
    positions = np.array([class_names.index(name) for name in interface.class_names])
    return with_given_labels(unlabeled, positions[logits.argmax(axis=1)])
