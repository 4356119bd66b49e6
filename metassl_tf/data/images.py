"""Decoding and resizing: the one way from an encoded or stored image to the model's uint8 [H, W, C].

Training, evaluation and the exported model call the same functions. That matters: JPEG decoders and resizing
filters differ between libraries by up to a hundred grey levels, enough to change a prediction.

* PNG, JPEG, BMP, WebP, and the first frame of a GIF; 16-bit PNG by its high byte, CMYK JPEG as RGB.
* Transparent pixels are laid on white, as a viewer shows them; the color stored under them is arbitrary.
* Color to grey by the luma weights of ITU-R BT.601; grey to color by repetition.
* Bilinear resizing with antialiasing. The aspect ratio is not kept: the whole image stays visible.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

ImageShape: TypeAlias = tuple[int, int, int]
ReadContents: TypeAlias = Callable[[tf.Tensor], tf.Tensor]

# What tf.io.decode_image reads, by the endings such files carry.
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")

_LUMA = (0.299, 0.587, 0.114)
_BATCH_BYTES = 2**26


def _images_per_batch(*shapes: tuple[int, ...]) -> int:
    """As many images of the largest of these shapes as keep a batch of uint8 within 64 MiB."""
    return int(np.clip(_BATCH_BYTES // max(int(np.prod(shape)) for shape in shapes), 1, 1024))


def _opaque(pixels: tf.Tensor) -> tf.Tensor:
    """Lays [..., 2] (grey, alpha) or [..., 4] (color, alpha) on white; others are returned as they are."""
    channels = tf.shape(pixels)[-1]
    colors = channels - tf.cast(channels % 2 == 0, tf.int32)
    # The slice holds the alpha channel or nothing: summing drops the axis of unknown length either way.
    alpha = tf.reduce_sum(pixels[..., colors:], axis=-1, keepdims=True) / 255.0
    alpha = tf.cond(channels % 2 == 0, lambda: alpha, lambda: tf.ones_like(alpha))
    return pixels[..., :colors] * alpha + 255.0 * (1.0 - alpha)


def convert_image(image: tf.Tensor, shape: ImageShape) -> tf.Tensor:
    """Brings decoded images to the model's size and channels.

    Args:
      image: uint8 [h, w, c] or [N, h, w, c], c from 1 to 4: grey, grey with alpha, color, color with alpha.
      shape: the wanted (H, W, C), C being 1 or 3.

    Returns:
      uint8 [H, W, C] or [N, H, W, C]. An image that already has the shape is returned unchanged.
    """
    height, width, channels = shape

    def converted() -> tf.Tensor:
        pixels = _opaque(tf.cast(image, tf.float32))
        colored = tf.broadcast_to(pixels, tf.concat([tf.shape(pixels)[:-1], [3]], axis=0))
        if channels == 1:
            colored = tf.reduce_sum(colored * tf.constant(_LUMA), axis=-1, keepdims=True)
        resized = tf.image.resize(colored, (height, width), method="bilinear", antialias=True)
        return tf.saturate_cast(tf.round(resized), tf.uint8)

    same = tf.reduce_all(tf.equal(tf.shape(image)[-3:], shape))
    result = tf.cond(same, lambda: image, converted)
    return tf.ensure_shape(result, [*image.shape[:-3], *shape])


def decode_any(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes one image as it is stored.

    Args:
      encoded: scalar string, the bytes of a file.

    Returns:
      uint8 [h, w, c] with the file's own size; c counts an alpha channel.

    Raises:
      tf.errors.InvalidArgumentError: the bytes are no image, or end too early.
    """
    image = tf.io.decode_image(encoded, channels=0, dtype=tf.uint8, expand_animations=False)
    # decode_image leaves even the rank open, since it could return a whole animation.
    return tf.ensure_shape(image, [None, None, None])


def decode_image(encoded: tf.Tensor, shape: ImageShape) -> tf.Tensor:
    """Decodes and resizes one image. Works in tf.data, in a SavedModel and eagerly.

    Args:
      encoded: scalar string, the bytes of a file.
      shape: the wanted (H, W, C), C being 1 or 3.

    Returns:
      uint8 [H, W, C].

    Raises:
      tf.errors.InvalidArgumentError: the bytes are no image, or end too early.
    """
    return convert_image(decode_any(encoded), shape)


