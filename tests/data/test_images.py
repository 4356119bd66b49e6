import io
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from metassl_tf.data.images import (
    color_channels,
    common_shape,
    convert_image,
    decode_any,
    decode_image,
    decode_many,
    resize_images,
)

RANDOM = np.random.RandomState(0)
NOISE = RANDOM.randint(0, 256, (6, 5, 4), np.uint8)
SMOOTH = np.array(Image.fromarray(NOISE[:3, :3, :3]).resize((40, 48), Image.Resampling.BICUBIC))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    contents = io.BytesIO()
    image.save(contents, kind, **options)
    return contents.getvalue()


def eagerly(contents: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    return decode_image(tf.constant(contents), shape).numpy()


def in_dataset(contents: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    dataset = tf.data.Dataset.from_tensors(contents).map(lambda element: decode_image(element, shape))
    assert dataset.element_spec == tf.TensorSpec(shape, tf.uint8)
    return next(dataset.as_numpy_iterator())


Decode = Callable[[bytes, tuple[int, int, int]], np.ndarray]


@pytest.fixture(params=[eagerly, in_dataset])
def decode(request: pytest.FixtureRequest) -> Decode:
    return request.param


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_lossless_formats_are_returned_as_they_are(decode: Decode, kind: str) -> None:
    # Few colors, because a GIF has a palette.
    pixels = NOISE[..., :3] // 128 * 255
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(pixels), kind), (6, 5, 3)), pixels)


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_other_formats_are_close(decode: Decode, kind: str, options: dict[str, Any]) -> None:
    decoded = decode(encoded(Image.fromarray(SMOOTH), kind, **options), SMOOTH.shape)
    assert np.abs(decoded.astype(int) - SMOOTH).mean() < 2


def test_cmyk_jpeg_becomes_rgb(decode: Decode) -> None:
    decoded = decode(encoded(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=95), SMOOTH.shape)
    assert np.abs(decoded.astype(int) - SMOOTH).mean() < 4


def test_animated_gif_gives_its_first_frame(decode: Decode) -> None:
    first = Image.fromarray(NOISE[..., :3] // 128 * 255)
    animation = encoded(first, "GIF", save_all=True, append_images=[Image.new("RGB", first.size)])
    np.testing.assert_array_equal(decode(animation, (6, 5, 3)), np.array(first))


def test_16_bit_png_keeps_its_high_byte(decode: Decode) -> None:
    values = NOISE[..., 0].astype(np.uint16) * 256 + NOISE[..., 1]
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(values), "PNG"), (6, 5, 1)), NOISE[..., :1])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(decode: Decode, mode: str) -> None:
    pixels = NOISE if mode == "RGBA" else NOISE[..., :2]
    decoded = decode(encoded(Image.fromarray(pixels, mode), "PNG"), (6, 5, 3))
    alpha = pixels[..., -1:] / 255
    expected = np.broadcast_to(pixels[..., :-1] * alpha + 255 * (1 - alpha), (6, 5, 3))
    np.testing.assert_allclose(decoded, expected, atol=0.501)


def test_palette_with_transparency(decode: Decode) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    decoded = decode(encoded(image, "PNG", transparency=0), (1, 2, 3))
    np.testing.assert_array_equal(decoded, [[[255, 255, 255], [40, 50, 60]]])


def test_grey_to_color_repeats_and_back_is_exact(decode: Decode) -> None:
    grey = NOISE[..., :1]
    colored = decode(encoded(Image.fromarray(grey[..., 0]), "PNG"), (6, 5, 3))
    np.testing.assert_array_equal(colored, np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(colored), "PNG"), (6, 5, 1)), grey)


def test_color_to_grey_is_luma(decode: Decode) -> None:
    decoded = decode(encoded(Image.fromarray(NOISE[..., :3]), "PNG"), (6, 5, 1))
    expected = NOISE[..., :3] @ np.array([[0.299], [0.587], [0.114]])
    np.testing.assert_allclose(decoded, expected, atol=0.501)


def test_shrinking_averages_instead_of_picking(decode: Decode) -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::4] = 255  # without antialiasing every output pixel would hit the same phase
    decoded = decode(encoded(Image.fromarray(stripes), "PNG"), (8, 8, 1))
    np.testing.assert_allclose(decoded[:, 1:-1], 255 / 4, atol=4)


