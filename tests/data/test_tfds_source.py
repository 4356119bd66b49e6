import itertools
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from metassl_tf.data import tfds_files
from metassl_tf.data.sources import load_dataset
from metassl_tf.data.tfds_source import TfdsSource
from metassl_tf.errors import UserError

RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(0, 256, (12, 6, 5, 3), np.uint8)
LABELS = np.arange(12) % 2

Write = Callable[..., pathlib.Path]


def shards(*bounds: int) -> list[Any]:
    return [(IMAGES[a:b], LABELS[a:b]) for a, b in itertools.pairwise(bounds)]


@pytest.fixture
def tiny(write_tfds: Write) -> str:
    """A TFDS folder with a dataset of two training shards (5 + 3), 3 test and 1 validation images."""
    splits = {"train": shards(0, 5, 8), "test": shards(8, 11), "validation": shards(11, 12)}
    return str(write_tfds("tiny", splits, (6, 5, 3)))


def test_both_splits_are_decoded_in_the_order_of_the_files(tiny: str) -> None:
    dataset = load_dataset("tfds:tiny", data_dir=tiny)
    np.testing.assert_array_equal(dataset.train.inputs, IMAGES[:8])
    np.testing.assert_array_equal(dataset.train.labels, LABELS[:8])
    np.testing.assert_array_equal(dataset.test.inputs, IMAGES[8:11])
    assert dataset.class_names == ("a", "b")
    assert dataset.train.shape == (6, 5, 3)
    assert not dataset.flip


