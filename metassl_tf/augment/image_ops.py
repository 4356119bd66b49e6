"""The single pixel operations of RandAugment, each on a whole batch at once.

Every function takes uint8 images [N, H, W, C] with C = 1 or 3, and where it has a strength, one value per image [N],
and returns uint8 images of the same shape. N may be 0. The results are those of Pillow's ImageOps and ImageEnhance,
which the papers' code calls, bit for bit: a `color` image is Pillow's mode RGB, a grey one its mode L.
"""

from collections.abc import Sequence

import tensorflow as tf

from metassl_tf.errors import UserError

Fill = int | Sequence[int]
"""A grey level 0..255 for all channels, or one per channel."""

_LEVELS = 256
# ITU-R 601-2 luma in 16-bit fixed point: the weights with which Pillow converts RGB to L.
_LUMA_WEIGHTS = (19595, 38470, 7471)
_LUMA_SHIFT = 16


def check_images(images: tf.Tensor) -> tf.Tensor:
    """Returns `images` as a tensor after checking that it is uint8 [N, H, W, C] with C = 1 or 3.

    Raises:
      UserError: another dtype, rank or number of channels.
    """
    images = tf.convert_to_tensor(images)
    shape = images.shape
    if images.dtype != tf.uint8 or shape.rank != 4 or shape[-1] not in (1, 3):
        raise UserError(
            f"Augmentation got {images.dtype.name} images of shape {shape}. Expected uint8 [batch, height, width, "
            "channels] with 1 or 3 channels. Augment before normalising, in batches, and convert other images first."
        )
    return images


