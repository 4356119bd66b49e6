"""Examples, datasets, and what a source is asked for.

An example's place in its `Examples` is its identity: splits are lists of such places, and learned weights belong
to them. Nothing here is shuffled after it is loaded.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from metassl_tf.algorithms.batch import GIVEN_LABEL
from metassl_tf.data.images import ImageShape, resize_images
from metassl_tf.errors import UserError

Modality = Literal["image", "points"]
PoolIdentity = Literal["family", "text", "values"]
Column = npt.NDArray[Any]

MEMORY_LIMIT = 4.0
"""Most memory that decoded images may take by default, in GiB."""


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """A list of examples: decoded inputs in memory, or files that are decoded whenever they are needed.

    Attributes:
      inputs: uint8 [N, H, W, C] images, float32 [N, D] points, or str [N] paths of image files.
      labels: int64 [N] class indices, -1 where unknown.
      shape: shape of one decoded example, (H, W, C) or (D,).
      names: str [N] file names for reports, or None where examples have none.
      columns: further values of every example by name, int64 or floating point [N, ...].
    """

    inputs: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    shape: tuple[int, ...]
    names: npt.NDArray[np.str_] | None = None
    columns: Mapping[str, Column] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(self.inputs), len(self.labels), len(self.inputs if self.names is None else self.names)}
        lengths |= {len(column) for column in self.columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"Inputs, labels, names and columns differ in length: {sorted(lengths)}.")
        for name, column in self.columns.items():
            if column.dtype != np.int64 and column.dtype.kind != "f":
                raise ValueError(f"The column {name} is of type {column.dtype}. Expected int64 or floating point.")
        if not self.streamed and self.inputs.shape[1:] != self.shape:
            raise ValueError(f"Inputs of shape {self.inputs.shape[1:]} were declared as {self.shape}.")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def streamed(self) -> bool:
        """Whether `inputs` are paths of files rather than decoded arrays."""
        return self.inputs.dtype.kind == "U"

    def take(self, indices: npt.NDArray[np.int64] | slice) -> "Examples":
        """The examples at `indices`, in that order. A slice, or all of them in their order, copies nothing."""
        if not isinstance(indices, slice) and np.array_equal(indices, np.arange(len(self))):
            return self
        names = None if self.names is None else self.names[indices]
        columns = {name: column[indices] for name, column in self.columns.items()}
        return Examples(self.inputs[indices], self.labels[indices], self.shape, names, columns)

    def relabeled(self, mapping: npt.NDArray[np.int64]) -> "Examples":
        """The same examples, each known label and given label replaced by mapping[label], int64 [old classes]."""
        mapping = np.append(mapping, -1)  # what unknown labels, -1, pick
        relabeled = dataclasses.replace(self, labels=mapping[self.labels])
        given = self.columns.get(GIVEN_LABEL)
        return relabeled if given is None else relabeled.with_columns({GIVEN_LABEL: mapping[given]})

    def with_columns(self, columns: Mapping[str, Column]) -> "Examples":
        """The same examples with some columns added, or put in place of those of the same name."""
        return dataclasses.replace(self, columns={**self.columns, **columns})


def spread(count: int, *, most: int) -> npt.NDArray[np.int64]:
    """Positions of all of `count` examples, or of `most` of them spread evenly from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def empty_like(examples: Examples) -> Examples:
    """No examples, of the same kind as `examples`."""
    return examples.take(np.zeros(0, np.int64))


