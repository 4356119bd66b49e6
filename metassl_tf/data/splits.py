"""Splits: who is labeled, who validates, who is unlabeled, who is tested.

The labeled examples are chosen first and depend on (dataset, split seed, count, protocol) alone; validation
examples come out of the rest, then those of a second validation set, and the unlabeled ones are what remains, with the
labeled ones among them by default (as in FixMatch, arXiv:2001.07685, and UDA, arXiv:1904.12848). Labeled, both sets of
validation and test examples are disjoint, and so are unlabeled, both sets of validation and test examples.
"""

import dataclasses
import hashlib
import json
import logging
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import numpy as np

from metassl_tf.algorithms.batch import GIVEN_LABEL
from metassl_tf.data.examples import Dataset, Examples, concatenate
from metassl_tf.data.overlap import occurs_in
from metassl_tf.data.protocols import PROTOCOLS, Choice, Indices, ranks_in_class
from metassl_tf.errors import UserError, near_match

_logger = logging.getLogger(__name__)

_PARTS = ("labeled", "validation", "meta_validation", "unlabeled", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Positions of the examples of each part. Two splits are the same exactly when their hashes are.

    Attributes:
      labeled: int64 [L], positions in `dataset.train`.
      validation: int64 [V], positions in `dataset.validation` where that exists, else in `dataset.train`.
      meta_validation: int64 [M], positions of the second validation set in the same list as those of the first.
      unlabeled: int64 [U], ascending; one that occurs twice is seen twice as often. A position below len(dataset.train)
        is one in `dataset.train`; any other, less len(dataset.train), is one in `dataset.unlabeled`. An example's
        `index` in a batch is its place in this array.
      test: int64 [T], positions in `dataset.test`.
      parameters: JSON of all that the split was made from: the dataset and its fingerprint, seed, counts, protocol, and
        what else was changed about the examples.
    """

    labeled: Indices
    validation: Indices
    meta_validation: Indices
    unlabeled: Indices
    test: Indices
    parameters: str

    @property
    def hash(self) -> str:
        """sha256, in hexadecimal digits, of the parameters and of every position."""
        digest = hashlib.sha256(self.parameters.encode())
        for part in _PARTS:
            positions = np.ascontiguousarray(getattr(self, part), "<i8")
            digest.update(f"{part} {len(positions)} ".encode())
            digest.update(positions.tobytes())
        return digest.hexdigest()


class SplitExamples(NamedTuple):
    """The examples of each part, in the order of the split. The labels of `unlabeled` are for measuring only."""

    labeled: Examples
    validation: Examples
    meta_validation: Examples
    unlabeled: Examples
    test: Examples


def split_examples(dataset: Dataset, split: Split) -> SplitExamples:
    """Collects the examples of each part.

    Args:
      dataset: the dataset that the split was made from.
      split: the split.

    Returns:
      The five lists.

    Raises:
      UserError: unlabeled examples would be partly in memory and partly streamed.
    """
    num_train = len(dataset.train)
    unlabeled = dataset.train.take(split.unlabeled[split.unlabeled < num_train])
    if dataset.unlabeled is not None:
        # The order of the positions is ascending, so that those in the pool come last.
        pool = dataset.unlabeled.take(split.unlabeled[split.unlabeled >= num_train] - num_train)
        unlabeled = concatenate([unlabeled, pool])
    validation = dataset.train if dataset.validation is None else dataset.validation
    return SplitExamples(
        labeled=dataset.train.take(split.labeled),
        validation=validation.take(split.validation),
        meta_validation=validation.take(split.meta_validation),
        unlabeled=unlabeled,
        test=dataset.test.take(split.test),
    )


def make_split(
    dataset: Dataset,
    *,
    num_labeled: int = 0,
    num_validation: int = 0,
    num_meta_validation: int = 0,
    split_seed: int = 0,
    protocol: str = "stratified",
    labeled_in_unlabeled: bool = True,
    changes: Mapping[str, Any] | None = None,
) -> Split:
    """Decides who is labeled, validation, unlabeled and test.

    Args:
      dataset: the loaded dataset.
      num_labeled: labeled examples in the whole set, not per class; 0 takes all.
      num_validation: validation examples, in the classes' natural proportions. Where the dataset has a validation
        set of its own they are taken from that, and 0 takes all that the second set leaves of it; else 0 takes none.
      num_meta_validation: examples of the second validation set, taken in the same way from what the first leaves. It
        changes neither who is labeled nor, where their number is given, who is in the first.
      split_seed: seed of the permutation in whose order examples are labeled and set apart.
      protocol: a key of `PROTOCOLS`.
      labeled_in_unlabeled: whether labeled examples also serve as unlabeled ones.
      changes: settings that change the examples themselves, by name; they become part of the parameters.

    Returns:
      The split. The unlabeled examples are those of the dataset's own pool, if it has one (without copies of
      labeled, validation and test examples), else all other training examples, in the order of the dataset.

    Raises:
      UserError: the counts cannot be had, or the protocol is not known.
    """
    if protocol not in PROTOCOLS:
        raise UserError(
            f"--split_protocol={protocol} is not known. Expected one of: {', '.join(PROTOCOLS)}."
            f"{near_match(protocol, list(PROTOCOLS))}"
        )
    labels = dataset.train.labels
    if labels.max(initial=-1) < 0:
        raise UserError("No training example has a label. Expected some: choose another --dataset or split of it.")
    order = np.arange(len(labels)) if dataset.ordered else _permutation(len(labels), split_seed)
    choice = PROTOCOLS[protocol](labels, order, num_labeled, dataset.class_names)
    _warn_of_missing_classes(labels[choice.labeled], dataset.class_names)
    free = _validation_candidates(dataset, order, choice, split_seed)
    validation, meta_validation = _choose_validation(dataset, free, num_validation, num_meta_validation)
    taken = [choice.labeled, choice.reserved, *([validation, meta_validation] if dataset.validation is None else [])]
    rest = np.setdiff1d(np.arange(len(labels)), np.concatenate(taken))
    parameters = {
        "dataset": dataset.name,
        "fingerprint": _fingerprint(dataset),
        "num_labeled": num_labeled,
        "num_validation": num_validation,
        "num_meta_validation": num_meta_validation,
        "split_seed": split_seed,
        "split_protocol": protocol,
        "labeled_in_unlabeled": labeled_in_unlabeled,
        "changes": dict(changes or {}),
    }
    split = Split(
        labeled=choice.labeled,
        validation=validation,
        meta_validation=meta_validation,
        unlabeled=rest,
        test=np.arange(len(dataset.test)),
        parameters=json.dumps(parameters, sort_keys=True),
    )
    unlabeled = rest if dataset.unlabeled is None else _own_pool(dataset, dataset.unlabeled, split)
    if labeled_in_unlabeled:
        unlabeled = np.sort(np.concatenate([unlabeled, choice.labeled]))
    return dataclasses.replace(split, unlabeled=unlabeled)


def _permutation(count: int, seed: int) -> Indices:
    # RandomState: its stream is frozen, so a split stays the same under every version of NumPy.
    return np.random.RandomState(seed).permutation(count)


def _warn_of_missing_classes(labels: Indices, class_names: tuple[str, ...]) -> None:
    missing = [name for label, name in enumerate(class_names) if label not in labels]
    if missing:
        _logger.warning("%d classes have no labeled example: %s.", len(missing), ", ".join(missing))


def _validation_candidates(dataset: Dataset, order: Indices, choice: Choice, split_seed: int) -> Indices:
    """Who may validate, in the order in which they are taken; positions as in `Split.validation`."""
    if dataset.validation is not None:
        return _permutation(len(dataset.validation), split_seed)
    free = order[np.isin(order, choice.reserved)] if len(choice.reserved) else order[~np.isin(order, choice.labeled)]
    return free[dataset.train.labels[free] >= 0]


def _choose_validation(dataset: Dataset, candidates: Indices, count: int, meta_count: int) -> tuple[Indices, Indices]:
    """The validation examples, and those of the second set."""
    own = dataset.validation
    labels = dataset.train.labels if own is None else own.labels
    if own is not None and not count:
        count = max(len(own) - meta_count, 0)
    validation = _proportional(labels, candidates, count, "num_validation", earlier="--num_labeled")
    left = candidates[~np.isin(candidates, validation)]
    earlier = "--num_labeled or --num_validation"
    return validation, _proportional(labels, left, meta_count, "num_meta_validation", earlier=earlier)


def _proportional(labels: Indices, candidates: Indices, count: int, flag: str, *, earlier: str) -> Indices:
    """The first candidates of each class, as many as the class's share of the candidates (largest remainders)."""
    if count > len(candidates):
        raise UserError(
            f"--{flag}={count} asks for more validation examples than the {len(candidates)} labeled ones that are "
            f"left. Lower it, or lower {earlier} so that enough remain (--num_labeled=0 labels all)."
        )
    if not count:
        return candidates[:0]
    shares = np.bincount(labels[candidates]) * (count / len(candidates))
    quota = np.floor(shares).astype(np.int64)
    # Stable, so that equal remainders are resolved by the order of the classes.
    largest = np.argsort(quota - shares, kind="stable")
    quota[largest[: count - quota.sum()]] += 1
    ranks = ranks_in_class(labels[candidates])
    return candidates[ranks < quota[labels[candidates]]]


