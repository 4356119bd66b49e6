import logging
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.data import overlap
from metassl_tf.data.examples import Dataset, Examples
from metassl_tf.data.overlap import occurs_in
from metassl_tf.data.sources import load_dataset, load_unlabeled
from metassl_tf.data.splits import make_split, split_examples
from tests.terminal import Terminal

Write = Callable[..., list[pathlib.Path]]
# GiB into which everything fits, and nothing.
MEMORY, FILES = 4.0, 1e-9


def in_memory(values: list[int]) -> Examples:
    inputs = np.array(values, np.uint8)[:, np.newaxis, np.newaxis, np.newaxis] * np.ones((1, 2, 2, 1), np.uint8)
    return Examples(inputs, np.full(len(values), -1), (2, 2, 1))


def streamed(folder: pathlib.Path, values: list[int], *, compression: int = -1) -> Examples:
    """The same images as files."""
    folder.mkdir()
    paths = [folder / f"{place}.png" for place in range(len(values))]
    for path, pixels in zip(paths, in_memory(values).inputs, strict=True):
        path.write_bytes(tf.io.encode_png(pixels, compression).numpy())
    return Examples(np.array([str(path) for path in paths], np.str_), np.full(len(values), -1), (2, 2, 1))


@pytest.fixture(params=[1, 2, 1024])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many files are read at once."""
    monkeypatch.setattr(overlap, "_LARGEST_CHUNK", request.param)
    return request.param


def test_equal_images_are_found_in_any_list() -> None:
    found = occurs_in(in_memory([1, 2, 3, 2, 5]), [in_memory([2, 9]), in_memory([]), in_memory([5])])
    assert found.tolist() == [False, True, False, True, True]


def test_empty_lists(tmp_path: pathlib.Path) -> None:
    assert occurs_in(in_memory([]), [in_memory([1])]).tolist() == []
    assert occurs_in(in_memory([1]), []).tolist() == [False]
    nothing = streamed(tmp_path / "nothing", [])
    assert occurs_in(nothing, [in_memory([1])]).tolist() == []
    assert occurs_in(in_memory([1]), [nothing]).tolist() == [False]


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("files", ["pool", "others", "both"])
def test_files_are_compared_as_the_same_images_in_memory_are(tmp_path: pathlib.Path, files: str) -> None:
    values = [1, 2, 3, 2, 5]
    pool = in_memory(values) if files == "others" else streamed(tmp_path / "pool", values)
    others = in_memory([2, 9]) if files == "pool" else streamed(tmp_path / "others", [2, 9], compression=0)
    assert occurs_in(pool, [others, in_memory([5])]).tolist() == [False, True, False, True, True]


def test_files_with_equal_pixels_differ_else_in_the_test_above(tmp_path: pathlib.Path) -> None:
    paths = [str(streamed(tmp_path / f"{rate}", [2], compression=rate).inputs[0]) for rate in (-1, 0)]
    assert pathlib.Path(paths[0]).read_bytes() != pathlib.Path(paths[1]).read_bytes()


@pytest.mark.usefixtures("chunk")
def test_files_that_are_gone_or_damaged_take_no_others_with_them(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool, test = streamed(tmp_path / "pool", [1, 2, 3, 2, 5]), streamed(tmp_path / "test", [2, 3, 5])
    gone, damaged, test_gone = pool.inputs[1], pool.inputs[4], test.inputs[1]
    pathlib.Path(gone).unlink()
    pathlib.Path(damaged).write_bytes(b"?")
    pathlib.Path(test_gone).unlink()
    assert occurs_in(pool, [test]).tolist() == [False, False, False, True, False]
    assert caplog.messages == [
        f"1 of 3 files cannot be read any more, such as {test_gone}. Copies among them are not found.",
        f"2 of 5 files cannot be read any more, such as {gone}. Copies among them are not found.",
    ]


def test_progress_is_shown_where_files_are_read(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    occurs_in(in_memory([1, 2]), [in_memory([2])])
    assert terminal.getvalue() == ""
    occurs_in(streamed(tmp_path / "pool", [1, 2, 3]), [in_memory([2]), streamed(tmp_path / "test", [4, 5])])
    last = terminal.getvalue().rstrip("\n").rpartition("\r")[2]
    assert last.startswith("looking for copies: 100%")
    assert " 5/5 " in last


def pets_with_pool(folder: pathlib.Path, pool: pathlib.Path, *, limit: float, pool_limit: float) -> Dataset:
    """The pets, shrunk, with a folder of unlabeled images; each in memory or streamed."""
    pets = load_dataset("image_folder", data_dir=str(folder), image_size=5, memory_limit=limit)
    return load_unlabeled(f"image_folder:{pool}", pets, memory_limit=pool_limit)


@pytest.fixture
def pool_with_copies(folder: pathlib.Path, tmp_path: pathlib.Path, write_images: Write) -> pathlib.Path:
    """Seven strangers, and by name behind the fifth of them two images that are tested on and one that validates."""
    pool = tmp_path / "pool"
    write_images(pool, 7, seed=100)
    for number, name in enumerate(["test/cat/001.png", "validation/dog/000.png", "test/dog/000.png"]):
        shutil.copy(folder / name, pool / f"004 {number}.png")
    return pool


@pytest.mark.parametrize(("limit", "pool_limit"), [(MEMORY, FILES), (FILES, MEMORY), (FILES, FILES)])
def test_split_is_the_same_wherever_the_examples_are(
    folder: pathlib.Path,
    pool_with_copies: pathlib.Path,
    limit: float,
    pool_limit: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings: dict[str, Any] = {"num_labeled": 4, "labeled_in_unlabeled": False}
    expected = make_split(pets_with_pool(folder, pool_with_copies, limit=MEMORY, pool_limit=MEMORY), **settings)
    caplog.clear()
    data = pets_with_pool(folder, pool_with_copies, limit=limit, pool_limit=pool_limit)
    split = make_split(data, **settings)
    assert data.unlabeled is not None
    assert (data.test.streamed, data.unlabeled.streamed) == (limit == FILES, pool_limit == FILES)
    assert split.hash == expected.hash
    # Nine pets come first; "004 0.png" and its like are sorted before "004.png".
    assert split.unlabeled.tolist() == [9, 10, 11, 12, 16, 17, 18]
    assert split_examples(data, split).unlabeled.names.tolist() == [f"00{number}.png" for number in range(7)]
    assert "3 unlabeled examples are left out" in caplog.text


def test_streamed_pool_without_copies_stays_whole(
    folder: pathlib.Path, tmp_path: pathlib.Path, write_images: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "pool", 7, seed=100)
    data = pets_with_pool(folder, tmp_path / "pool", limit=MEMORY, pool_limit=FILES)
    with caplog.at_level(logging.WARNING):
        split = make_split(data, num_labeled=0, labeled_in_unlabeled=False)
    assert split.unlabeled.tolist() == list(range(9, 16))
    assert caplog.messages == []
