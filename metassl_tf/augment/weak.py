"""Weak augmentation: random horizontal flip and random shift, the view from which pseudo labels are taken.

FixMatch (arXiv:2001.07685, section 2.3) flips with probability 1/2 (not on SVHN) and shifts by up to an eighth of the
width with reflected borders; Meta Pseudo Labels' released code pads with the grey level 128 instead.
"""

import tensorflow as tf

from metassl_tf.augment.image_ops import Fill, check_images, fill_levels, image_size
from metassl_tf.errors import UserError

PADDING_MODES = ("reflect", "constant")


def _source_positions(shifts: tf.Tensor, length: int | tf.Tensor, mode: str) -> tf.Tensor:
    """Where each output row (or column) of a shifted image comes from, int32 [N, length].

    Reflection is about the outermost pixel's centre, which is not repeated. For `constant`, positions outside are
    `length`: the row (or column) of fill that the caller appends.
    """
    positions = tf.range(length)[tf.newaxis] + shifts[:, tf.newaxis]
    if mode == "reflect":
        last = length - 1
        return last - tf.abs(last - tf.abs(positions))
    inside = (positions >= 0) & (positions < length)
    return tf.where(inside, positions, length)


def _check_padding(padding: int, mode: str, images: tf.Tensor) -> None:
    if mode not in PADDING_MODES:
        raise UserError(f"Padding mode {mode!r} is not known. Expected one of: {', '.join(PADDING_MODES)}.")
    sizes = [size for size in images.shape[1:3] if size is not None]
    if padding < 0 or (mode == "reflect" and sizes and padding >= min(sizes)):
        raise UserError(
            f"A padding of {padding} pixels does not fit images of shape {images.shape[1:]}. Expected at least 0, and "
            "for reflected borders less than the height and the width. Choose a smaller padding or padding mode "
            "'constant'."
        )


def weak_augment(
    images: tf.Tensor,
    seed: tf.Tensor,
    *,
    flip: bool,
    padding: int,
    padding_mode: str,
    fill: Fill,
) -> tf.Tensor:
    """Flips each image left to right with probability 1/2, then pads it and crops it at a random place.

    Args:
      images: uint8 [N, H, W, C], C = 1 or 3.
      seed: int32 or int64 [2]; the result is a function of it and the images alone.
      flip: whether to flip at all; not for digits and other classes that a mirror changes.
      padding: pixels on each side, so the largest shift.
      padding_mode: what is beyond the border: `reflect` or `constant`.
      fill: level beyond the border for `constant`.

    Returns:
      uint8 [N, H, W, C].

    Raises:
      UserError: the padding or its mode is impossible, or the images are not uint8 [N, H, W, 1 or 3].
    """
    images = check_images(images)
    height, width = image_size(images)
    _check_padding(padding, padding_mode, images)

    uniform = tf.random.stateless_uniform([tf.shape(images)[0], 3], seed, alg="philox")
    shifts = tf.cast(uniform[:, :2] * (2.0 * padding + 1.0), tf.int32) - padding  # [N, 2] in -padding..padding
    rows = _source_positions(shifts[:, 0], height, padding_mode)  # [N, H]
    columns = _source_positions(shifts[:, 1], width, padding_mode)  # [N, W]
    if flip:
        # The flip comes first, so its mirror is applied to where the crop reads; the fill column is no image column.
        mirrored = tf.where(columns < width, width - 1 - columns, columns)
        columns = tf.where(uniform[:, 2:] < 0.5, mirrored, columns)
    levels = fill_levels(fill, images.shape[-1])
    source = images
    if padding_mode == "constant":
        # One row and one column of fill: zeros before the XOR is undone.
        source = tf.pad(tf.bitwise.bitwise_xor(images, levels), [[0, 0], [0, 1], [0, 1], [0, 0]])
    moved = tf.gather(tf.gather(source, rows, batch_dims=1), columns, axis=2, batch_dims=1)
    if padding_mode == "constant":
        moved = tf.bitwise.bitwise_xor(moved, levels)
    return tf.ensure_shape(moved, images.shape)
