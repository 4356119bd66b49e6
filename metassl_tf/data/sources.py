"""The table of data sources, and how `--dataset` and `--unlabeled_dataset` are read.

A value is FAMILY or FAMILY:ARGUMENT. A new family is one file and one line in `SOURCES`: what is asked of it here
stands in its class. A new dataset is no file at all when TensorFlow Datasets has it, or when it is a folder of images
or an .npz file.
"""

import dataclasses
import os
from typing import Any

import numpy as np

from metassl_tf.data.digits import Digits
from metassl_tf.data.examples import MEMORY_LIMIT, Dataset, Examples, LoadRequest, Source, empty_like
from metassl_tf.data.image_folder import ImageFolder
from metassl_tf.data.npz import Npz, digest_of
from metassl_tf.data.tfds_source import TfdsSource
from metassl_tf.data.toy import Circles, Linear, TwoMoons
from metassl_tf.errors import UserError, near_match
from metassl_tf.settings import check_settings

SOURCES: dict[str, type[Any]] = {
    "digits": Digits,
    "two_moons": TwoMoons,
    "circles": Circles,
    "linear": Linear,
    "tfds": TfdsSource,
    "image_folder": ImageFolder,
    "npz": Npz,
}

# Names that stand for a longer value; a split may follow: svhn_cropped:train+extra.
SHORT_NAMES = {name: f"tfds:{name}" for name in ("cifar10", "cifar100", "svhn_cropped")}

LABELED = "labeled"
"""The value of `--unlabeled_dataset` for labeled examples alone."""

# What one flag of reading has no effect on.
_UNHEEDED = {
    "data_dir": "which does not look there",
    "download": "which needs no network",
    "strict_data": "which is not made of files of images",
}


def parse_dataset(value: str, flag: str = "--dataset") -> tuple[str, str]:
    """Reads the value of a dataset flag.

    Args:
      value: `digits`, `cifar10`, `tfds:NAME:SPLIT`, `image_folder:DIR` and so on.
      flag: the flag it comes from, for the message.

    Returns:
      (family, argument): a key of `SOURCES` and the text after its colon.

    Raises:
      UserError: no such family, or an argument for one that takes none.
    """
    name, colon, rest = value.partition(":")
    name, colon, rest = (SHORT_NAMES.get(name, name) + colon + rest).partition(":")
    known = [*SOURCES, *SHORT_NAMES]
    if name not in SOURCES:
        raise UserError(
            f"{flag}={value} is not known. Expected one of: {', '.join(known)}.{near_match(name, known)} Any image "
            f"dataset of TensorFlow Datasets is tfds:{name or 'NAME'}, and a folder of images is image_folder."
        )
    if rest and not SOURCES[name].argument:
        raise UserError(f"{flag}={value}: {name} takes nothing after a colon. Expected {flag}={name}.")
    return name, rest


def check_reading(
    dataset: str, unlabeled_dataset: str = "", *, data_dir: str = "", download: bool = False, strict_data: bool = False
) -> None:
    """Refuses what no source heeds: a folder that none of them reads would be one that a run does not learn from.

    Args:
      dataset: the value of `--dataset`.
      unlabeled_dataset: the value of `--unlabeled_dataset`.
      data_dir: the value of `--data_dir`.
      download: the value of `--download`.
      strict_data: the value of `--strict_data`.

    Raises:
      UserError: a source is not known, or one of the others is given and has no effect.
    """
    heeded = heeded_flags(dataset, unlabeled_dataset)
    for name, value in {"data_dir": data_dir, "download": download, "strict_data": strict_data}.items():
        if value and name not in heeded:
            given = f"--{name}" if value is True else f"--{name}={value}"
            raise UserError(
                f"{given} has no effect on --dataset={dataset}, {_UNHEEDED[name]}. Expected it to be left out, or "
                f"--dataset={' or '.join(_heeding(name))}."
            )


def heeded_flags(dataset: str, unlabeled_dataset: str = "") -> set[str]:
    """Returns which of the flags of reading have an effect on the sources; see `examples.Source.heeds`.

    Args:
      dataset: the value of `--dataset`.
      unlabeled_dataset: the value of `--unlabeled_dataset`.

    Raises:
      UserError: a source is not known.
    """
    family, argument = parse_dataset(dataset)
    heeded = set(SOURCES[family].heeds)
    if SOURCES[family].argument and not argument:
        heeded.add("data_dir")  # stands in the argument's place
    if unlabeled_dataset not in ("", LABELED):
        heeded |= SOURCES[parse_dataset(unlabeled_dataset, "--unlabeled_dataset")[0]].heeds
    return heeded