def concatenate(parts: Sequence[Examples]) -> Examples:
    """Puts lists of examples of one kind behind each other.

    Args:
      parts: at least one list; all in memory or all streamed, all of one shape.

    Returns:
      One list. Names are kept where any part has them, and empty where a part has none. So are columns, with -1 for
      the unknown integers and NaN for the unknown floating-point numbers of a part without them.

    Raises:
      UserError: some are in memory and others are streamed.
    """
    parts = [part for part in parts if len(part)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    if len({part.streamed for part in parts}) > 1:
        raise UserError(
            "Some examples are in memory and others are streamed from files, so they cannot form one list. "
            "Raise --memory_limit to bring all of them into memory, or pass --nolabeled_in_unlabeled to keep "
            "the labeled examples out of a streamed --unlabeled_dataset."
        )
    names = None
    if any(part.names is not None for part in parts):
        names = np.concatenate([np.full(len(part), "") if part.names is None else part.names for part in parts])
    inputs = np.concatenate([part.inputs for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    return Examples(inputs, labels, parts[0].shape, names, _joined_columns(parts))


def _joined_columns(parts: Sequence[Examples]) -> dict[str, Column]:
    present = {name: column for part in parts for name, column in part.columns.items()}
    return {name: np.concatenate([_column(part, name, like) for part in parts]) for name, like in present.items()}


def _column(part: Examples, name: str, like: Column) -> Column:
    """A part's column, or else one that is like another part's and says of every example that nothing is known."""
    if name in part.columns:
        return part.columns[name]
    return np.full((len(part), *like.shape[1:]), -1 if like.dtype.kind == "i" else np.nan, like.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """What a source provides, before anybody decides who is labeled.

    Attributes:
      name: what the data is, independent of where it lies; part of a split's hash.
      train: candidates for labeled, validation and (without a pool of their own) unlabeled examples.
      test: held-out examples; empty where the source has none.
      class_names: name of each class, in the order of the labels.
      unlabeled: a pool of unlabeled examples of its own, else None and the pool is `train`. Its labels, where
        known, are for measuring only.
      validation: an explicit validation set, else None and it is taken from `train`.
      flip: whether a mirrored image keeps its class: the default of the weak augmentation.
      modality: "image" or "points".
      ordered: the order of `train` already depends on the split seed, so that it decides who is labeled; else
        a permutation drawn with that seed does.
    """

    name: str
    train: Examples
    test: Examples
    class_names: tuple[str, ...]
    unlabeled: Examples | None = None
    validation: Examples | None = None
    flip: bool = False
    modality: Modality = "image"
    ordered: bool = False

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadRequest:
    """What the user asked a source for.

    Attributes:
      argument: the text behind the source's name and a colon: `cifar10:train` of `tfds:cifar10:train`.
      data_dir: folder or file of the data; "" where none was given.
      image_size: side of the images in pixels; 0 leaves it to the source.
      channels: 1 or 3 forces grey or color; 0 leaves it to the source.
      download: whether the source may use the network.
      strict_data: an unreadable image is an error instead of being skipped.
      memory_limit: most memory that decoded images may take, in GiB.
      split_seed: seed of everything that is drawn while loading.
    """

    argument: str = ""
    data_dir: str = ""
    image_size: int = 0
    channels: int = 0
    download: bool = False
    strict_data: bool = False
    memory_limit: float = MEMORY_LIMIT
    split_seed: int = 0

    def image_shape(self, own: ImageShape) -> ImageShape:
        """The shape images get: the source's own (H, W, C) with the requested size and channels put in."""
        height, width, channels = own
        return self.image_size or height, self.image_size or width, self.channels or channels


class Source(abc.ABC):
    """A family of datasets. Its fields are its settings, declared with `metassl_tf.settings.setting`.

    Attributes:
      argument: what may follow the family's name and a colon, as a user is told: NAME, DIR, FILE; "" for nothing.
      heeds: which of data_dir, download, strict_data and memory_limit it reads. Where an argument is possible and not
        given, data_dir stands in its place and need not be among them.
      pool_identity: what tells its pools of unlabeled examples from others: the family alone, the text of the flag, or
        the values of the examples. Where a folder or file lies does not change what it is.
    """

    argument: ClassVar[str] = ""
    heeds: ClassVar[frozenset[str]] = frozenset()
    pool_identity: ClassVar[PoolIdentity] = "family"

    @abc.abstractmethod
    def load(self, request: LoadRequest) -> Dataset:
        """Loads labeled candidates, test set and whatever else the source has."""

    def load_pool(self, request: LoadRequest, shape: tuple[int, ...]) -> tuple[Examples, tuple[str, ...]]:
        """Loads unlabeled examples of a given shape, with the class names that their labels refer to.

        A source that is in memory anyway gives its own pool, else `train`, resized to `shape`.

        Raises:
          UserError: images are wanted and these are points, or the other way round, or points of another dimension.
        """
        dataset = self.load(request)
        pool = dataset.train if dataset.unlabeled is None else dataset.unlabeled
        if dataset.modality == "image":
            shape = require_images(shape)
            pool = dataclasses.replace(pool, inputs=resize_images(pool.inputs, shape), shape=shape)
        elif pool.shape != shape:
            raise UserError(
                f"--unlabeled_dataset holds points of shape {pool.shape}, but an example of --dataset has the shape "
                f"{shape}. Expected the same shape: choose another --unlabeled_dataset or leave it out."
            )
        return pool, dataset.class_names


def require_images(shape: tuple[int, ...]) -> ImageShape:
    """Returns `shape` as (H, W, C).

    Raises:
      UserError: it is the shape of points.
    """
    if len(shape) != 3:
        raise UserError(
            f"--unlabeled_dataset holds images, but --dataset holds points with {shape[0]} coordinates. "
            "Expected both of one kind: choose another --unlabeled_dataset or leave it out."
        )
    height, width, channels = shape
    return height, width, channels
