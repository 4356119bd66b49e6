"""Batched RandAugment (Cubuk et al., arXiv:1909.13719): strong augmentation as used by UDA, FixMatch and MPL.

Departs from the released codes in:
  - Each operation of a layer runs once, on all images that drew it; the geometric ones share one resampling.
  - What an operation fills is an ordinary pixel to the next one. The Pillow-based codes keep those pixels transparent
    and paint them at the end, unless a later autocontrast, equalize, invert, posterize or solarize has made them
    opaque black.
  - Posterizing keeps at least one bit; zero bits, which those codes reach at magnitude 10, is a black image.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from metassl_tf.augment import image_ops
from metassl_tf.augment.cutout import cut_boxes
from metassl_tf.augment.dispatch import Branch, dispatch
from metassl_tf.augment.geometry import affine_maps, affine_transform
from metassl_tf.augment.image_ops import Fill, check_images, image_size
from metassl_tf.augment.policies import GEOMETRIC_OPERATIONS, Policy

_FULL_MAGNITUDE = 10
_DRAWS_PER_IMAGE = 3  # probability, row and column of the final cutout
_DRAWS_PER_LAYER = 7

_PLAIN_OPERATIONS = {
    "autocontrast": image_ops.autocontrast,
    "equalize": image_ops.equalize,
    "invert": image_ops.invert,
}
_GRADED_OPERATIONS = {
    "brightness": image_ops.brightness,
    "color": image_ops.color,
    "contrast": image_ops.contrast,
    "posterize": image_ops.posterize,
    "sharpness": image_ops.sharpness,
    "solarize": image_ops.solarize,
}


class LayerDraws(NamedTuple):
    """What one layer does to each image of a batch of N.

    Attributes:
      operation: int32 [N], index into the policy's `operations`.
      applied: bool [N], whether the operation is applied at all.
      magnitude: int32 [N].
      sign: float32 [N], -1 or 1, the direction of geometric operations.
      row: float32 [N] in [0, 1), the centre of the cutout operation's box, as a fraction of the height.
      column: float32 [N] in [0, 1), that of the width.
      partner: int32 [N], index of the image that sample pairing mixes in; another one if N > 1.
    """

    operation: tf.Tensor
    applied: tf.Tensor
    magnitude: tf.Tensor
    sign: tf.Tensor
    row: tf.Tensor
    column: tf.Tensor
    partner: tf.Tensor


class Draws(NamedTuple):
    """Everything random about one RandAugment of a batch of N.

    Attributes:
      layers: one `LayerDraws` per layer, in the order of application.
      row: float32 [N] in [0, 1), the centre of the final cutout, as a fraction of the height.
      column: float32 [N] in [0, 1), that of the width.
    """

    layers: tuple[LayerDraws, ...]
    row: tf.Tensor
    column: tf.Tensor


def draw(policy: Policy, batch_size: int | tf.Tensor, seed: tf.Tensor) -> Draws:
    """Draws operations, magnitudes and places; a pure function of its arguments.

    But for sample pairing's partners, an image's draws depend on its position in the batch and not on the batch's size.

    Args:
      policy: what to draw from.
      batch_size: N.
      seed: int32 or int64 [2].

    Returns:
      The draws of N images.
    """
    columns = _DRAWS_PER_IMAGE + policy.num_layers * _DRAWS_PER_LAYER
    uniform = tf.unstack(tf.random.stateless_uniform([batch_size, columns], seed, alg="philox"), axis=1)
    probability = policy.min_probability + (policy.max_probability - policy.min_probability) * uniform[0]
    num_magnitudes = policy.max_magnitude - policy.min_magnitude + 1
    layers = []
    for first in range(_DRAWS_PER_IMAGE, columns, _DRAWS_PER_LAYER):
        operation, applied, magnitude, sign, row, column, partner = uniform[first : first + _DRAWS_PER_LAYER]
        distance = 1 + tf.cast(partner * tf.cast(batch_size - 1, tf.float32), tf.int32)
        layers.append(
            LayerDraws(
                operation=tf.cast(operation * len(policy.operations), tf.int32),
                applied=applied < probability,
                magnitude=policy.min_magnitude + tf.cast(magnitude * num_magnitudes, tf.int32),
                sign=tf.where(sign < 0.5, -1.0, 1.0),
                row=row,
                column=column,
                partner=(tf.range(batch_size) + distance) % batch_size,
            )
        )
    return Draws(layers=tuple(layers), row=uniform[1], column=uniform[2])


def _arguments(policy: Policy, magnitude: tf.Tensor) -> dict[str, tf.Tensor]:
    """Each graded operation's argument for the drawn magnitudes int32 [N], in the operation's own unit."""
    share = tf.cast(magnitude, tf.float32) / _FULL_MAGNITUDE
    factor = policy.min_enhance + (policy.max_enhance - policy.min_enhance) * share
    bits, threshold = 4 * magnitude // _FULL_MAGNITUDE, 256 * magnitude // _FULL_MAGNITUDE
    if policy.tone == "stronger":
        bits, threshold = 4 - bits, tf.maximum(256 - threshold, 0)
    else:
        threshold = threshold % 256
    return {
        "brightness": factor,
        "color": factor,
        "contrast": factor,
        "sharpness": factor,
        "posterize": tf.clip_by_value(bits, 1, 8),
        "solarize": threshold,
    }


def _box_sizes(fractions: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Sides in whole pixels, rounded down, of boxes given as fractions of the shorter side."""
    shorter = tf.cast(tf.minimum(*image_size(images)), tf.float32)
    # A thousandth of a pixel keeps 0.375 * 8 from rounding down to 2.
    return tf.cast(fractions * shorter + 1e-3, tf.int32)


