"""Weak augmentation against padding and cropping one image at a time with NumPy."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.augment.weak import weak_augment
from metassl_tf.errors import UserError

SEED = tf.constant([3, 4])
FLIP: dict[str, Any] = {"flip": True, "padding": 2, "padding_mode": "reflect", "fill": 128}


def make_images(count: int = 200, height: int = 9, width: int = 16, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels)).astype(np.uint8)


def possible_views(image: np.ndarray, padding: int, mode: str, fill: int, *, flip: bool) -> dict[tuple, np.ndarray]:
    """(flipped, down, right) -> the view of one image."""
    height, width, _ = image.shape
    views = {}
    for flipped in (False, True) if flip else (False,):
        start = image[:, ::-1] if flipped else image
        options = {"constant_values": fill} if mode == "constant" else {}
        padded = np.pad(start, [(padding, padding), (padding, padding), (0, 0)], mode, **options)
        for down in range(2 * padding + 1):
            for right in range(2 * padding + 1):
                views[flipped, down, right] = padded[down : down + height, right : right + width]
    return views


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize(("padding", "flip"), [(2, True), (1, False), (4, True)])
def test_every_view_is_a_padded_crop_and_all_occur(mode: str, padding: int, flip: bool, channels: int) -> None:
    image = make_images(1, channels=channels)[0]
    count = 3000
    batch = tf.constant(np.broadcast_to(image, (count, *image.shape)))
    result = weak_augment(batch, SEED, flip=flip, padding=padding, padding_mode=mode, fill=77).numpy()
    views = possible_views(image, padding, mode, 77, flip=flip)
    key_of = {view.tobytes(): key for key, view in views.items()}
    keys = [key_of[view.tobytes()] for view in result]  # raises KeyError for anything that is no such crop
    counts = np.array([keys.count(key) for key in views])
    assert counts.min() > 0
    np.testing.assert_allclose(counts / count, 1 / len(views), atol=5 * np.sqrt(1 / len(views) / count))


def test_fill_per_channel() -> None:
    images = make_images()
    fill = (125, 122, 113)
    result = weak_augment(tf.constant(images), SEED, flip=False, padding=3, padding_mode="constant", fill=fill).numpy()
    border = np.all(result[:, 0] == fill, axis=-1).mean()
    assert 0.3 < border < 0.7  # three shifts of seven read the first row from outside, and some columns besides


def test_no_flip_and_no_padding_change_nothing() -> None:
    images = make_images()
    for mode in ("reflect", "constant"):
        result = weak_augment(tf.constant(images), SEED, flip=False, padding=0, padding_mode=mode, fill=128)
        np.testing.assert_array_equal(result, images)


def test_a_function_of_images_and_seed() -> None:
    images = make_images()
    first = weak_augment(tf.constant(images), SEED, **FLIP)
    np.testing.assert_array_equal(first, weak_augment(tf.constant(images), SEED, **FLIP))
    assert np.any(first != weak_augment(tf.constant(images), tf.constant([3, 5]), **FLIP))
    for mode in ("reflect", "constant"):
        options = FLIP | {"padding_mode": mode}
        eager = weak_augment(tf.constant(images), SEED, **options)
        dataset = tf.data.Dataset.from_tensors(images)
        mapped = dataset.map(lambda batch, options=options: weak_augment(batch, SEED, **options))
        np.testing.assert_array_equal(eager, next(iter(mapped)))


def test_unknown_batch_and_image_size() -> None:
    images = make_images(5)
    signature = tf.TensorSpec([None, None, None, 3], tf.uint8)

    traced = tf.function(
        lambda batch: weak_augment(batch, SEED, **FLIP),
        input_signature=[signature],
        autograph=False,
    )
    np.testing.assert_array_equal(traced(images), weak_augment(tf.constant(images), SEED, **FLIP))
    assert weak_augment(tf.constant(images[:1]), SEED, **FLIP).shape == (1, 9, 16, 3)


@pytest.mark.parametrize(("padding", "mode"), [(9, "reflect"), (-1, "constant"), (1, "mirror")])
def test_impossible_padding_is_refused(padding: int, mode: str) -> None:
    with pytest.raises(UserError, match="Expected"):
        weak_augment(tf.constant(make_images(1)), SEED, flip=True, padding=padding, padding_mode=mode, fill=128)
