"""Reads the files of a prepared TensorFlow Datasets dataset of labeled images.

TFDS finds the files, resolves split expressions and knows the features. The records themselves are parsed here, in
batches: several times faster than `tfds.load`, and every start of a run decodes the whole set once.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from metassl_tf.data.images import ImageShape, common_shape, decode_many
from metassl_tf.errors import UserError

_LARGEST_DEFAULT_SIDE = 32
_MEASURED = 500
_PARSE_BATCH = 1024


def find_builder(name: str, *, data_dir: str, download: bool) -> Any:
    """Finds a prepared dataset by its files alone.

    Args:
      name: name in the TFDS catalog, with `/config` where it has several.
      data_dir: folder of prepared datasets; "" for TFDS_DATA_DIR, else TFDS' own default.
      download: let TFDS fetch and prepare a missing dataset.

    Returns:
      A `tfds.core.DatasetBuilder`, whose `info` describes the files.

    Raises:
      UserError: it is not there, and cannot or must not be downloaded.
    """
    # Imported here because most sources do without it.
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or str(tfds.core.constants.DATA_DIR)
    try:
        # Unlike tfds.builder, this never asks the network about a dataset that is not there.
        return read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        if download:
            return _download(tfds, name, folder)
        raise UserError(
            f"The TFDS dataset {name!r} is not prepared in {folder}. Expected {os.path.join(folder, name)}/"
            "<version>/dataset_info.json: point --data_dir (or TFDS_DATA_DIR) to the folder that holds it, or pass "
            "--download to let TFDS fetch it."
        ) from error


def _download(tfds: Any, name: str, folder: str) -> Any:
    try:
        builder = tfds.builder(name, data_dir=folder)
        builder.download_and_prepare(file_format="tfrecord")
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(f"TFDS knows no dataset {name!r}. Expected a name from its catalog.") from error
    except OSError as error:
        raise UserError(
            f"The TFDS dataset {name!r} could not be downloaded to {folder}: {error}. Try again, or prepare it on "
            "another machine and point --data_dir to the folder."
        ) from error
    return builder


def split_info(builder: Any, split: str) -> Any:
    """The `tfds.core.SplitInfo` of a split expression: `num_examples` and `file_instructions`.

    Raises:
      UserError: the dataset has no such split.
    """
    try:
        return builder.info.splits[split]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"The TFDS dataset {builder.info.name!r} has no split {split!r}. Expected one of "
            f"{', '.join(builder.info.splits)}, or an expression of them such as train[:90%]."
        ) from error


def splits_overlap(builder: Any, first: str, second: str) -> bool:
    """Whether two split expressions share a record."""
    return any(
        one.filename == other.filename and one.skip < other.skip + other.take and other.skip < one.skip + one.take
        for one in split_info(builder, first).file_instructions
        for other in split_info(builder, second).file_instructions
    )


def image_and_label_keys(builder: Any) -> tuple[str, str]:
    """Names of the image and of the class label in the records.

    Raises:
      UserError: there is no such pair, or the files are not TFRecord.
    """
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    keys = builder.info.supervised_keys or ("image", "label")
    is_image = isinstance(features.get(keys[0]), tfds.features.Image)
    if not is_image or not isinstance(features.get(keys[1]), tfds.features.ClassLabel):
        raise UserError(
            f"The TFDS dataset {builder.info.name!r} is not made of images with a class label: its features are "
            f"{', '.join(features)}. Choose another --dataset."
        )
    if builder.info.file_format.value != "tfrecord":
        raise UserError(
            f"The TFDS dataset {builder.info.name!r} is stored as {builder.info.file_format.value}. Expected "
            "tfrecord: convert it with `tfds convert_format --out_file_format=tfrecord`."
        )
    return keys[0], keys[1]


def _records(builder: Any, split: str, key: str, dtype: tf.DType) -> tf.data.Dataset:
    """One feature of every record, in the order of the files; batches of [1024]."""
    records = [
        tf.data.TFRecordDataset(os.fspath(part.filename)).skip(part.skip).take(part.take)
        for part in split_info(builder, split).file_instructions
    ]
    joined = records[0]
    for part in records[1:]:
        joined = joined.concatenate(part)
    feature = {key: tf.io.FixedLenFeature([], dtype)}
    return joined.batch(_PARSE_BATCH).map(lambda batch: tf.io.parse_example(batch, feature)[key])


@contextlib.contextmanager
def _damage_is_a_user_error(builder: Any, split: str) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        raise UserError(
            f"The files of split {split!r} of the TFDS dataset {builder.info.name!r} in {builder.data_dir} are "
            f"damaged or incomplete: {error.message}. Copy or prepare them again."
        ) from error


def split_shape(builder: Any, split: str) -> ImageShape:
    """The (H, W, C) of the images; where they differ in size, their most common one, at most 32 x 32."""
    image_key, _ = image_and_label_keys(builder)
    height, width, channels = builder.info.features[image_key].shape
    if height is None or width is None or channels is None:
        with _damage_is_a_user_error(builder, split):
            encoded = _records(builder, split, image_key, tf.string).unbatch().take(_MEASURED)
            measured = common_shape(encoded, _LARGEST_DEFAULT_SIDE)
        height, width, found = measured or (_LARGEST_DEFAULT_SIDE, _LARGEST_DEFAULT_SIDE, 3)
        channels = channels or found
    return height, width, 1 if channels == 1 else 3


def decode_split(builder: Any, split: str, shape: ImageShape) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Decodes a whole split.

    Args:
      builder: from `find_builder`.
      split: a split expression.
      shape: the wanted (H, W, C).

    Returns:
      uint8 [N, H, W, C] images and int64 [N] labels, -1 where the dataset knows none, in the order of the files.

    Raises:
      UserError: no such split, wrong features, damaged files.
    """
    image_key, label_key = image_and_label_keys(builder)
    count = split_info(builder, split).num_examples
    with _damage_is_a_user_error(builder, split):
        batches = _records(builder, split, label_key, tf.int64).as_numpy_iterator()
        labels = np.concatenate([np.zeros(0, np.int64), *batches])
        encoded = _records(builder, split, image_key, tf.string).unbatch()
        images = decode_many(encoded, count, shape).images
    if images is None or len(labels) != count:
        raise UserError(
            f"Split {split!r} of the TFDS dataset {builder.info.name!r} has {len(labels)} records in "
            f"{builder.data_dir}, but its dataset_info.json promises {count}. Copy or prepare it again."
        )
    return images, labels