def test_the_whole_image_stays_visible(decode: Decode) -> None:
    halves = np.zeros((8, 64), np.uint8)
    halves[:, 32:] = 200
    decoded = decode(encoded(Image.fromarray(halves), "PNG"), (8, 8, 1))[..., 0]
    assert (decoded[:, :3] == 0).all()
    assert (decoded[:, 5:] == 200).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_truncated_images_are_errors(decode: Decode, kind: str, kept: float) -> None:
    contents = encoded(Image.fromarray(SMOOTH), kind)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(contents[: int(kept * len(contents))], SMOOTH.shape)


def test_an_array_is_converted_exactly_like_a_file() -> None:
    images = RANDOM.randint(0, 256, (1030, 6, 5, 3), np.uint8)  # more than one piece
    resized = resize_images(images, (4, 7, 1))
    for number in (0, 1023, 1024, 1029):
        expected = eagerly(encoded(Image.fromarray(images[number]), "PNG"), (4, 7, 1))
        np.testing.assert_array_equal(resized[number], expected)


def test_an_array_of_the_right_shape_is_not_copied() -> None:
    images = NOISE[np.newaxis, ..., :3]
    assert resize_images(images, (6, 5, 3)) is images


def test_convert_keeps_batch_dimensions() -> None:
    converted = convert_image(tf.constant(NOISE[np.newaxis]), (6, 5, 3))
    np.testing.assert_array_equal(converted[0], convert_image(tf.constant(NOISE), (6, 5, 3)))


def test_decoding_works_in_a_saved_model(tmp_path: pathlib.Path) -> None:
    class Decoder(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, batch: tf.Tensor) -> tf.Tensor:
            signature = tf.TensorSpec((16, 16, 3), tf.uint8)
            return tf.map_fn(lambda one: decode_image(one, (16, 16, 3)), batch, fn_output_signature=signature)

    files = [encoded(Image.fromarray(SMOOTH), "JPEG"), encoded(Image.fromarray(NOISE), "PNG")]
    tf.saved_model.save(Decoder(), str(tmp_path))
    restored = tf.saved_model.load(str(tmp_path))(tf.constant(files))
    np.testing.assert_array_equal(restored, [eagerly(contents, (16, 16, 3)) for contents in files])


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_color_channels_do_not_count_alpha(channels: int, expected: int) -> None:
    assert color_channels(tf.zeros([2, 2, channels])) == expected


def stored_images() -> tuple[tf.data.Dataset, list[bytes]]:
    good = [encoded(Image.fromarray(NOISE[..., :3] // (1 + number)), "PNG") for number in range(4)]
    contents = [good[0], b"", good[1], good[2][:-9], good[3], encoded(Image.fromarray(NOISE[..., 0]), "PNG")]
    return tf.data.Dataset.from_tensor_slices(contents), contents


def test_decode_many_passes_over_the_unreadable_and_keeps_the_order() -> None:
    stored, contents = stored_images()
    decoded = decode_many(stored, 6, (3, 3, 3), skip_unreadable=True)
    np.testing.assert_array_equal(decoded.channels, [3, 0, 3, 0, 3, 1])
    assert decoded.images is not None
    for number in (0, 2, 4, 5):
        np.testing.assert_array_equal(decoded.images[number], eagerly(contents[number], (3, 3, 3)))
    checked = decode_many(stored, 6, (3, 3, 3), skip_unreadable=True, keep_pixels=False)
    assert checked.images is None
    np.testing.assert_array_equal(checked.channels, decoded.channels)


def test_decode_many_raises_unless_told_to_skip() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_many(stored_images()[0], 6, (3, 3, 3))


def test_common_shape_is_the_most_common_size_up_to_a_bound() -> None:
    sizes = [(6, 5), (9, 9), (6, 5), (40, 3)]
    stored = tf.data.Dataset.from_tensor_slices([encoded(Image.new("RGB", (w, h)), "PNG") for h, w in sizes])
    assert common_shape(stored, 32) == (6, 6, 3)
    assert common_shape(stored.skip(3), 32) == (32, 32, 3)
    assert common_shape(stored.take(0), 32) is None


def test_common_shape_skips_the_unreadable() -> None:
    assert common_shape(stored_images()[0], 32, skip_unreadable=True) == (6, 6, 3)


def test_decode_any_keeps_the_alpha_channel() -> None:
    assert decode_any(tf.constant(encoded(Image.fromarray(NOISE), "PNG"))).shape == (6, 5, 4)