def test_the_environment_names_the_folder(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", tiny)
    assert len(load_dataset("tfds:tiny").train) == 8


@pytest.mark.parametrize(
    ("split", "expected"), [("train[:3]", [0, 1, 2]), ("train[4:6]", [4, 5]), ("validation+train[6:]", [11, 6, 7])]
)
def test_any_split_expression(tiny: str, split: str, expected: list[int]) -> None:
    dataset = load_dataset(f"tfds:tiny:{split}", data_dir=tiny)
    np.testing.assert_array_equal(dataset.train.inputs, IMAGES[expected])
    np.testing.assert_array_equal(dataset.train.labels, LABELS[expected])


def test_images_are_resized_where_asked(tiny: str) -> None:
    dataset = load_dataset("tfds:tiny", data_dir=tiny, image_size=16, channels=1)
    assert dataset.train.inputs.shape == (8, 16, 16, 1)
    assert dataset.test.inputs.shape == (3, 16, 16, 1)


def test_images_of_any_size_get_the_most_common_one(write_tfds: Write) -> None:
    folder = write_tfds("sizes", {"train": shards(0, 8), "test": shards(8, 12)}, (None, None, 3))
    assert load_dataset("tfds:sizes", data_dir=str(folder)).train.shape == (6, 6, 3)


def test_the_test_split_can_be_chosen(tiny: str) -> None:
    dataset = load_dataset("tfds:tiny", data_dir=tiny, settings=TfdsSource(test_split="validation"))
    np.testing.assert_array_equal(dataset.test.inputs, IMAGES[11:])
    for split, test_split in (("train+test", ""), ("train", "train[7:]"), ("train[:50%]", "train[3:]")):
        with pytest.raises(UserError, match=r"overlap.*--test_split"):
            load_dataset(f"tfds:tiny:{split}", data_dir=tiny, settings=TfdsSource(test_split=test_split))
    halves = load_dataset("tfds:tiny:train[:6]", data_dir=tiny, settings=TfdsSource(test_split="train[6:]"))
    np.testing.assert_array_equal(halves.test.inputs, IMAGES[6:8])


def test_without_a_test_split_a_warning(write_tfds: Write, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_tfds("one", {"train": shards(0, 12)}, (6, 5, 3))
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset("tfds:one", data_dir=str(folder))
    assert len(dataset.test) == 0
    assert "no test accuracy" in caplog.text


def test_unlabeled_examples_train_but_do_not_test(write_tfds: Write) -> None:
    unknown = (IMAGES[:4], [-1] * 4)
    folder = str(write_tfds("part", {"train": shards(0, 4), "extra": [unknown], "test": shards(4, 8)}, (6, 5, 3)))
    assert load_dataset("tfds:part:train+extra", data_dir=folder).train.labels.tolist() == [0, 1, 0, 1] + [-1] * 4
    with pytest.raises(UserError, match=r"without a label.*--test_split"):
        load_dataset("tfds:part", data_dir=folder, settings=TfdsSource(test_split="extra"))


def test_a_missing_dataset_names_both_flags_and_the_folder(tmp_path: pathlib.Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=rf"'svhn_cropped' is not prepared in {folder}.*--data_dir.*--download"):
            load_dataset("svhn_cropped", data_dir=str(folder))


def test_nothing_is_downloaded_unless_asked(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(_: Any, name: str, folder: str) -> Any:
        asked.append((name, folder))
        raise UserError("stop here")

    monkeypatch.setattr(tfds_files, "_download", download)
    with pytest.raises(UserError, match="not prepared"):
        load_dataset("cifar100", data_dir=str(tmp_path))
    assert not asked
    with pytest.raises(UserError, match="stop here"):
        load_dataset("cifar100", data_dir=str(tmp_path), download=True)
    assert asked == [("cifar100", str(tmp_path))]


@pytest.mark.parametrize("failure", [OSError("no route to host"), ConnectionError("reset")])
def test_a_failed_download_is_reported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, failure: OSError
) -> None:
    import tensorflow_datasets as tfds

    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(tfds, "builder", fail)
    with pytest.raises(UserError, match=f"could not be downloaded.*{failure}"):
        load_dataset("cifar100", data_dir=str(tmp_path), download=True)


def test_an_unknown_name_cannot_be_downloaded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow_datasets as tfds

    def unknown(*_: Any, **__: Any) -> None:
        raise tfds.core.DatasetNotFoundError("cifr")

    monkeypatch.setattr(tfds, "builder", unknown)
    with pytest.raises(UserError, match="knows no dataset 'cifr'"):
        load_dataset("tfds:cifr", data_dir=str(tmp_path), download=True)


def test_an_unknown_split_and_no_name(tiny: str) -> None:
    with pytest.raises(UserError, match=r"no split 'trane'.*train, test, validation"):
        load_dataset("tfds:tiny:trane", data_dir=tiny)
    with pytest.raises(UserError, match="tfds:NAME"):
        load_dataset("tfds", data_dir=tiny)


def test_more_than_the_memory_limit(tiny: str) -> None:
    with pytest.raises(UserError, match=r"11 images.*--memory_limit=1e-06.*--image_size.*image_folder"):
        load_dataset("tfds:tiny", data_dir=tiny, image_size=32, memory_limit=1e-6)


def test_damaged_and_missing_files(tiny: str) -> None:
    path = pathlib.Path(tiny) / "tiny" / "1.0.0" / "tiny-train.tfrecord-00001-of-00002"
    contents = path.read_bytes()
    path.write_bytes(contents[:-10])
    with pytest.raises(UserError, match=r"damaged or incomplete"):
        load_dataset("tfds:tiny", data_dir=tiny)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"5 records.*promises 8"):
        load_dataset("tfds:tiny", data_dir=tiny)
    path.unlink()
    with pytest.raises(UserError, match=r"damaged or incomplete"):
        load_dataset("tfds:tiny", data_dir=tiny)


def shared_folder(name: str) -> str:
    """A folder with a prepared copy of a real dataset, or a skip."""
    beside = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "tfds"
    for folder in (os.environ.get("TFDS_DATA_DIR", ""), str(beside)):
        if os.path.isdir(os.path.join(folder, name)):
            return folder
    pytest.skip(f"no prepared {name} in TFDS_DATA_DIR")


def test_cifar10() -> None:
    folder = shared_folder("cifar10")
    dataset = load_dataset("cifar10", data_dir=folder)
    assert dataset.train.inputs.shape == (50000, 32, 32, 3)
    assert dataset.test.inputs.shape == (10000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), [5000] * 10)
    assert dataset.class_names[:2] == ("airplane", "automobile")
    assert dataset.flip
    import tensorflow_datasets as tfds

    few = tfds.load("cifar10", split="train[:20]", data_dir=folder, as_supervised=True, shuffle_files=False)
    for position, (image, label) in enumerate(few.as_numpy_iterator()):
        np.testing.assert_array_equal(dataset.train.inputs[position], image)
        assert dataset.train.labels[position] == label


def test_text_is_not_images() -> None:
    with pytest.raises(UserError, match="not made of images"):
        load_dataset("tfds:imdb_reviews", data_dir=shared_folder("imdb_reviews"))
