import dataclasses
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from metassl_tf.data.sources import SOURCES, load_dataset, load_unlabeled, parse_dataset
from metassl_tf.data.splits import make_split, split_examples
from metassl_tf.data.toy import Linear, TwoMoons
from metassl_tf.errors import UserError

Write = Callable[..., Any]
RANDOM = np.random.RandomState(0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("digits", ("digits", "")),
        ("cifar10", ("tfds", "cifar10")),
        ("svhn_cropped:train+extra", ("tfds", "svhn_cropped:train+extra")),
        ("tfds:mnist", ("tfds", "mnist")),
        ("tfds:cifar10_corrupted/fog_1:test[:10%]", ("tfds", "cifar10_corrupted/fog_1:test[:10%]")),
        ("image_folder", ("image_folder", "")),
        ("image_folder:/data/a:b", ("image_folder", "/data/a:b")),
    ],
)
def test_values_are_read(value: str, expected: tuple[str, str]) -> None:
    assert parse_dataset(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("digit", "--dataset=digit is not known.*Did you mean 'digits'"),
        ("cifar-10", "Did you mean 'cifar10'"),
        ("mnist", "tfds:mnist"),
        ("", "--dataset= is not known"),
        ("digits:train", "takes nothing after a colon"),
    ],
)
def test_unknown_values(value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(value)


@pytest.mark.parametrize("source", SOURCES.values())
def test_settings_are_frozen_and_documented(source: type) -> None:
    assert source.__dataclass_params__.frozen
    for field in dataclasses.fields(source):
        assert field.kw_only
        assert field.metadata["help"]


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match="--noise=-1"):
        load_dataset("two_moons", settings=TwoMoons(noise=-1.0))
    with pytest.raises(TypeError, match="two_moons are TwoMoons"):
        load_dataset("two_moons", settings=Linear())


def test_a_pool_from_tfds_is_resized_and_matched_by_class_name(folder: pathlib.Path, write_tfds: Write) -> None:
    dataset = load_dataset("image_folder", data_dir=str(folder))
    images = RANDOM.randint(0, 256, (6, 5, 4, 1), np.uint8)
    records = {"extra": [(images, [0, 1, 0, 1, 1, -1])], "train": [(images[:0], [])]}
    tfds_dir = write_tfds("animals", records, (5, 4, 1), class_names=("dog", "cat"))
    pooled = load_unlabeled("tfds:animals:extra", dataset, data_dir=str(tfds_dir))
    assert pooled.unlabeled is not None
    assert pooled.unlabeled.inputs.shape == (6, 8, 8, 3)
    assert pooled.unlabeled.labels.tolist() == [1, 0, 1, 0, 0, -1]
    assert pooled.train is dataset.train
    assert pooled.name != dataset.name


def test_labels_of_other_classes_are_unknown(folder: pathlib.Path) -> None:
    pooled = load_unlabeled(f"image_folder:{folder}", load_dataset("digits"))
    assert pooled.unlabeled is not None
    assert pooled.unlabeled.inputs.shape == (6, 8, 8, 1)
    assert pooled.unlabeled.labels.tolist() == [-1] * 6


def test_a_folder_as_pool_falls_back_to_labeled_then_to_everything(folder: pathlib.Path, write_images: Write) -> None:
    dataset = load_dataset("image_folder", data_dir=str(folder))
    shutil.rmtree(folder / "unlabeled")
    pooled = load_unlabeled(f"image_folder:{folder}", dataset)
    assert pooled.unlabeled is not None
    assert pooled.unlabeled.labels.tolist() == [0] * 5 + [1] * 4
    plain = folder.parent / "plain"
    write_images(plain / "x", 2)
    write_images(plain, 1, channels=1)  # both kinds: converted to those of the dataset
    pooled = load_unlabeled(f"image_folder:{plain}", dataset)
    assert pooled.unlabeled is not None
    assert pooled.unlabeled.inputs.shape == (3, 8, 8, 3)
    assert pooled.unlabeled.labels.tolist() == [-1] * 3


def test_an_npz_file_as_pool(tmp_path: pathlib.Path) -> None:
    arrays = {f"x_{part}": RANDOM.normal(size=(4, 2)) for part in ("train", "test", "unlabeled")}
    np.savez(tmp_path / "pool.npz", y_train=[0, 1, 0, 1], y_test=[0, 1, 0, 1], **arrays)
    pooled = load_unlabeled(f"npz:{tmp_path / 'pool.npz'}", load_dataset("two_moons"))
    assert pooled.unlabeled is not None
    np.testing.assert_array_equal(pooled.unlabeled.inputs, arrays["x_unlabeled"].astype(np.float32))


def test_a_dataset_as_its_own_pool_leaks_nothing() -> None:
    dataset = load_dataset("digits")
    pooled = load_unlabeled("digits", dataset)
    split = make_split(pooled, num_labeled=40, num_validation=100)
    parts = split_examples(pooled, split)
    held_out = {image.tobytes() for part in (parts.validation, parts.test) for image in part.inputs}
    assert not held_out & {image.tobytes() for image in parts.unlabeled.inputs}
    assert len(parts.unlabeled) == 1200 - 100
    assert (parts.unlabeled.labels >= 0).all()


def test_labeled_examples_alone() -> None:
    """As regularisation: the unlabeled examples are the labeled ones (H. Pham's thesis, 5.7.10)."""
    dataset = load_unlabeled("labeled", load_dataset("digits"))
    split = make_split(dataset, num_labeled=40, num_validation=100)
    np.testing.assert_array_equal(split.unlabeled, np.sort(split.labeled))
    assert len(split_examples(dataset, split).unlabeled) == 40
    assert len(make_split(dataset, num_labeled=40, labeled_in_unlabeled=False).unlabeled) == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digts", "--unlabeled_dataset=digts is not known.*Did you mean 'digits'"),
        ("image_folder", "--unlabeled_dataset=image_folder:DIR"),
        ("image_folder:/no/such/folder", "There is no folder"),
        ("two_moons", "--unlabeled_dataset holds points"),
        ("tfds:mnist", "not prepared"),
    ],
)
def test_pools_that_cannot_be(spec: str, message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=message):
        load_unlabeled(spec, load_dataset("digits"), data_dir=str(tmp_path))


def test_images_for_points() -> None:
    for spec in ("digits", "tfds:mnist", "image_folder:/tmp"):
        with pytest.raises(UserError, match="--unlabeled_dataset holds images"):
            load_unlabeled(spec, load_dataset("two_moons"))


def test_an_empty_folder_as_pool(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="no readable image"):
        load_unlabeled(f"image_folder:{tmp_path}", load_dataset("digits"))


def test_a_streamed_pool_cannot_take_labeled_examples_from_memory(folder: pathlib.Path) -> None:
    pooled = load_unlabeled(f"image_folder:{folder}", load_dataset("digits"), memory_limit=1e-9)
    with pytest.raises(UserError, match="--nolabeled_in_unlabeled"):
        split_examples(pooled, make_split(pooled, num_labeled=40))
    alone = split_examples(pooled, make_split(pooled, num_labeled=40, labeled_in_unlabeled=False))
    assert alone.unlabeled.streamed
    assert len(alone.unlabeled) == 6
