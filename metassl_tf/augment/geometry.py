"""Rotation, shear and translation of a batch in one resampling, each image by its own affine map.

A map says where each *output* pixel takes its value from, as in Pillow's `Image.transform(AFFINE)`: in coordinates
in which pixel (column, row) covers the unit square with centre (column + 0.5, row + 0.5),

    source = L (output point) + offset,   L = [[a, b], [d, e]],   offset = (c, f).

With nearest neighbors this equals Pillow's `rotate` and `transform` except where a source point falls on the border
of two pixels to within rounding (Pillow computes in 16-bit fixed point, TensorFlow in float32). With bilinear
interpolation the outermost half pixel blends into the fill, where Pillow repeats the border pixel.
"""

import math

import tensorflow as tf

from metassl_tf.augment.image_ops import Fill, fill_levels, image_size

INTERPOLATIONS = ("nearest", "bilinear")


def affine_maps(
    *,
    degrees: tf.Tensor,
    shear_x: tf.Tensor,
    shear_y: tf.Tensor,
    translate_x: tf.Tensor,
    translate_y: tf.Tensor,
    height: int | tf.Tensor,
    width: int | tf.Tensor,
    centered_shear: bool = False,
) -> tf.Tensor:
    """The map that translates, then shears, then rotates an output point into its source; zeros leave it in place.

    Args:
      degrees: float32 [N], rotation counter-clockwise about the centre of the image.
      shear_x: float32 [N], columns to the right per row down that a point's source lies.
      shear_y: float32 [N], rows down per column to the right.
      translate_x: float32 [N], pixels; positive moves the content to the left.
      translate_y: float32 [N], pixels; positive moves the content up.
      height: rows of the images.
      width: columns of the images.
      centered_shear: shear about the centre instead of Pillow's upper left corner, so that shearing does not also
        move the content.

    Returns:
      float32 [N, 6], the rows (a, b, c, d, e, f).
    """
    center_x, center_y = tf.cast(width, tf.float32) / 2.0, tf.cast(height, tf.float32) / 2.0
    radians = degrees * (math.pi / 180.0)
    cosine, sine = tf.cos(radians), tf.sin(radians)
    # Rotation [[cosine, -sine], [sine, cosine]] times shear [[1, shear_x], [shear_y, 1]].
    a, b = cosine - sine * shear_y, cosine * shear_x - sine
    d, e = sine + cosine * shear_y, sine * shear_x + cosine
    shift_x, shift_y = translate_x, translate_y
    if centered_shear:
        shift_x, shift_y = shift_x - shear_x * center_y, shift_y - shear_y * center_x
    # The rotation alone is about the centre: rotate (sheared and shifted point - centre) + centre.
    from_center_x, from_center_y = shift_x - center_x, shift_y - center_y
    c = cosine * from_center_x - sine * from_center_y + center_x
    f = sine * from_center_x + cosine * from_center_y + center_y
    return tf.stack([a, b, c, d, e, f], axis=1)


def _projective_transform(images: tf.Tensor, maps: tf.Tensor, interpolation: str) -> tf.Tensor:
    """Resamples [N, H, W, C] with zeros outside."""
    a, b, c, d, e, f = tf.unstack(maps, axis=1)
    # The kernel counts from pixel centres, (column, row) itself, so half a pixel goes in and comes out again.
    c, f = c + (a + b - 1.0) / 2.0, f + (d + e - 1.0) / 2.0
    zeros = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, c, d, e, f, zeros, zeros], axis=1),
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation=interpolation.upper(),
        fill_mode="CONSTANT",
    )


def affine_transform(images: tf.Tensor, maps: tf.Tensor, *, fill: Fill, interpolation: str = "nearest") -> tf.Tensor:
    """Moves every image by its own map, in one kernel.

    Args:
      images: uint8 [N, H, W, C], C = 1 or 3.
      maps: float32 [N, 6], from `affine_maps`.
      fill: level of the pixels whose source lies outside the image.
      interpolation: `nearest`, or `bilinear`, which suits images of few pixels.

    Returns:
      uint8 [N, H, W, C].
    """
    channels = images.shape[-1]
    levels = fill_levels(fill, channels)
    if interpolation == "bilinear":
        background = tf.cast(levels, tf.float32)
        moved = _projective_transform(tf.cast(images, tf.float32) - background, maps, interpolation) + background
        return tf.ensure_shape(tf.cast(tf.round(moved), tf.uint8), images.shape)
    # The kernel fills with one number for all channels. XOR makes the fill that number, zero, and undoes itself after.
    masked = tf.bitwise.bitwise_xor(images, levels)
    if channels == 3:
        # Its cost is per number, not per byte: a color pixel padded to four bytes travels as one int32.
        height, width = image_size(images)
        packed = tf.bitcast(tf.pad(masked, [[0, 0], [0, 0], [0, 0], [0, 1]]), tf.int32)
        moved = _projective_transform(packed[..., tf.newaxis], maps, interpolation)
        masked = tf.bitcast(tf.reshape(moved, [-1, height, width]), tf.uint8)[..., :3]
    else:
        masked = _projective_transform(masked, maps, interpolation)
    return tf.ensure_shape(tf.bitwise.bitwise_xor(masked, levels), images.shape)
