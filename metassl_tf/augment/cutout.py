"""Cutout (DeVries and Taylor, arXiv:1708.04552): a square box of each image is painted over.

The box is clipped at the border, so that with a centre that may be any pixel less than the whole box is lost on
average; this is what the released code of UDA, FixMatch and Meta Pseudo Labels does.
"""

import tensorflow as tf

from metassl_tf.augment.image_ops import Fill, fill_levels, image_size


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
