"""The pixel operations against Pillow, which the papers' code calls."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from metassl_tf.augment import image_ops
from metassl_tf.errors import UserError

PLAIN = {
    "autocontrast": (image_ops.autocontrast, ImageOps.autocontrast),
    "equalize": (image_ops.equalize, ImageOps.equalize),
    "invert": (image_ops.invert, ImageOps.invert),
}
FACTORS = [0.0, 0.1, 0.28, 0.5, 0.99, 1.0, 1.3, 1.9, 2.98]
BITS = [1, 2, 3, 4, 6, 7, 8]
THRESHOLDS = [0, 1, 26, 128, 153, 255, 256]
GRADED: dict[str, tuple[Callable, Callable, list]] = {
    "brightness": (image_ops.brightness, lambda image, value: ImageEnhance.Brightness(image).enhance(value), FACTORS),
    "color": (image_ops.color, lambda image, value: ImageEnhance.Color(image).enhance(value), FACTORS),
    "contrast": (image_ops.contrast, lambda image, value: ImageEnhance.Contrast(image).enhance(value), FACTORS),
    "sharpness": (image_ops.sharpness, lambda image, value: ImageEnhance.Sharpness(image).enhance(value), FACTORS),
    "posterize": (image_ops.posterize, ImageOps.posterize, BITS),
    "solarize": (image_ops.solarize, ImageOps.solarize, THRESHOLDS),
}
UNCHANGED = {"brightness": 1.0, "color": 1.0, "contrast": 1.0, "sharpness": 1.0, "posterize": 8, "solarize": 256}


def make_images(count: int, channels: int, height: int = 17, width: int = 23, seed: int = 0) -> np.ndarray:
    """Noise, a narrow range of levels, smooth ramps and flat images: what the operations' special cases are about."""
    generator = np.random.default_rng(seed)
    shape = (height, width, channels)
    rows, columns = np.mgrid[:height, :width]
    kinds = [
        lambda: generator.integers(0, 256, shape),
        lambda: generator.integers(70, 131, shape),
        lambda: np.stack([5 * rows + 3 * columns + 20 * channel for channel in range(channels)], axis=-1),
        lambda: np.broadcast_to(generator.integers(0, 256, channels), shape),
        lambda: generator.choice([10, 200], shape),
    ]
    return np.stack([kinds[index % len(kinds)]() for index in range(count)]).astype(np.uint8)


def through_pillow(function: Callable, images: np.ndarray, *arguments: object) -> np.ndarray:
    results = []
    for image in images:
        pillow = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        results.append(np.asarray(function(pillow, *arguments)).reshape(image.shape))
    return np.stack(results)


def in_tf_data(function: Callable, *tensors: object) -> np.ndarray:
    dataset = tf.data.Dataset.from_tensors(tensors).map(function, num_parallel_calls=2)
    return next(iter(dataset)).numpy()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_operations_equal_pillow(name: str, channels: int) -> None:
    ours, theirs = PLAIN[name]
    images = make_images(10, channels)
    np.testing.assert_array_equal(ours(tf.constant(images)), through_pillow(theirs, images))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", GRADED)
def test_graded_operations_equal_pillow(name: str, channels: int) -> None:
    ours, theirs, values = GRADED[name]
    for value in values:
        images = make_images(10, channels)
        result = ours(tf.constant(images), tf.constant([value] * 10))
        np.testing.assert_array_equal(result, through_pillow(theirs, images, value), err_msg=f"{name} {value}")


@pytest.mark.parametrize("name", GRADED)
def test_every_image_has_its_own_strength(name: str) -> None:
    ours, theirs, values = GRADED[name]
    images = make_images(len(values), 3)
    expected = [
        through_pillow(theirs, image[np.newaxis], value)[0] for image, value in zip(images, values, strict=True)
    ]
    np.testing.assert_array_equal(ours(tf.constant(images), tf.constant(values)), np.stack(expected))


@pytest.mark.parametrize("name", UNCHANGED)
def test_identity_levels_change_nothing(name: str) -> None:
    images = make_images(5, 3)
    np.testing.assert_array_equal(GRADED[name][0](tf.constant(images), tf.constant([UNCHANGED[name]] * 5)), images)


def test_color_leaves_grey_images_as_they_are() -> None:
    images = make_images(5, 1)
    np.testing.assert_array_equal(image_ops.color(tf.constant(images), tf.fill([5], 0.1)), images)


def test_sample_pairing_equals_pillows_blend() -> None:
    images, partners = make_images(5, 3), make_images(5, 3, seed=1)[::-1]
    weights = [0.0, 0.1, 0.25, 0.4, 1.0]
    pairs = zip(images, partners, weights, strict=True)
    expected = [np.asarray(Image.blend(Image.fromarray(a), Image.fromarray(b), weight)) for a, b, weight in pairs]
    result = image_ops.sample_pairing(tf.constant(images), tf.constant(partners), tf.constant(weights))
    np.testing.assert_array_equal(result, np.stack(expected))
    np.testing.assert_array_equal(result[0], images[0])
    np.testing.assert_array_equal(result[4], partners[4])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [*PLAIN, *GRADED])
def test_eager_equals_tf_data_and_an_empty_batch_is_fine(name: str, channels: int) -> None:
    images = make_images(5, channels)
    values = [] if name in PLAIN else [tf.constant(GRADED[name][2][:5])]
    function = PLAIN[name][0] if name in PLAIN else GRADED[name][0]
    np.testing.assert_array_equal(function(tf.constant(images), *values), in_tf_data(function, images, *values))
    assert function(tf.constant(images[:0]), *[value[:0] for value in values]).shape == (0, *images.shape[1:])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros([2, 8, 8, 3], np.float32),
        np.zeros([8, 8, 3], np.uint8),
        np.zeros([2, 8, 8, 4], np.uint8),
    ],
)
def test_wrong_images_are_refused(images: np.ndarray) -> None:
    with pytest.raises(UserError, match="Expected uint8"):
        image_ops.check_images(images)


@pytest.mark.parametrize(("fill", "channels"), [(256, 3), (-1, 1), ([1, 2], 3), ([1, 2, 3], 1)])
def test_wrong_fill_is_refused(fill: int | list[int], channels: int) -> None:
    with pytest.raises(UserError, match="fill="):
        image_ops.fill_levels(fill, channels)
