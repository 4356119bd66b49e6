"""Batch normalisation in one kernel, for training on one device.

Keras composes batch normalisation of elementwise operations and sums, each of which reads and writes all activations.
TensorFlow's fused kernel reads them twice and writes them once, and its gradient as well. The function is the same, and
so is its second derivative; that of `BatchNormalization(synchronized=False)` is another one, because `tf.nn.moments`
holds the mean constant where it differentiates the variance, which only the first derivative does not notice.

The kernel knows nothing of other replicas, so it is used on one only. It belongs to the process that trains, not to the
model: a model that is to be saved is built anew from Keras' own layers.
"""

from typing import Any

import keras
import tensorflow as tf

_KERNEL_DTYPES = ("float32", "bfloat16", "float16")


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer, by TensorFlow's fused kernel wherever that computes the same.

    Moving statistics are not differentiated through: a gradient that reaches them ends there.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """See `keras.layers.BatchNormalization`."""
        if not training or not self._fits_kernel(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            # As in Keras, statistics and normalisation are in float32 under every dtype policy.
            x=tf.cast(inputs, tf.float32),
            scale=tf.convert_to_tensor(self.gamma.value),
            offset=tf.convert_to_tensor(self.beta.value),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        variance *= (count - 1.0) / count  # the kernel divides by count - 1, Keras by count
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving.value * self.momentum + tf.stop_gradient(batch) * (1.0 - self.momentum))
        return tf.cast(outputs, self.compute_dtype)

    def _fits_kernel(self, inputs: Any, mask: Any) -> bool:
        replicas = getattr(tf.distribute.get_replica_context(), "num_replicas_in_sync", 0)
        return (
            replicas == 1
            and mask is None
            and self.trainable
            and self.scale
            and self.center
            and not self.renorm
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in _KERNEL_DTYPES
        )


def fuse_batch_normalization(model: keras.Model) -> keras.Model:
    """Lets a model normalise by the fused kernel from now on, where it trains on one replica.

    Args:
      model: any built model; changed in place, its variables stay as they are.

    Returns:
      The same model.
    """
    for layer in model._flatten_layers():  # noqa: SLF001  (Keras has no public walk over nested layers)
        if type(layer) is keras.layers.BatchNormalization:
            # The subclass adds no state; a copy of the model would need new variables and their values.
            layer.__class__ = FusedBatchNormalization
    return model