def fill_levels(fill: Fill, channels: int) -> tf.Tensor:
    """Returns `fill` as uint8 [channels].

    Raises:
      UserError: a level outside 0..255, or neither one level nor one per channel.
    """
    levels = [fill] if isinstance(fill, int) else list(fill)
    if len(levels) not in (1, channels) or not all(0 <= level < _LEVELS for level in levels):
        raise UserError(
            f"fill={fill} does not fit images with {channels} channels. Expected one grey level from 0 to 255, "
            "or one per channel."
        )
    return tf.constant(levels * (channels // len(levels)), tf.uint8)


def image_size(images: tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
    """Height and width of [N, H, W, C]: Python integers where static, scalar tensors otherwise."""
    dynamic = tf.shape(images)
    height = dynamic[1] if images.shape[1] is None else images.shape[1]
    width = dynamic[2] if images.shape[2] is None else images.shape[2]
    return height, width


def _per_image(values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.reshape(tf.cast(values, dtype), [-1, 1, 1, 1])  # [N, 1, 1, 1]


def blend(degenerate: tf.Tensor, images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Pillow's `Image.blend`: degenerate + factor (images - degenerate), clipped to 0..255 and truncated.

    Args:
      degenerate: what factor 0 gives, float32 grey levels or uint8, broadcastable to [N, H, W, C].
      images: what factor 1 gives, uint8 [N, H, W, C].
      factors: [N]; values above 1 extrapolate.

    Returns:
      uint8 [N, H, W, C].
    """
    start = tf.cast(degenerate, tf.float32)
    mixed = start + _per_image(factors, tf.float32) * (tf.cast(images, tf.float32) - start)
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


def _luma(images: tf.Tensor) -> tf.Tensor:
    """Grey level of every pixel, int32 [N, H, W, 1]."""
    levels = tf.cast(images, tf.int32)
    if images.shape[-1] == 1:
        return levels
    red, green, blue = (levels[..., channel, tf.newaxis] * _LUMA_WEIGHTS[channel] for channel in range(3))
    return tf.bitwise.right_shift(red + green + blue + (1 << (_LUMA_SHIFT - 1)), _LUMA_SHIFT)


def autocontrast(images: tf.Tensor) -> tf.Tensor:
    """Stretches each channel of each image to 0..255; a channel of one level stays (ImageOps.autocontrast)."""
    low = tf.cast(tf.reduce_min(images, axis=[1, 2], keepdims=True), tf.float64)  # [N, 1, 1, C]
    high = tf.cast(tf.reduce_max(images, axis=[1, 2], keepdims=True), tf.float64)
    flat = high <= low
    # Double precision and the order of operations are Pillow's: truncation makes both visible.
    scale = tf.where(flat, tf.ones_like(low), 255.0 / tf.where(flat, tf.ones_like(low), high - low))
    offset = tf.where(flat, tf.zeros_like(low), -low * scale)
    stretched = tf.cast(images, tf.float64) * scale + offset
    return tf.cast(tf.clip_by_value(stretched, 0.0, 255.0), tf.uint8)


def equalize(images: tf.Tensor) -> tf.Tensor:
    """Flattens the histogram of each channel of each image (ImageOps.equalize)."""
    batch_size, channels = tf.shape(images)[0], images.shape[-1]
    num_bins = batch_size * channels * _LEVELS
    first_bin = tf.reshape(tf.range(0, num_bins, _LEVELS), [batch_size, 1, 1, channels])
    bins = tf.cast(images, tf.int32) + first_bin  # [N, H, W, C], every image and channel has its own 256 bins
    counts = tf.math.bincount(tf.reshape(bins, [-1]), minlength=num_bins, maxlength=num_bins)
    histogram = tf.reshape(counts, [-1, _LEVELS])  # [N * C, 256]
    brightest = tf.reshape(tf.reduce_max(images, axis=[1, 2]), [-1, 1])
    count_of_brightest = tf.gather(histogram, tf.cast(brightest, tf.int32), batch_dims=1)  # [N * C, 1]
    step = (tf.reduce_sum(histogram, axis=-1, keepdims=True) - count_of_brightest) // (_LEVELS - 1)
    divisor = tf.maximum(step, 1)
    table = (tf.cumsum(histogram, axis=-1, exclusive=True) + step // 2) // divisor
    table = tf.where(step > 0, tf.minimum(table, _LEVELS - 1), tf.range(_LEVELS))
    return tf.gather(tf.reshape(tf.cast(table, tf.uint8), [-1]), bins)


def invert(images: tf.Tensor) -> tf.Tensor:
    """255 - images (ImageOps.invert)."""
    return tf.bitwise.invert(images)


def posterize(images: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the highest `bits` (int [N], 0..8) bits of each level (ImageOps.posterize); 8 keeps the image."""
    masks = tf.constant([_LEVELS - 2 ** (8 - kept) for kept in range(9)], tf.uint8)
    return tf.bitwise.bitwise_and(images, _per_image(tf.gather(masks, bits), tf.uint8))


def solarize(images: tf.Tensor, thresholds: tf.Tensor) -> tf.Tensor:
    """Inverts every level at or above `thresholds` (int [N], 0..256; ImageOps.solarize); 256 keeps the image."""
    reached = images >= _per_image(tf.minimum(thresholds, _LEVELS - 1), tf.uint8)
    # All bits set where an image inverts at all: a threshold of 256, which no level reaches, does not fit into uint8.
    inversion = _per_image(thresholds < _LEVELS, tf.uint8) * (_LEVELS - 1)
    return tf.bitwise.bitwise_xor(images, tf.cast(reached, tf.uint8) * inversion)


def brightness(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Blends black (factor 0) with the image (factor 1); factors [N] (ImageEnhance.Brightness)."""
    return blend(tf.zeros([], tf.float32), images, factors)


def color(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Blends the grey image (factor 0) with the image (factor 1); factors [N] (ImageEnhance.Color).

    Images with one channel are returned as they are.
    """
    if images.shape[-1] == 1:
        return images
    return blend(_luma(images), images, factors)


def contrast(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Blends the image's rounded mean grey level (factor 0) with the image (1); factors [N] (ImageEnhance.Contrast)."""
    mean = tf.reduce_mean(tf.cast(_luma(images), tf.float64), axis=[1, 2, 3], keepdims=True)
    return blend(tf.floor(mean + 0.5), images, factors)


def sharpness(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Blends the smoothed image (factor 0) with the image (factor 1); factors [N] (ImageEnhance.Sharpness).

    Smoothing weighs the centre 5 and its eight neighbors 1, over 13, and leaves the outermost pixels as they are.
    """
    levels = tf.cast(images, tf.float32)
    center = levels[:, 1:-1, 1:-1]
    columns = levels[:, :-2] + levels[:, 1:-1] + levels[:, 2:]
    total = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:] + 4.0 * center
    # Pillow rounds the smoothed image to whole levels before it blends.
    change = tf.floor(total / 13.0 + 0.5) - center
    return blend(levels + tf.pad(change, [[0, 0], [1, 1], [1, 1], [0, 0]]), images, factors)


def sample_pairing(images: tf.Tensor, partners: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Mixes each image with a partner: (1 - weight) image + weight partner (Inoue, arXiv:1801.02929).

    Args:
      images: uint8 [N, H, W, C].
      partners: uint8 [N, H, W, C], the image that each is mixed with; its label is not used.
      weights: [N] in [0, 1]; 0 keeps the image.

    Returns:
      uint8 [N, H, W, C].
    """
    return blend(images, partners, weights)
