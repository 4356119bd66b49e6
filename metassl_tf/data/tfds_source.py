"""Any image dataset of TensorFlow Datasets that lies prepared on the disk: `tfds:NAME[:SPLIT]`."""

import dataclasses
import logging
from typing import Any, ClassVar

import numpy as np

from metassl_tf.data.examples import Dataset, Examples, LoadRequest, PoolIdentity, Source, empty_like, require_images
from metassl_tf.data.images import ImageShape
from metassl_tf.data.tfds_files import (
    decode_split,
    find_builder,
    image_and_label_keys,
    split_info,
    split_shape,
    splits_overlap,
)
from metassl_tf.errors import UserError
from metassl_tf.settings import setting

_logger = logging.getLogger(__name__)

# Prefixes of sets whose classes survive a mirror. Of any other set it cannot be known: digits and letters do not.
_FLIP_KEEPS_CLASS = ("cifar10", "stl10", "imagenet", "imagewang", "cats_vs_dogs", "fashion_mnist")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TfdsSource(Source):
    """A dataset of TensorFlow Datasets with an image and a class label."""

    argument: ClassVar[str] = "NAME"
    heeds: ClassVar[frozenset[str]] = frozenset({"data_dir", "download", "memory_limit"})
    pool_identity: ClassVar[PoolIdentity] = "text"

    test_split: str = setting("", "TFDS split to test on; empty: test, else validation.")

    def load(self, request: LoadRequest) -> Dataset:
        """Decodes a training and a test split.

        Args:
          request: its argument is NAME[:SPLIT]; the split defaults to `train` and may be any TFDS expression,
            such as `train+extra` or `train[:90%]`.

        Returns:
          The dataset, wholly in memory. Without an image size it keeps the images' own; where they differ in
          size, the most common one, at most 32 pixels.

        Raises:
          UserError: the dataset is not prepared there, has no such split, holds no labeled images or damaged
            files, is larger than the memory limit, or the two splits overlap.
        """
        name, split = _name_and_split(request)
        builder = find_builder(name, data_dir=request.data_dir, download=request.download)
        test_split = self._choose_test_split(builder, split)
        shape = request.image_shape(split_shape(builder, split))
        _check_memory(builder, "+".join(filter(None, [split, test_split])), shape, request.memory_limit)
        images, labels = decode_split(builder, split, shape)
        train = Examples(images, labels, shape)
        test = Examples(*decode_split(builder, test_split, shape), shape) if test_split else empty_like(train)
        if np.any(test.labels < 0):
            raise UserError(
                f"The split {test_split!r} of the TFDS dataset {name!r} has examples without a label, so nothing "
                f"can be measured on it. Name another with --test_split: {', '.join(builder.info.splits)}."
            )
        return Dataset(
            name=f"tfds:{builder.info.full_name}:{split}:{test_split}",
            train=train,
            test=test,
            class_names=_class_names(builder),
            flip=name.startswith(_FLIP_KEEPS_CLASS),
        )

    def load_pool(self, request: LoadRequest, shape: tuple[int, ...]) -> tuple[Examples, tuple[str, ...]]:
        """Decodes one split, `train` unless the argument names another."""
        image_shape = require_images(shape)
        name, split = _name_and_split(request)
        builder = find_builder(name, data_dir=request.data_dir, download=request.download)
        _check_memory(builder, split, image_shape, request.memory_limit)
        return Examples(*decode_split(builder, split, image_shape), image_shape), _class_names(builder)

    def _choose_test_split(self, builder: Any, split: str) -> str:
        """The split to test on, or "" with a warning where there is none."""
        candidates = [name for name in ("test", "validation") if name in builder.info.splits]
        if not self.test_split and not candidates:
            _logger.warning(
                "The TFDS dataset %r has neither a test nor a validation split: no test accuracy will be measured. "
                "To set some examples apart, give :train[:90%%] in --dataset and --test_split='train[90%%:]'.",
                builder.info.name,
            )
            return ""
        chosen = self.test_split or candidates[0]
        if splits_overlap(builder, split, chosen):
            raise UserError(
                f"The splits {split!r} (training) and {chosen!r} (test) of the TFDS dataset {builder.info.name!r} "
                "overlap. Expected disjoint ones: change the split in --dataset, or --test_split."
            )
        return chosen


def _name_and_split(request: LoadRequest) -> tuple[str, str]:
    name, _, split = request.argument.partition(":")
    if not name:
        raise UserError("tfds names no dataset. Expected tfds:NAME or tfds:NAME:SPLIT, such as tfds:mnist.")
    return name, split or "train"


def _check_memory(builder: Any, split: str, shape: ImageShape, limit: float) -> None:
    """Refuses images that take more than `limit` GiB once they are decoded."""
    count = split_info(builder, split).num_examples
    gibibytes = count * int(np.prod(shape)) / 2**30
    if gibibytes > limit:
        raise UserError(
            f"The {count:,} images of the TFDS dataset {builder.info.name!r} take {gibibytes:.3g} GiB at "
            f"{shape[0]}x{shape[1]} pixels, more than --memory_limit={limit:g}. Raise it, lower --image_size, or write "
            "the images to files and use --dataset=image_folder, which streams them."
        )


def _class_names(builder: Any) -> tuple[str, ...]:
    _, label_key = image_and_label_keys(builder)
    return tuple(builder.info.features[label_key].names)