def resize_images(images: npt.NDArray[np.uint8], shape: ImageShape) -> npt.NDArray[np.uint8]:
    """`convert_image` for a whole array, on the CPU and in pieces that bound the memory.

    Args:
      images: uint8 [N, h, w, c].
      shape: the wanted (H, W, C).

    Returns:
      uint8 [N, H, W, C]; the same array where it already has the shape.
    """
    if images.shape[1:] == shape:
        return images
    resized = np.empty((len(images), *shape), np.uint8)
    size = _images_per_batch(images.shape[1:], shape)
    with tf.device("/CPU:0"):
        for start in range(0, len(images), size):
            piece = slice(start, start + size)
            resized[piece] = convert_image(tf.constant(images[piece]), shape).numpy()
    return resized


class Decoded(NamedTuple):
    """Many images after decoding.

    Attributes:
      images: uint8 [N, H, W, C], zeros where unreadable; None where pixels were not wanted.
      channels: int64 [N], color channels of the file, 1 or 3, and 0 where it could not be decoded.
    """

    images: npt.NDArray[np.uint8] | None
    channels: npt.NDArray[np.int64]


def color_channels(image: tf.Tensor) -> tf.Tensor:
    """1 for grey and 3 for color, not counting alpha; scalar int64."""
    channels = tf.shape(image, out_type=tf.int64)[-1]
    return channels - tf.cast(channels % 2 == 0, tf.int64)


def decode_many(
    stored: tf.data.Dataset,
    count: int,
    shape: ImageShape,
    *,
    read: ReadContents = tf.identity,
    skip_unreadable: bool = False,
    keep_pixels: bool = True,
) -> Decoded:
    """Decodes many images in parallel and in order.

    Args:
      stored: dataset of `count` scalar strings.
      count: number of images, N.
      shape: the wanted (H, W, C).
      read: turns one of the strings into the bytes of an image: `tf.io.read_file` where they are paths.
      skip_unreadable: passes over what cannot be read or decoded. Only for a dataset that is itself in memory:
        one that reads records repeats the same error for ever.
      keep_pixels: False only checks the images and counts their channels.

    Returns:
      The images and what is known about them.

    Raises:
      tf.errors.OpError: an image is unreadable and `skip_unreadable` is False.
    """

    def decode(index: tf.Tensor, element: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = decode_any(read(element))
        if not keep_pixels:
            return index, color_channels(image)
        return index, color_channels(image), convert_image(image, shape)

    decoded = stored.enumerate().map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    if skip_unreadable:
        decoded = decoded.ignore_errors()
    images = np.zeros((count, *shape), np.uint8) if keep_pixels else None
    channels = np.zeros(count, np.int64)
    for index, found, *pixels in decoded.batch(_images_per_batch(shape)).prefetch(2).as_numpy_iterator():
        channels[index] = found
        if images is not None:
            images[index] = pixels[0]
    return Decoded(images, channels)


def common_shape(
    stored: tf.data.Dataset, largest: int, *, read: ReadContents = tf.identity, skip_unreadable: bool = False
) -> ImageShape | None:
    """The most common size of some images as one side, and their most common number of color channels.

    Args:
      stored: dataset of scalar strings.
      largest: upper bound of the side, in pixels.
      read: as for `decode_many`.
      skip_unreadable: as for `decode_many`.

    Returns:
      (side, side, channels), where side is the longer one of the most common (height, width), at most `largest`;
      None when no image can be decoded.

    Raises:
      tf.errors.OpError: an image is unreadable and `skip_unreadable` is False.
    """

    def measure(element: tf.Tensor) -> tf.Tensor:
        image = decode_any(read(element))
        size = tf.shape(image, out_type=tf.int64)[:2]
        return tf.concat([size, [color_channels(image)]], axis=0)

    measured = stored.map(measure, num_parallel_calls=tf.data.AUTOTUNE)
    if skip_unreadable:
        measured = measured.ignore_errors()
    rows = np.array(list(measured.as_numpy_iterator()), np.int64).reshape(-1, 3)
    if not len(rows):
        return None
    sizes, times = np.unique(rows[:, :2], axis=0, return_counts=True)
    side = min(int(sizes[np.argmax(times)].max()), largest)
    channels = 1 if 2 * np.count_nonzero(rows[:, 2] == 1) > len(rows) else 3
    return side, side, channels