def _own_pool(dataset: Dataset, pool: Examples, split: Split) -> Indices:
    """Positions of a dataset's own unlabeled pool, without copies of labeled, validation and test examples."""
    validation = dataset.train if dataset.validation is None else dataset.validation
    validating = np.concatenate([split.validation, split.meta_validation])
    known = [dataset.train.take(split.labeled), validation.take(validating), dataset.test]
    copies = occurs_in(pool, known)
    if copies.any():
        _logger.warning(
            "%d unlabeled examples are left out: they are copies of labeled, validation or test examples.",
            np.count_nonzero(copies),
        )
    if len(split.unlabeled) and len(pool):
        _logger.warning(
            "%d training examples are neither labeled nor validation examples. The unlabeled ones come from a pool of "
            "their own, so that these are used only where they are in that pool as well.",
            len(split.unlabeled),
        )
    return np.flatnonzero(~copies) + len(dataset.train)


def _fingerprint(dataset: Dataset) -> str:
    """sha256 of all labels, given labels and file names: what tells that a dataset changed under an old split.

    Pixels are left out, since image decoders differ between machines in the last bit.
    """
    digest = hashlib.sha256()
    for part in (dataset.train, dataset.test, dataset.unlabeled, dataset.validation):
        if part is None:
            digest.update(b"none")
            continue
        digest.update(f"{len(part)} examples".encode())
        digest.update(np.ascontiguousarray(part.labels, "<i8").tobytes())
        if part.names is not None:
            digest.update("\n".join(part.names.tolist()).encode())
        if GIVEN_LABEL in part.columns:
            digest.update(np.ascontiguousarray(part.columns[GIVEN_LABEL], "<i8").tobytes())
    return digest.hexdigest()


def save_split(file: IO[bytes], split: Split) -> None:
    """Writes a split as .npz into an open file: the five arrays, `parameters` and `hash`."""
    arrays = {part: getattr(split, part) for part in _PARTS}
    np.savez_compressed(file, parameters=split.parameters, hash=split.hash, **arrays)


def load_split(path: str) -> Split:
    """Reads a split that `save_split` wrote. Nothing is unpickled.

    Raises:
      UserError: the file is missing or damaged, or its hash is not that of its contents.
    """
    try:
        # Opened here, since np.load leaves a file open that turns out to be damaged.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {part: stored[part] for part in _PARTS}
            split = Split(**arrays, parameters=str(stored["parameters"]))
            whole = split.hash == str(stored["hash"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"The split {path} cannot be read: {error}. Expected a file that a run has written: restore it from a "
            "copy, or start in a new --workdir."
        ) from error
    if not whole:
        raise UserError(
            f"The split {path} was changed after it was written: its hash does not fit. Restore it from a copy, or "
            "start in a new --workdir."
        )
    return split
