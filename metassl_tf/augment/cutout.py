"""Cutout (DeVries and Taylor, arXiv:1708.04552): a square box of each image is painted over.

The box's centre is a pixel drawn uniformly, and the box is clipped at the border, so that on average less than the
whole box is lost; this is what the released code of UDA, FixMatch and Meta Pseudo Labels does.
"""

import tensorflow as tf

from metassl_tf.augment.image_ops import Fill, check_images, fill_levels, image_size
from metassl_tf.errors import UserError


def _covered(centers: tf.Tensor, length: int | tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """All ones in the bytes of the rows (or columns) that a box covers, uint8 [N, length]."""
    center = tf.cast(centers * tf.cast(length, tf.float32), tf.int32)
    first = (center - sizes // 2)[:, tf.newaxis]
    positions = tf.range(length)[tf.newaxis]
    return tf.cast((positions >= first) & (positions < first + sizes[:, tf.newaxis]), tf.uint8) * 255


def cut_boxes(
    images: tf.Tensor, center_rows: tf.Tensor, center_columns: tf.Tensor, sizes: tf.Tensor, *, fill: Fill
) -> tf.Tensor:
    """Paints one square per image over with `fill`.

    Args:
      images: uint8 [N, H, W, C].
      center_rows: float32 [N] in [0, 1), as a fraction of the height; the centre is the pixel that it falls into.
      center_columns: float32 [N] in [0, 1), as a fraction of the width.
      sizes: int32 [N], side of the square in pixels; 0 paints nothing. It covers the rows from
        center - size // 2 to center - size // 2 + size - 1, and so the columns, as far as they exist.
      fill: level of the painted pixels.

    Returns:
      uint8 [N, H, W, C].
    """
    height, width = image_size(images)
    channels = images.shape[-1]
    rows = _covered(center_rows, height, sizes)[:, :, tf.newaxis]  # [N, H, 1]
    columns = tf.repeat(_covered(center_columns, width, sizes), channels, axis=1)[:, tf.newaxis]  # [N, 1, W * C]
    levels = tf.tile(fill_levels(fill, channels), tf.reshape(width, [1]))  # [W * C]
    flat = tf.reshape(images, tf.stack([-1, height, width * channels]))
    # Bits instead of tf.where, and pixels and channels as one axis: broadcasting over a last axis of 3 is slow.
    change = tf.bitwise.bitwise_and(tf.bitwise.bitwise_xor(flat, levels), tf.bitwise.bitwise_and(rows, columns))
    return tf.ensure_shape(tf.reshape(tf.bitwise.bitwise_xor(flat, change), tf.shape(images)), images.shape)


def cutout(images: tf.Tensor, seed: tf.Tensor, *, size: int, fill: Fill = 128) -> tf.Tensor:
    """Cuts one `size` x `size` box out of every image, its centre uniform over the pixels.

    Args:
      images: uint8 [N, H, W, C].
      seed: int32 or int64 [2]; the result is a function of it and the images alone.
      size: side of the box in pixels; 0 leaves the images as they are. The papers take half the image width.
      fill: level of the box.

    Returns:
      uint8 [N, H, W, C].

    Raises:
      UserError: `size` is negative, or the images are not uint8 [N, H, W, 1 or 3].
    """
    images = check_images(images)
    if size < 0:
        raise UserError(f"The cutout size is {size}. Expected the side of the box in pixels, at least 0 (no cutout).")
    batch_size = tf.shape(images)[0]
    centers = tf.random.stateless_uniform([batch_size, 2], seed, alg="philox")
    return cut_boxes(images, centers[:, 0], centers[:, 1], tf.fill([batch_size], size), fill=fill)
