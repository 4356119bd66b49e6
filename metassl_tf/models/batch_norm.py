"""Batch normalisation that trains in one kernel forward and one backward, where Keras takes a dozen.

Keras composes its layer of sums and products over the whole activation: of a WRN-28-2 step they took a tenth. The layer
here is Keras' own, variables, configuration and all; only how it computes changes, and only where one replica trains.
It is not a subclass because Keras saves a layer by the name of its class: a saved model shall load without this
package, and what goes by the type of a layer shall see the one it knows.

Derivatives of first and second order are right, backward and forward; the third is not (TensorFlow's second derivative
of the kernel is not meant to be differentiated again). The new moving statistics are constants to differentiation.
"""

from typing import Any

import keras
import tensorflow as tf

from metassl_tf.hypergrad.products import saving_memory


def fuse(layer: Any) -> Any:
    """Makes a batch normalisation layer train in one kernel where that computes the same.

    It does on float32 or narrower inputs [batch, height, width, channels], on one replica. The statistics are float32.
    Elsewhere, and in inference mode, the layer computes as it did. So it does in forward-mode differentiation
    that saves memory.

    Args:
      layer: a `keras.layers.BatchNormalization`, changed in place. A clone or a loaded copy of it computes as Keras
        does again.

    Returns:
      The layer.
    """
    unfused = layer.call

    def call(inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        fits = training and layer.trainable and mask is None and _fits(layer, inputs) and _is_on_one_replica()
        if fits and not saving_memory():  # the kernel's second derivative makes dozens of activations
            return _fused_training(layer, inputs)
        return unfused(inputs, training=training, mask=mask)

    layer.call = call
    return layer


def _fits(layer: Any, inputs: tf.Tensor) -> bool:
    """Whether the kernel can do what the layer does."""
    return (
        inputs.shape.rank == 4
        and layer.axis in (-1, 3)
        and layer.scale
        and layer.center
        and not layer.renorm
        and keras.backend.result_type(inputs.dtype, layer.variable_dtype, "float32") == "float32"
    )


def _is_on_one_replica() -> bool:
    context = tf.distribute.get_replica_context()
    return context is not None and context.num_replicas_in_sync == 1


def _fused_training(layer: Any, inputs: tf.Tensor) -> tf.Tensor:
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.cast(inputs, tf.float32),
        scale=tf.convert_to_tensor(layer.gamma),
        offset=tf.convert_to_tensor(layer.beta),
        mean=[],
        variance=[],
        epsilon=layer.epsilon,
        is_training=True,
    )
    count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
    variance *= (count - 1.0) / count  # the kernel's is the unbiased estimate, Keras averages the biased one
    for moving, new in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        # The kernel's gradient passes over these two outputs; a gradient of None says so, and zeros would not.
        moving.assign(moving * layer.momentum + tf.stop_gradient(new) * (1.0 - layer.momentum))
    return tf.cast(outputs, layer.compute_dtype)
