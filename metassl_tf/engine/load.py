"""The examples of a run: loaded, split, and made less reliable where the settings ask for it."""

from typing import NamedTuple

from metassl_tf.algorithms.base import GIVEN_LABEL
from metassl_tf.config import Config
from metassl_tf.data.examples import Dataset, empty_like
from metassl_tf.data.pollution import pollute, separate_unknown_classes
from metassl_tf.data.sources import load_dataset, load_unlabeled
from metassl_tf.data.splits import Split, SplitExamples, make_split, split_examples
from metassl_tf.data.unreliable import give_labels

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
    data, needs = config.data, config.algorithm.needs()
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
        unlabeled = give_labels(
            examples.unlabeled,
            split,
            given_labels=data.given_labels,
            flip_labels=data.flip_labels,
            num_classes=dataset.num_classes,
            split_seed=data.split_seed,
        )
        examples = examples._replace(unlabeled=unlabeled)
    return Loaded(dataset, split, examples)
