"""What algorithms log alike."""

import tensorflow as tf

from metassl_tf.algorithms.base import Average


def pseudo_label_metrics(pseudo_label: tf.Tensor, mask: tf.Tensor, truth: tf.Tensor) -> dict[str, Average]:
    """What every thresholded algorithm logs about its pseudo labels.

    Args:
      pseudo_label: int64 [batch].
      mask: float [batch], 1 where the example counts.
      truth: int64 [batch], -1 where unknown.

    Returns:
      `share_above_threshold`; `pseudo_label_accuracy` over examples above the threshold whose truth is known.
    """
    known = tf.cast(truth >= 0, mask.dtype)
    right = tf.cast(pseudo_label == truth, mask.dtype)
    return {
        "share_above_threshold": Average(mask, tf.ones_like(mask)),
        "pseudo_label_accuracy": Average(right, mask * known),
    }
