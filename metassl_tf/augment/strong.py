"""The strong view of a consistency loss: RandAugment, with weak augmentation before or after as each paper has it."""

from collections.abc import Callable

import tensorflow as tf

from metassl_tf.augment.image_ops import Fill
from metassl_tf.augment.policies import Policy
from metassl_tf.augment.rand_augment import rand_augment

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""(uint8 images [N, H, W, C], seed [2]) -> uint8 images [N, H, W, C], e.g. a `functools.partial` of `weak_augment`."""


def strong_augment(
    images: tf.Tensor,
    weak_view: tf.Tensor,
    seed: tf.Tensor,
    *,
    policy: Policy,
    weak: Augmentation,
    fill: Fill | None = None,
) -> tf.Tensor:
    """Augments a batch strongly.

    FixMatch starts from a weak view of its own, UDA from the image and flips and shifts at the end, Meta Pseudo Labels
    from the very weak view that is shown to the teacher and flips and shifts again at the end (`policy.start`,
    `policy.weak_after`).

    Args:
      images: uint8 [N, H, W, C], not augmented.
      weak_view: uint8 [N, H, W, C], the same images as the other side of the loss sees them.
      seed: int32 or int64 [2]; the result is a function of it and the images alone.
      policy: operations, strengths and order.
      weak: the weak augmentation.
      fill: see `rand_augment`.

    Returns:
      uint8 [N, H, W, C].

    Raises:
      UserError: see `rand_augment`.
    """
    before, middle, after = tf.unstack(tf.random.split(seed, 3, alg="philox"))
    start = weak_view if policy.start == "weak_view" else images
    if policy.start == "weak":
        start = weak(images, before)
    augmented = rand_augment(start, middle, policy=policy, fill=fill)
    return weak(augmented, after) if policy.weak_after else augmented
