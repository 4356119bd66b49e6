"""Cutout: where the box lies, how large it is, what it is filled with."""

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.augment.cutout import cut_boxes


def reference(image: np.ndarray, row: int, column: int, size: int, fill: object) -> np.ndarray:
    """The released codes' box: from centre - size // 2 to centre + size // 2 for even sizes, clipped at the border."""
    result = image.copy()
    top, left = row - size // 2, column - size // 2
    result[max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)] = fill
    return result


@pytest.mark.parametrize(("channels", "fill"), [(1, 0), (3, 128), (3, (125, 122, 113))])
def test_boxes_equal_a_loop_over_images(channels: int, fill: int | tuple) -> None:
    generator = np.random.default_rng(0)
    height, width, count = 12, 20, 40
    images = generator.integers(0, 256, (count, height, width, channels)).astype(np.uint8)
    rows, columns = generator.integers(0, height, count), generator.integers(0, width, count)
    sizes = generator.integers(0, 9, count)
    expected = [
        reference(image, row, column, size, fill)
        for image, row, column, size in zip(images, rows, columns, sizes, strict=True)
    ]
    fractions = (tf.constant((rows + 0.5) / height, tf.float32), tf.constant((columns + 0.5) / width, tf.float32))
    result = cut_boxes(tf.constant(images), *fractions, tf.constant(sizes, tf.int32), fill=fill)
    np.testing.assert_array_equal(result, np.stack(expected))


def test_boxes_are_clipped() -> None:
    images = tf.fill([4000, 8, 8, 1], tf.constant(255, tf.uint8))
    centers = tf.random.stateless_uniform([4000, 2], [1, 2])
    painted = cut_boxes(images, centers[:, 0], centers[:, 1], tf.fill([4000], 4), fill=0).numpy() == 0
    areas = painted.sum(axis=(1, 2, 3))
    assert areas.max() == 16
    assert areas.min() == 4  # a box centred on pixel (0, 0) keeps two of its four rows and columns
    # A row is painted by the boxes whose centre lies in four rows around it, of which fewer exist at the border.
    centres = np.array([sum(0 <= row - offset < 8 for offset in (-2, -1, 0, 1)) for row in range(8)])
    np.testing.assert_allclose(painted.mean(axis=0)[..., 0], np.outer(centres, centres) / 64, atol=0.03)


def test_boxes_are_the_same_inside_tf_data() -> None:
    images = np.full([16, 8, 8, 3], 255, np.uint8)
    rows, columns = tf.random.stateless_uniform([2, 16], [1, 2])
    sizes = tf.constant([0, 3] * 8)
    first = cut_boxes(tf.constant(images), rows, columns, sizes, fill=128)
    mapped = tf.data.Dataset.from_tensors(images).map(lambda batch: cut_boxes(batch, rows, columns, sizes, fill=128))
    np.testing.assert_array_equal(first, next(iter(mapped)))
    np.testing.assert_array_equal(first[::2], images[::2])
    assert set(np.unique(first)) == {128, 255}
