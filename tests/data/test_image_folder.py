import logging
import os
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.data.images import decode_image
from metassl_tf.data.sources import load_dataset, load_unlabeled
from metassl_tf.errors import UserError

Write = Callable[..., list[pathlib.Path]]


def load(folder: pathlib.Path, **options: Any) -> Any:
    return load_dataset("image_folder", data_dir=str(folder), **options)


def test_every_part_is_found(folder: pathlib.Path) -> None:
    dataset = load(folder)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0] * 5 + [1] * 4
    assert dataset.train.shape == (8, 8, 3)
    assert dataset.train.names[[0, 8]].tolist() == ["labeled/cat/000.png", "labeled/dog/003.png"]
    assert dataset.validation.labels.tolist() == [0, 0, 1, 1]
    assert dataset.test.labels.tolist() == [0, 0, 0, 1]
    assert (dataset.flip, dataset.modality, dataset.ordered) == (False, "image", False)
    for examples in (dataset.train, dataset.unlabeled, dataset.validation, dataset.test):
        for pixels, name in zip(examples.inputs, examples.names, strict=True):
            np.testing.assert_array_equal(pixels, decode_image(tf.io.read_file(str(folder / name)), (8, 8, 3)))


def test_a_misspelt_part_is_refused_and_others_are_named(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "unlabeled_old").mkdir()
    (folder / "raw").mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(load(folder).unlabeled) == 6
    assert re.search(r"Folders in .* are ignored: raw, unlabeled_old\. Expected: labeled, unlabeled, weak", caplog.text)
    (folder / "unlabeled").rename(folder / "Unlabelled")
    with pytest.raises(UserError, match=r"a folder 'Unlabelled', .* Expected only: .* Did you mean 'unlabeled'\? Rena"):
        load(folder)


def test_a_class_folder_below_unlabeled_is_known_for_measuring(folder: pathlib.Path) -> None:
    pool = load(folder).unlabeled
    assert pool.labels.tolist() == [-1] * 4 + [1] * 2
    assert pool.names[-1] == "unlabeled/dog/deeper/001.png"


def test_weak_labels_are_given_and_not_taken_for_the_truth(folder: pathlib.Path, write_images: Write) -> None:
    assert not load(folder).unlabeled.columns
    write_images(folder / "weak" / "dog" / "deeper", 3, seed=9)
    write_images(folder / "weak" / "cat", 2, seed=10)
    damaged = folder / "weak" / "cat" / "000.png"
    damaged.write_bytes(b"")
    for dataset in (load(folder), load(folder, memory_limit=1e-9)):
        assert dataset.unlabeled.labels.tolist() == [-1] * 4 + [1] * 2 + [-1] * 4
        assert dataset.unlabeled.columns["given_label"].tolist() == [-1] * 6 + [0] + [1] * 3
        assert not dataset.train.columns


