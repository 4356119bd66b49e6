"""Rotation, shear and translation against Pillow."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from metassl_tf.augment.geometry import affine_maps, affine_transform

PARAMETERS = ("degrees", "shear_x", "shear_y", "translate_x", "translate_y")


def make_images(count: int, height: int = 21, width: int = 32, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels)).astype(np.uint8)


def maps_of(images: np.ndarray, *, centered_shear: bool = False, **values: list[float]) -> tf.Tensor:
    zeros = [0.0] * len(images)
    parameters = {name: tf.constant(values.get(name, zeros), tf.float32) for name in PARAMETERS}
    height, width = images.shape[1:3]
    return affine_maps(**parameters, height=height, width=width, centered_shear=centered_shear)


def pillow_affine(image: np.ndarray, coefficients: tuple, resample: int, fill: tuple) -> np.ndarray:
    size = (image.shape[1], image.shape[0])
    return np.asarray(Image.fromarray(image).transform(size, Image.AFFINE, coefficients, resample, fillcolor=fill))


# Pillow computes source points in 16-bit fixed point, TensorFlow in float32: where a source point lies on the border
# of two pixels they may take different ones.
MOST = 0.995


@pytest.mark.parametrize("fill", [(0, 0, 0), (125, 122, 113)])
def test_rotation_equals_pillow(fill: tuple) -> None:
    # Not 90: with an even and an odd side every source point lies on a border of pixels.
    degrees = [-48.0, -27.0, -3.0, 3.0, 12.0, 30.0, 45.0, 180.0]
    images = make_images(len(degrees))
    result = affine_transform(tf.constant(images), maps_of(images, degrees=degrees), fill=fill).numpy()
    for image, angle, ours in zip(images, degrees, result, strict=True):
        theirs = np.asarray(Image.fromarray(image).rotate(angle, fillcolor=fill))
        assert np.mean(np.all(ours == theirs, axis=-1)) > MOST, angle


def test_quarter_turn_of_a_square_is_exact() -> None:
    images = make_images(2, height=8, width=8)
    result = affine_transform(tf.constant(images), maps_of(images, degrees=[90.0, -90.0]), fill=0)
    np.testing.assert_array_equal(result, [np.rot90(images[0]), np.rot90(images[1], -1)])


@pytest.mark.parametrize("value", [-0.48, -0.27, 0.03, 0.3])
def test_shears_equal_pillow(value: float) -> None:
    images, fill = make_images(2), (1, 2, 3)
    maps = maps_of(images, shear_x=[value, 0.0], shear_y=[0.0, value])
    result = affine_transform(tf.constant(images), maps, fill=fill).numpy()
    for index, coefficients in enumerate([(1, value, 0, 0, 1, 0), (1, 0, 0, value, 1, 0)]):
        theirs = pillow_affine(images[index], coefficients, Image.NEAREST, fill)
        assert np.mean(np.all(result[index] == theirs, axis=-1)) > MOST


@pytest.mark.parametrize("value", [-9, -1, 1, 6, 40])
def test_whole_pixel_translations_equal_pillow_exactly(value: int) -> None:
    images, fill = make_images(2), (1, 2, 3)
    maps = maps_of(images, translate_x=[float(value), 0.0], translate_y=[0.0, float(value)])
    result = affine_transform(tf.constant(images), maps, fill=fill).numpy()
    for index, coefficients in enumerate([(1, 0, value, 0, 1, 0), (1, 0, 0, 0, 1, value)]):
        np.testing.assert_array_equal(result[index], pillow_affine(images[index], coefficients, Image.NEAREST, fill))


def test_bilinear_equals_pillow_inside() -> None:
    images = make_images(2)
    maps = maps_of(images, degrees=[20.0, 0.0], translate_x=[0.0, 0.25])
    result = affine_transform(tf.constant(images), maps, fill=0, interpolation="bilinear").numpy().astype(int)
    rotated = np.asarray(Image.fromarray(images[0]).rotate(20.0, resample=Image.BILINEAR)).astype(int)
    moved = pillow_affine(images[1], (1, 0, 0.25, 0, 1, 0), Image.BILINEAR, (0, 0, 0)).astype(int)
    # Pillow truncates where we round, and repeats the border where we blend with the fill.
    inside = (slice(6, -6), slice(9, -9))
    assert np.abs(result[0] - rotated)[inside].max() <= 1
    assert np.abs(result[1] - moved)[:, 1:-1].max() <= 1


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("channels", [1, 3])
def test_zeros_change_nothing(interpolation: str, channels: int) -> None:
    images = make_images(3, channels=channels)
    result = affine_transform(tf.constant(images), maps_of(images), fill=7, interpolation=interpolation)
    np.testing.assert_array_equal(result, images)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize(("fill", "channels"), [(9, 1), (9, 3), ((1, 200, 30), 3)])
def test_fill_is_what_lies_outside(fill: int | tuple, channels: int, interpolation: str) -> None:
    images = make_images(1, channels=channels)
    maps = maps_of(images, translate_x=[5.0])
    result = affine_transform(tf.constant(images), maps, fill=fill, interpolation=interpolation).numpy()
    np.testing.assert_array_equal(result[:, :, :-5], images[:, :, 5:])
    np.testing.assert_array_equal(result[:, :, -5:], np.broadcast_to(fill, (1, 21, 5, channels)))


def test_grey_and_color_images_move_alike() -> None:
    grey = make_images(4, channels=1)
    maps = maps_of(grey, degrees=[10.0, 0.0, 0.0, 0.0], shear_x=[0.0, 0.2, 0.0, 0.0], translate_y=[0.0, 0.0, 3.0, 0.4])
    moved = affine_transform(tf.constant(grey), maps, fill=50).numpy()
    moved_color = affine_transform(tf.repeat(grey, 3, axis=-1), maps, fill=50).numpy()
    np.testing.assert_array_equal(moved_color, np.repeat(moved, 3, axis=-1))


def test_centered_shear_keeps_the_middle_row_in_place() -> None:
    images = make_images(1)
    sheared = affine_transform(tf.constant(images), maps_of(images, centered_shear=True, shear_x=[0.3]), fill=0).numpy()
    np.testing.assert_array_equal(sheared[0, 10], images[0, 10])
    corner = affine_transform(tf.constant(images), maps_of(images, shear_x=[0.3]), fill=0).numpy()
    np.testing.assert_array_equal(corner[0, 0], images[0, 0])
    assert np.any(corner[0, 10] != images[0, 10])


def test_parameters_compose_as_stated() -> None:
    """One map of all parameters is the matrix product rotation x shear x translation."""
    values = {"degrees": 20.0, "shear_x": 0.2, "shear_y": -0.1, "translate_x": 2.0, "translate_y": -3.0}
    images = make_images(1)

    def matrix(**chosen: float) -> np.ndarray:
        row = maps_of(images, **{name: [value] for name, value in chosen.items()}).numpy()[0]
        return np.vstack([row.reshape(2, 3), [0.0, 0.0, 1.0]])

    rotation = matrix(degrees=values["degrees"])
    shear = matrix(shear_x=values["shear_x"], shear_y=values["shear_y"])
    translation = matrix(translate_x=values["translate_x"], translate_y=values["translate_y"])
    combined = translation @ shear
    np.testing.assert_allclose(
        matrix(shear_x=0.2, shear_y=-0.1, translate_x=2.0, translate_y=-3.0), combined, atol=1e-5
    )
    np.testing.assert_allclose(matrix(**values), rotation @ combined, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_eager_equals_tf_data_and_an_empty_batch_is_fine(interpolation: str) -> None:
    images = make_images(3)
    maps = maps_of(images, degrees=[5.0, 0.0, -20.0], shear_y=[0.0, 0.2, 0.0])

    def move(batch: tf.Tensor, each: tf.Tensor) -> tf.Tensor:
        return affine_transform(batch, each, fill=(1, 2, 3), interpolation=interpolation)

    mapped = next(iter(tf.data.Dataset.from_tensors((images, maps)).map(move)))
    np.testing.assert_array_equal(mapped, move(tf.constant(images), maps))
    assert move(tf.constant(images[:0]), maps[:0]).shape == (0, 21, 32, 3)