def _maps(policy: Policy, draws: LayerDraws, images: tf.Tensor) -> tf.Tensor:
    """The affine map [N, 6] of every image of the layer; only those of geometric operations mean anything."""
    strengths = {
        "rotate": policy.rotate,
        "shear_x": policy.shear,
        "shear_y": policy.shear,
        "translate_x": policy.translate,
        "translate_y": policy.translate,
    }
    table = [
        [strengths[name] if name == operation else 0.0 for name in GEOMETRIC_OPERATIONS]
        for operation in policy.operations
    ]
    signed_share = draws.sign * tf.cast(draws.magnitude, tf.float32) / _FULL_MAGNITUDE
    amounts = tf.gather(tf.constant(table, tf.float32), draws.operation) * signed_share[:, tf.newaxis]
    degrees, shear_x, shear_y, translate_x, translate_y = tf.unstack(amounts, axis=1)
    height, width = image_size(images)
    return affine_maps(
        degrees=degrees,
        shear_x=shear_x,
        shear_y=shear_y,
        translate_x=translate_x * tf.cast(width, tf.float32),
        translate_y=translate_y * tf.cast(height, tf.float32),
        height=height,
        width=width,
        centered_shear=policy.centered_shear,
    )


def _plain_branch(operation: Callable[[tf.Tensor], tf.Tensor]) -> Branch:
    return lambda chosen, _: operation(chosen)


def _graded_branch(operation: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], arguments: tf.Tensor) -> Branch:
    return lambda chosen, at: operation(chosen, tf.gather(arguments, at))


def _branches(images: tf.Tensor, draws: LayerDraws, policy: Policy, fill: Fill) -> dict[str, Branch]:
    """Operation -> what it does to the images that drew it; all geometric operations are one and the same branch."""
    share = tf.cast(draws.magnitude, tf.float32) / _FULL_MAGNITUDE

    def unchanged(chosen: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return chosen

    def move(chosen: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        maps = tf.gather(_maps(policy, draws, images), at)
        return affine_transform(chosen, maps, fill=fill, interpolation=policy.interpolation)

    def cut(chosen: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        sizes = tf.gather(_box_sizes(policy.cutout * share, images), at)
        return cut_boxes(chosen, tf.gather(draws.row, at), tf.gather(draws.column, at), sizes, fill=fill)

    def pair(chosen: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        partners = tf.gather(images, tf.gather(draws.partner, at))
        weights = tf.gather(policy.pairing * tf.minimum(share, 1.0), at)
        return image_ops.sample_pairing(chosen, partners, weights)

    arguments = _arguments(policy, draws.magnitude)
    return {
        "identity": unchanged,
        **dict.fromkeys(GEOMETRIC_OPERATIONS, move),
        **{name: _plain_branch(operation) for name, operation in _PLAIN_OPERATIONS.items()},
        **{name: _graded_branch(operation, arguments[name]) for name, operation in _GRADED_OPERATIONS.items()},
        "cutout": cut,
        "sample_pairing": pair,
    }


def _apply_layer(images: tf.Tensor, draws: LayerDraws, policy: Policy, fill: Fill) -> tf.Tensor:
    branch_of = _branches(images, draws, policy, fill)
    branches = list(dict.fromkeys(branch_of[name] for name in ("identity", *policy.operations)))
    numbers = [branches.index(branch_of[name]) for name in policy.operations]
    unchanged = branches.index(branch_of["identity"])
    choices = tf.where(draws.applied, tf.gather(tf.constant(numbers), draws.operation), unchanged)
    return dispatch(images, choices, branches)


def rand_augment(images: tf.Tensor, seed: tf.Tensor, *, policy: Policy, fill: Fill | None = None) -> tf.Tensor:
    """Applies the policy's layers and its final cutout to a batch, without any weak augmentation.

    Args:
      images: uint8 [N, H, W, C], C = 1 or 3.
      seed: int32 or int64 [2]; the result is a function of it and the images alone.
      policy: operations and strengths, e.g. `POLICIES["fixmatch"]`.
      fill: grey level, or one per channel, outside the image and in boxes; None means the policy's.

    Returns:
      uint8 [N, H, W, C].

    Raises:
      UserError: the images are not uint8 [N, H, W, 1 or 3], or the fill does not fit them.
    """
    images = check_images(images)
    fill = policy.fill if fill is None else fill
    draws = draw(policy, tf.shape(images)[0], seed)
    for layer in draws.layers:
        images = _apply_layer(images, layer, policy, fill)
    if policy.final_cutout == 0.0:
        return images
    sizes = tf.fill(tf.shape(draws.row), _box_sizes(tf.constant(policy.final_cutout), images))
    return cut_boxes(images, draws.row, draws.column, sizes, fill=fill)