def test_weak_images_of_no_known_class_have_no_given_label(
    folder: pathlib.Path, write_images: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(folder / "weak" / "dogs", 2, seed=9)
    with caplog.at_level(logging.WARNING):
        assert not load(folder).unlabeled.columns
    assert re.search(r"2 images in .*/weak have no given label, .*'dogs', .*labeled/\. Did you mean 'dog'", caplog.text)
    write_images(folder / "weak" / "dog", 1, seed=10)
    assert load(folder).unlabeled.columns["given_label"].tolist() == [-1] * 6 + [1] + [-1] * 2


@pytest.mark.parametrize("parts", [("labeled", "weak"), ("weak",)])
def test_a_pool_of_another_folder_brings_its_given_labels(
    folder: pathlib.Path, tmp_path: pathlib.Path, write_images: Write, parts: tuple[str, ...]
) -> None:
    names = ("cat", "dog") if len(parts) == 1 else ("ant", "cat", "dog")
    for part in parts:
        for seed, name in enumerate(names):
            write_images(tmp_path / "other" / part / name, 2, seed=20 + seed)
    pool = load_unlabeled(f"image_folder:{tmp_path / 'other'}", load(folder)).unlabeled
    assert pool is not None
    expected = [0, 0, 1, 1] if len(parts) == 1 else [-1] * 6  # of other classes, nothing is known
    assert pool.columns["given_label"].tolist() == expected
    assert (pool.labels == -1).all()


def test_without_a_pool_of_its_own_there_is_none(folder: pathlib.Path) -> None:
    shutil.rmtree(folder / "unlabeled")
    assert load(folder).unlabeled is None


def test_the_folder_may_follow_a_colon(folder: pathlib.Path) -> None:
    assert len(load_dataset(f"image_folder:{folder}").train) == 9


def test_the_most_common_size_is_the_default(tmp_path: pathlib.Path, write_images: Write) -> None:
    write_images(tmp_path / "labeled" / "a", 3, size=(20, 12))
    write_images(tmp_path / "labeled" / "b", 2, size=(9, 9))
    assert load(tmp_path).train.shape == (20, 20, 3)
    write_images(tmp_path / "labeled" / "b", 4, size=(50, 70))
    assert load(tmp_path).train.shape == (32, 32, 3)
    assert load(tmp_path, image_size=48).train.inputs.shape == (7, 48, 48, 3)


def test_grey_images_stay_grey(tmp_path: pathlib.Path, write_images: Write) -> None:
    for name in "ab":
        write_images(tmp_path / "labeled" / name, 2, channels=1)
    assert load(tmp_path).train.shape == (8, 8, 1)
    assert load(tmp_path, channels=3).train.shape == (8, 8, 3)


@pytest.mark.parametrize("part", ["labeled/cat", "unlabeled", "test/dog"])
def test_mixed_channels_are_an_error_unless_converted(folder: pathlib.Path, write_images: Write, part: str) -> None:
    (grey,) = write_images(folder / part / "grey", 1, channels=1)
    with pytest.raises(UserError, match=rf"1 are grey, such as {grey.relative_to(folder)}.*--channels=1"):
        load(folder)
    for channels in (1, 3):
        assert load(folder, channels=channels).train.shape == (8, 8, channels)


def test_two_channels_do_not_exist(folder: pathlib.Path) -> None:
    with pytest.raises(UserError, match="--channels=2"):
        load(folder, channels=2)


def test_large_sets_are_streamed_by_path(folder: pathlib.Path) -> None:
    in_memory, streamed = load(folder), load(folder, memory_limit=1e-9)
    for part in ("train", "unlabeled", "validation", "test"):
        decoded, files = getattr(in_memory, part), getattr(streamed, part)
        assert files.streamed
        assert not decoded.streamed
        assert files.shape == decoded.shape
        assert files.names.tolist() == decoded.names.tolist()
        assert files.labels.tolist() == decoded.labels.tolist()
        for path, pixels in zip(files.inputs, decoded.inputs, strict=True):
            np.testing.assert_array_equal(decode_image(tf.io.read_file(path), files.shape), pixels)


@pytest.mark.parametrize("memory_limit", [4.0, 1e-9])
def test_unreadable_images_are_named_and_skipped(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture, memory_limit: float
) -> None:
    whole = load(folder)
    damaged = [folder / "labeled/cat/002.png", folder / "unlabeled/003.png", folder / "test/dog/000.png"]
    damaged[0].write_bytes(b"")
    damaged[1].write_bytes(damaged[1].read_bytes()[:-20])
    damaged[2].write_text("not an image")
    with caplog.at_level(logging.WARNING):
        dataset = load(folder, memory_limit=memory_limit)
    assert "3 of 23 images" in caplog.text
    for path in damaged:
        assert str(path.relative_to(folder)) in caplog.text
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4
    assert dataset.test.labels.tolist() == [0, 0, 0]
    assert len(dataset.unlabeled) == 5
    if memory_limit == 4.0:
        np.testing.assert_array_equal(dataset.train.inputs[2:], whole.train.inputs[3:])
        np.testing.assert_array_equal(dataset.unlabeled.inputs[:3], whole.unlabeled.inputs[:3])
    with pytest.raises(UserError, match=r"labeled/cat/002\.png.*--nostrict_data"):
        load(folder, strict_data=True)


def test_many_unreadable_images_are_counted(folder: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(7):
        (folder / "unlabeled" / f"bad{number}.jpg").touch()
    with caplog.at_level(logging.WARNING):
        load(folder)
    assert "bad4.jpg and 2 more" in caplog.text


def test_a_class_without_readable_images(folder: pathlib.Path) -> None:
    for path in (folder / "labeled" / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"labeled/dog holds no readable image"):
        load(folder)


def test_an_empty_class_folder(folder: pathlib.Path) -> None:
    (folder / "labeled" / "fish").mkdir()
    with pytest.raises(UserError, match=r"labeled/fish holds no readable image"):
        load(folder)


def test_one_class_only(folder: pathlib.Path) -> None:
    shutil.rmtree(folder / "labeled" / "dog")
    with pytest.raises(UserError, match=r"1 class folders \(cat\)"):
        load(folder)


def test_an_empty_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "labeled").mkdir()
    with pytest.raises(UserError, match="0 class folders"):
        load(tmp_path)


def test_class_folders_without_labeled(tmp_path: pathlib.Path, write_images: Write) -> None:
    write_images(tmp_path / "cat", 1)
    with pytest.raises(UserError, match=r"no folder named labeled; it has cat.*move them into"):
        load(tmp_path)


def test_a_missing_folder(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"There is no folder .*--data_dir"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="--data_dir"):
        load_dataset("image_folder")


def test_an_unknown_class_is_named_with_the_near_match(folder: pathlib.Path) -> None:
    (folder / "test" / "dogs").mkdir()
    with pytest.raises(UserError, match=r"'dogs'.*Did you mean 'dog'"):
        load(folder)


def test_without_test_images_a_warning_and_none_are_taken(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(folder / "test")
    with caplog.at_level(logging.WARNING):
        dataset = load(folder)
    assert "no test accuracy" in caplog.text
    assert len(dataset.test) == 0
    assert len(dataset.train) == 9


def test_hidden_and_other_files_are_ignored(
    folder: pathlib.Path, write_images: Write, caplog: pytest.LogCaptureFixture
) -> None:
    before = load(folder).unlabeled.names.tolist()
    write_images(folder / "unlabeled" / ".cache", 2)
    write_images(folder / "labeled" / ".hidden", 1)
    (folder / "unlabeled" / ".DS_Store").touch()
    (folder / "unlabeled" / "notes.txt").touch()
    shutil.copy(folder / "labeled/cat/000.png", folder / "labeled" / "loose.png")
    with caplog.at_level(logging.WARNING):
        dataset = load(folder)
    assert dataset.unlabeled.names.tolist() == before
    assert "1 files" in caplog.text
    assert ".txt (1)" in caplog.text
    assert "loose.png" in caplog.text
    assert ".DS_Store" not in caplog.text


def test_endings_in_capitals_and_jpeg(folder: pathlib.Path, write_images: Write) -> None:
    for path in write_images(folder / "unlabeled", 2, seed=8, ending="jpg"):
        path.rename(path.with_suffix(".JPG"))
    assert len(load(folder).unlabeled) == 8


def test_links_are_followed_and_loops_end(folder: pathlib.Path, write_images: Write, tmp_path: pathlib.Path) -> None:
    write_images(tmp_path / "elsewhere", 3, seed=8)
    os.symlink(tmp_path / "elsewhere", folder / "unlabeled" / "link")
    os.symlink(folder / "unlabeled", folder / "unlabeled" / "loop")
    assert len(load(folder).unlabeled) == 9


def test_the_order_does_not_depend_on_the_directory(folder: pathlib.Path) -> None:
    names = load(folder).unlabeled.names.tolist()
    copy = folder / "unlabeled" / "000.png"
    contents = copy.read_bytes()
    copy.unlink()
    copy.write_bytes(contents)  # now the newest entry
    assert load(folder).unlabeled.names.tolist() == names
    assert names == sorted(names)


def test_a_name_that_is_not_utf8_is_ignored(folder: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(folder / "unlabeled" / "000.png", os.fsencode(folder / "unlabeled") + b"/\xff.png")
    with caplog.at_level(logging.WARNING):
        assert len(load(folder).unlabeled) == 6
    assert "not UTF-8 (1)" in caplog.text
