import pathlib
import shutil
from collections.abc import Callable

import numpy as np

from metassl_tf.data.examples import Examples
from metassl_tf.data.overlap import occurs_in


def in_memory(values: list[int]) -> Examples:
    inputs = np.array(values, np.uint8)[:, np.newaxis, np.newaxis, np.newaxis] * np.ones((1, 2, 2, 1), np.uint8)
    return Examples(inputs, np.full(len(values), -1), (2, 2, 1))


def streamed(paths: list[pathlib.Path]) -> Examples:
    return Examples(np.array([str(path) for path in paths]), np.full(len(paths), -1), (2, 2, 1))


def test_equal_images_are_found_in_any_list() -> None:
    found = occurs_in(in_memory([1, 2, 3, 2, 5]), [in_memory([2, 9]), in_memory([]), in_memory([5])])
    assert found.tolist() == [False, True, False, True, True]


def test_empty_lists() -> None:
    assert occurs_in(in_memory([]), [in_memory([1])]).tolist() == []
    assert occurs_in(in_memory([1]), []).tolist() == [False]


def test_files_are_compared_by_contents(
    tmp_path: pathlib.Path, write_images: Callable[..., list[pathlib.Path]]
) -> None:
    pool = write_images(tmp_path / "pool", 3)
    others = write_images(tmp_path / "test", 2, seed=1)
    shutil.copy(pool[1], tmp_path / "test" / "copy.png")
    same_size = tmp_path / "test" / "same_size.png"
    same_size.write_bytes(b"?" * pool[2].stat().st_size)
    found = occurs_in(streamed(pool), [streamed([*others, tmp_path / "test" / "copy.png", same_size])])
    assert found.tolist() == [False, True, False]


def test_files_are_not_compared_with_arrays(
    tmp_path: pathlib.Path, write_images: Callable[..., list[pathlib.Path]]
) -> None:
    assert not occurs_in(streamed(write_images(tmp_path, 2)), [in_memory([1])]).any()