def _heeding(flag: str) -> list[str]:
    """The values of `--dataset` on which a flag of reading has an effect, as a user is told."""
    beside = [f"{family}:{source.argument}" for family, source in SOURCES.items() if flag in source.heeds]
    instead = [family for family, source in SOURCES.items() if source.argument and flag not in source.heeds]
    return [*beside, *instead] if flag == "data_dir" else beside


def _source(family: str, settings: Source | None) -> Source:
    if settings is None:
        settings = SOURCES[family]()
    if not isinstance(settings, SOURCES[family]):
        raise TypeError(f"The settings of {family} are {SOURCES[family].__name__}, not {type(settings).__name__}.")
    check_settings(settings)
    return settings


def load_dataset(
    name: str,
    *,
    data_dir: str = "",
    image_size: int = 0,
    channels: int = 0,
    download: bool = False,
    strict_data: bool = False,
    memory_limit: float = MEMORY_LIMIT,
    split_seed: int = 0,
    settings: Source | None = None,
) -> Dataset:
    """Loads the dataset that `--dataset` names.

    Args:
      name: the value of `--dataset`.
      data_dir: folder of images, .npz file, or folder of prepared TFDS datasets.
      image_size: side of the images in pixels; 0 leaves it to the source.
      channels: 1 or 3 forces grey or color; 0 leaves it to the source.
      download: let TFDS download a missing dataset.
      strict_data: an unreadable image is an error instead of being skipped.
      memory_limit: most memory that decoded images may take, in GiB.
      split_seed: seed of what is drawn while loading (the test set of digits).
      settings: an instance of `SOURCES[family]`; None takes its defaults.

    Returns:
      The dataset, with at least two classes and one training example.

    Raises:
      UserError: the name is not known, or the data are missing or not as expected.
    """
    family, argument = parse_dataset(name)
    if channels not in (0, 1, 3):
        raise UserError(f"--channels={channels} is not possible. Expected 1 (grey), 3 (color) or 0 (as stored).")
    request = LoadRequest(
        argument=os.path.expanduser(argument),
        data_dir=os.path.expanduser(data_dir),
        image_size=image_size,
        channels=channels,
        download=download,
        strict_data=strict_data,
        memory_limit=memory_limit,
        split_seed=split_seed,
    )
    dataset = _source(family, settings).load(request)
    if dataset.num_classes < 2 or not len(dataset.train):
        raise UserError(
            f"--dataset={name} has {len(dataset.train)} training examples of {dataset.num_classes} classes. Expected "
            "at least two classes: there is nothing to tell apart."
        )
    return dataset


def load_unlabeled(
    spec: str,
    dataset: Dataset,
    *,
    data_dir: str = "",
    download: bool = False,
    strict_data: bool = False,
    memory_limit: float = MEMORY_LIMIT,
    split_seed: int = 0,
) -> Dataset:
    """Gives a dataset the unlabeled pool that `--unlabeled_dataset` names, in place of its own.

    Args:
      spec: any source or split: `tfds:svhn_cropped:extra`, `image_folder:DIR`, `npz:FILE`, `cifar100`; or `labeled` for
        a pool without examples, to which a split adds the labeled ones.
      dataset: the dataset that is trained on; images are resized and recolored to its shape.
      data_dir: folder of prepared TFDS datasets.
      download: let TFDS download a missing dataset.
      strict_data: an unreadable image is an error instead of being skipped.
      memory_limit: most memory that its decoded images may take, in GiB.
      split_seed: as for `load_dataset`.

    Returns:
      The dataset with `unlabeled` replaced. Its labels serve for measuring only: they are matched by class name,
      and all -1 unless both have the same classes.

    Raises:
      UserError: the name is not known, the data are missing, or they are images for points.
    """
    if spec == LABELED:
        return dataclasses.replace(dataset, name=f"{dataset.name} + {spec}", unlabeled=empty_like(dataset.train))
    family, argument = parse_dataset(spec, "--unlabeled_dataset")
    source = SOURCES[family]()
    request = LoadRequest(
        argument=os.path.expanduser(argument),
        data_dir=os.path.expanduser(data_dir) if "data_dir" in source.heeds else "",
        download=download,
        strict_data=strict_data,
        memory_limit=memory_limit,
        split_seed=split_seed,
    )
    pool, class_names = source.load_pool(request, dataset.train.shape)
    known = {"family": family, "text": spec}
    own_name = known.get(source.pool_identity) or f"{family} {digest_of(pool.inputs)}"
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name} + {own_name}",
        unlabeled=_matched_labels(pool, class_names, dataset.class_names),
    )


def _matched_labels(pool: Examples, own: tuple[str, ...], wanted: tuple[str, ...]) -> Examples:
    """Renumbers the labels to `wanted`, or makes them unknown when the classes differ."""
    positions = [wanted.index(name) if set(own) == set(wanted) else -1 for name in own]
    return pool.relabeled(np.array(positions, np.int64))
