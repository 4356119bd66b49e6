"""Unlabeled examples that do not belong: what a pool that nobody looked through is made of, in a known share.

Three kinds: examples of classes that the model is not to know (as in Oliver et al., arXiv:1804.09170: to learn
CIFAR-10's animals beside its vehicles, give `--unknown_classes=airplane,automobile,ship,truck`), images of noise, and
images whose pixels are shuffled. The column `polluted` says which they are, for measuring only.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from metassl_tf.data.examples import Dataset, Examples, concatenate, empty_like
from metassl_tf.data.overlap import occurs_in
from metassl_tf.data.seeds import random_state
from metassl_tf.data.splits import Split, split_examples
from metassl_tf.errors import UserError, near_match

# The column that tells which unlabeled examples do not belong: 1, else 0.
POLLUTED = "polluted"
POLLUTIONS = ("unknown_classes", "noise", "shuffled_pixels")


def separate_unknown_classes(dataset: Dataset, unknown: Sequence[str]) -> tuple[Dataset, Examples]:
    """Removes classes from a dataset.

    Args:
      dataset: as loaded.
      unknown: names of classes, or their numbers where no class is named so.

    Returns:
      The dataset of the remaining classes, numbered anew in their order, with examples of unknown label kept; and the
      training and unlabeled examples of the removed ones, each once, whose labels are now -1. Of an unlabeled pool that
      is streamed beside training examples in memory, or the other way round, it is those of the pool alone.

    Raises:
      UserError: there is no such class, or fewer than two remain.
    """
    removed = {_class_number(name, dataset.class_names) for name in unknown}
    kept = [number for number in range(dataset.num_classes) if number not in removed]
    if len(kept) < 2:
        raise UserError(
            f"--unknown_classes={','.join(unknown)} leaves {len(kept)} of the {dataset.num_classes} classes. Expected "
            "at least two to tell apart: name fewer."
        )
    mapping = np.full(dataset.num_classes, -1)
    mapping[kept] = np.arange(len(kept))

    def members(examples: Examples, *, of_removed: bool) -> Examples:
        chosen = np.isin(examples.labels, list(removed)) == of_removed
        return examples.take(np.flatnonzero(chosen)).relabeled(mapping)

    pool, validation = dataset.unlabeled, dataset.validation
    strangers = members(dataset.train, of_removed=True)
    if pool is not None:
        others = members(pool, of_removed=True)
        if others.streamed == strangers.streamed:
            strangers = concatenate([strangers, others.take(np.flatnonzero(~occurs_in(others, [strangers])))])
        else:
            strangers = others
    known = dataclasses.replace(
        dataset,
        train=members(dataset.train, of_removed=False),
        test=members(dataset.test, of_removed=False),
        class_names=tuple(dataset.class_names[number] for number in kept),
        unlabeled=None if pool is None else members(pool, of_removed=False),
        validation=None if validation is None else members(validation, of_removed=False),
    )
    return known, strangers


def _class_number(name: str, class_names: Sequence[str]) -> int:
    if name in class_names:
        return class_names.index(name)
    if name.isdecimal() and int(name) < len(class_names):
        return int(name)
    raise UserError(
        f"--unknown_classes={name} is no class. Expected names, or numbers from 0 to {len(class_names) - 1}, of: "
        f"{', '.join(class_names)}.{near_match(name, list(class_names))}"
    )


def pollute(
    dataset: Dataset, split: Split, strangers: Examples, *, share: float, pollution: str, split_seed: int
) -> tuple[Dataset, Split]:
    """Adds examples that do not belong to the unlabeled ones. The others stay as they are, in their places.

    Args:
      dataset: the dataset that the split was made from.
      split: the clean split.
      strangers: examples of unknown classes, for that kind of pollution.
      share: what share of the unlabeled examples the added ones are to be, in (0, 1).
      pollution: one of `POLLUTIONS`.
      split_seed: of what is drawn.

    Returns:
      The dataset with the added examples at the end of its unlabeled pool and the column `polluted` in both, and the
      split with their positions at the end of `unlabeled`.

    Raises:
      UserError: too few strangers, or a kind of pollution that these examples do not allow.
    """
    num_clean = len(split.unlabeled)
    count = round(share * num_clean / (1.0 - share))
    random = random_state(split_seed, f"pollution {pollution}")
    if pollution == "unknown_classes":
        _check_strangers(len(strangers), count, num_clean, share)
        added = strangers.take(np.sort(random.permutation(len(strangers))[:count]))
    else:
        added = _images(dataset, split, count, pollution, random)
    pool = empty_like(added) if dataset.unlabeled is None else dataset.unlabeled
    polluted = dataclasses.replace(
        dataset,
        train=_marked(dataset.train, 0),
        unlabeled=concatenate([_marked(pool, 0), _marked(added, 1)]),
    )
    places = len(dataset.train) + len(pool) + np.arange(len(added))
    return polluted, dataclasses.replace(split, unlabeled=np.concatenate([split.unlabeled, places]))


def _marked(examples: Examples, value: int) -> Examples:
    return examples.with_columns({POLLUTED: np.full(len(examples), value)})


def _check_strangers(available: int, count: int, num_clean: int, share: float) -> None:
    if not available:
        raise UserError(
            f"--pollute_unlabeled={share:g} takes examples of classes that are not to be known, and there are none. "
            "Expected classes of the training examples in --unknown_classes, or --pollution=noise or shuffled_pixels."
        )
    if count > available:
        largest = math.floor(1e4 * available / (num_clean + available)) / 1e4
        raise UserError(
            f"--pollute_unlabeled={share:g} asks for {count:,} examples of unknown classes beside the {num_clean:,} "
            f"others, and there are {available:,}. Expected a share of at most {largest:g}: lower it, or name more "
            "--unknown_classes."
        )


def _images(dataset: Dataset, split: Split, count: int, pollution: str, random: np.random.RandomState) -> Examples:
    """Images of noise, or unlabeled ones with shuffled pixels, whose truth is unknown."""
    clean = split_examples(dataset, split).unlabeled
    if dataset.modality != "image":
        raise UserError(
            f"--pollution={pollution} makes images, and --dataset holds points. Expected --pollution=unknown_classes."
        )
    if clean.streamed:
        raise UserError(
            f"--pollution={pollution} makes images in memory, and the unlabeled ones are streamed from files. Raise "
            "--memory_limit, lower --image_size, or use --pollution=unknown_classes."
        )
    if pollution == "noise":
        pixels = random.randint(0, 256, (count, *clean.shape), np.uint8)
    else:
        chosen = np.resize(random.permutation(len(clean)), count)
        pixels = clean.inputs[chosen]  # a copy
        height, width, channels = clean.shape
        for image in pixels.reshape(count, height * width, channels):  # a pixel keeps its channels
            image[:] = image[random.permutation(len(image))]
    return Examples(pixels, np.full(count, -1), clean.shape)
