"""Runs each operation once, on exactly the images that drew it."""

from collections.abc import Callable, Sequence

import tensorflow as tf

Branch = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""(uint8 [n, H, W, C] images of the branch, int32 [n] their positions in the batch) -> uint8 [n, H, W, C]."""


def dispatch(images: tf.Tensor, choices: tf.Tensor, branches: Sequence[Branch]) -> tf.Tensor:
    """Sends every image through the branch of its choice; an operation costs only its share of the batch.

    Args:
      images: uint8 [N, H, W, C].
      choices: int32 [N], for each image the number of its branch.
      branches: each is called once, with n = 0 where no image chose it. A branch finds its images' own parameters by
        their positions.

    Returns:
      uint8 [N, H, W, C], in the order of `images`.
    """
    positions = tf.dynamic_partition(tf.range(tf.shape(images)[0]), choices, len(branches))
    results = [branch(tf.gather(images, chosen), chosen) for branch, chosen in zip(branches, positions, strict=True)]
    return tf.ensure_shape(tf.dynamic_stitch(positions, results), images.shape)
