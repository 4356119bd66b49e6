"""Tiny data on the disk, written afresh for each test."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture
def write_images() -> Callable[..., list[pathlib.Path]]:
    """write_images(folder, count, size=(h, w), channels=3, seed=0, ending="png") writes folder/000.png and so on."""

    def write(
        folder: pathlib.Path,
        count: int,
        size: tuple[int, int] = (8, 8),
        channels: int = 3,
        seed: int = 0,
        ending: str = "png",
    ) -> list[pathlib.Path]:
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.RandomState(seed)
        encode = tf.io.encode_png if ending == "png" else tf.io.encode_jpeg
        paths = [folder / f"{number:03d}.{ending}" for number in range(count)]
        for path in paths:
            path.write_bytes(encode(random.randint(0, 256, (*size, channels), np.uint8)).numpy())
        return paths

    return write


@pytest.fixture
def folder(tmp_path: pathlib.Path, write_images: Callable[..., Any]) -> pathlib.Path:
    """A complete image folder: 5 cats, 4 dogs, 6 unlabeled, 2 + 2 validation, 3 + 1 test, all color, 8 x 8."""
    root = tmp_path / "pets"
    for seed, (part, count) in enumerate(
        {
            "labeled/cat": 5,
            "labeled/dog": 4,
            "unlabeled": 4,
            "unlabeled/dog/deeper": 2,
            "validation/cat": 2,
            "validation/dog": 2,
            "test/cat": 3,
            "test/dog": 1,
        }.items()
    ):
        write_images(root / part, count, seed=seed)
    return root


@pytest.fixture
def write_tfds(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """write_tfds(name, {split: [images, labels] of each shard}, shape, class_names) prepares a TFDS dataset."""
    import tensorflow_datasets as tfds

    def record(image: Any, label: int) -> bytes:
        encoded = tf.train.BytesList(value=[tf.io.encode_png(image).numpy()])
        features = {
            "image": tf.train.Feature(bytes_list=encoded),
            "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        }
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    def write(
        name: str,
        splits: dict[str, list[tuple[Sequence[Any], Sequence[int]]]],
        shape: tuple[int | None, ...],
        class_names: Sequence[str] = ("a", "b"),
    ) -> pathlib.Path:
        folder = tmp_path / "tfds" / name / "1.0.0"
        folder.mkdir(parents=True)
        template = tfds.core.ShardedFileTemplate(data_dir=folder, dataset_name=name, filetype_suffix="tfrecord")
        infos = []
        for split, shards in splits.items():
            for number, (images, labels) in enumerate(shards):
                path = folder / f"{name}-{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
                with tf.io.TFRecordWriter(str(path)) as writer:
                    for image, label in zip(images, labels, strict=True):
                        writer.write(record(image, label))
            lengths = [len(labels) for _, labels in shards]
            infos.append(
                tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=0, filename_template=template)
            )
        features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=class_names)}
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=tfds.features.FeaturesDict(features),
            split_infos=infos,
            supervised_keys=("image", "label"),
        )
        return tmp_path / "tfds"

    return write
