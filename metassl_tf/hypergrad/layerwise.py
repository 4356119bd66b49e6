"""The gradient of every example's own loss from one forward and one backward pass of the whole batch.

This is the way of "Not All Unlabeled Data are Equal" (arXiv:2007.01293, section 3.1 and appendix B). Where no layer
looks at more than one example, the derivative of sum_u loss_u at a layer's output h_u is that of loss_u alone:
backpropagation has computed it for every example before it adds up over the batch. Times dh_u/dw, which the layer's
input gives, it is the gradient by the layer's weights w.

| layer              | gradient by its weights, x its input and d the derivative at its output            |
|--------------------|------------------------------------------------------------------------------------|
| Dense              | x (outer product) d; d for the bias                                                |
| Conv2D, Depthwise- | the same, summed over positions, for each entry of the kernel (`_filter_gradients`) |
| BatchNormalization | an affine layer: normalised x times d; d for the offset; both summed over positions |

Departs from the paper in the convolutions: they are matrix products, and not the backward function of a convolution
under `tf.vectorized_map`, which TensorFlow runs as a loop over examples.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from metassl_tf.errors import UserError


def layerwise(
    model: keras.Model, losses_of_logits: Callable[[tf.Tensor], tf.Tensor], inputs: Any, *, training: bool
) -> list[tf.Tensor]:
    """Gradients of single examples, for networks of the layers in the module's table.

    All of them are in memory at a time, [batch, parameters] floats, 1.5 GB for 256 examples of WRN-28-2, beside the
    inputs and derivatives of all layers: 7 GB in all. Meant to be called in a `tf.function`, since the model's graph is
    walked in Python, and with inputs whose shape is known but for the batch.

    In training mode every loss depends on all examples through the statistics of batch normalisation. The gradient of
    loss_u is then a row of `tf.GradientTape.jacobian` of the losses, and not to be had from one backward pass: the
    derivative at the output of an example mixes all losses. So it is refused. Without batch normalisation training mode
    is right, for the dropout that is drawn.

    Args:
      model: a functional or sequential Keras model, with other such models in it or layers used several times; its
        trainable weights are in layers of the table. Nothing in it is changed.
      losses_of_logits: maps the model's output, [batch, classes], to losses [batch], each of its own row.
      inputs: of the model, [batch, ...].
      training: whether the model runs in training mode.

    Returns:
      [batch, *variable.shape] for each of `model.trainable_variables`, in its dtype; zero where the losses do not
      depend on it.

    Raises:
      UserError: the model's graph is not known, a trainable weight is in another kind of layer, batch normalisation
        would run in training mode, or there is not one loss per example.
    """
    if not _has_graph(model):
        raise UserError(
            "Per-example gradients layer by layer need to know how the layers are connected. Expected a functional or "
            f"sequential model, built. Received {model.name} ({type(model).__name__}). Use `vectorized` instead."
        )
    calls: list[_Call] = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:

        def record(call: _Call) -> None:
            tape.watch(call.outputs)
            calls.append(call)

        losses = losses_of_logits(_tapped(model, record, training)(inputs, training=training))
    if losses.shape.rank != 1:
        raise UserError(
            f"Per-example gradients need one loss per example. Expected shape [batch]. Received {losses.shape}. Do not "
            "reduce the losses over the batch."
        )
    derivatives = tape.gradient(
        losses, [call.outputs for call in calls], unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    gradients: dict[int, tf.Tensor] = {}
    for call, derivative in zip(calls, derivatives, strict=True):
        for variable, gradient in _gradients_of_call(call, derivative):
            before = gradients.get(id(variable))
            gradients[id(variable)] = gradient if before is None else before + gradient
    for variable in model.trainable_variables:
        if id(variable) not in gradients:
            raise _unknown(f"the weight {variable.path}")
    return [gradients[id(variable)] for variable in model.trainable_variables]


@dataclasses.dataclass(frozen=True, eq=False)
class _Call:
    """One call of a layer: its input and its output."""

    layer: Any
    inputs: tf.Tensor
    outputs: tf.Tensor


class _Tap(keras.Operation):
    """Stands in for an operation of a model and calls it; `record` is told of every call if there are weights."""

    def __init__(self, operation: Any, record: Callable[[_Call], None] | None) -> None:
        super().__init__(name=operation.name)
        self._operation = operation
        self._record = record

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the operation, in the mode of the model that is being called."""
        kwargs.pop("training", None)  # the mode in which the graph was built; Keras overrides it for layers only
        outputs = self._operation(*args, **kwargs)
        if self._record is not None:
            self._record(_Call(self._operation, args[0], outputs))
        return outputs

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Leaves shape and dtype to the operation, in whose own graph there is no trace of this one."""
        return self._operation.compute_output_spec(*args, **kwargs)


def _has_graph(operation: Any) -> bool:
    return isinstance(operation, keras.Model) and bool(getattr(operation, "outputs", None))


def _tapped(model: Any, record: Callable[[_Call], None], training: bool) -> keras.Model:
    """The same network, with the same layers, which records the calls of those that have trainable weights."""

    def tap(operation: Any) -> Any:
        if _has_graph(operation):
            return _tapped(operation, record, training)
        if training and isinstance(operation, keras.layers.BatchNormalization) and operation.trainable:
            raise UserError(
                f"In training mode the layer {operation.name} makes every loss depend on the whole batch, and one "
                "backward pass does not tell the examples apart. Expected a model without batch normalisation, or "
                "inference mode. Use training=False."
            )
        has_weights = bool(getattr(operation, "trainable_variables", None))
        if has_weights and type(operation) not in _RULES:
            raise _unknown(f"the layer {operation.name} ({type(operation).__name__})")
        if has_weights and getattr(operation, "data_format", "channels_last") != "channels_last":
            raise _unknown(f"the layer {operation.name} with data_format={operation.data_format}")
        return _Tap(operation, record if has_weights else None)

    # A sequential model can only be cloned to layers, which a tap is not.
    ends = (model.inputs[0], model.outputs[0]) if isinstance(model, keras.Sequential) else (model.input, model.output)
    return keras.models.clone_model(keras.Model(*ends, name=model.name), clone_function=tap)


def _unknown(what: str) -> UserError:
    return UserError(
        f"There is no rule for the per-example gradient by {what}. Expected all trainable weights in layers among "
        f"{', '.join(kind.__name__ for kind in _RULES)}, as Keras makes them. Use `vectorized` instead, or freeze it "
        "(trainable = False)."
    )


def _gradients_of_call(call: _Call, derivative: tf.Tensor) -> list[tuple[keras.Variable, tf.Tensor]]:
    """The layer's weights, each with its per-example gradients."""
    # Under a mixed policy these are in lower precision than the weights.
    dtype = call.layer.variable_dtype
    parts = _RULES[type(call.layer)](call.layer, tf.cast(call.inputs, dtype), tf.cast(derivative, dtype))
    weights = {name: getattr(call.layer, name) for name in parts}
    return [
        (weight, tf.reshape(parts[name], [-1, *weight.shape])) for name, weight in weights.items() if weight is not None
    ]


def _dense(layer: Any, inputs: tf.Tensor, derivative: tf.Tensor) -> Mapping[str, tf.Tensor]:
    derivative = _before_activation(layer, derivative, lambda: keras.ops.matmul(inputs, layer.kernel))
    by_position = _flat(derivative)  # [B, positions, units]
    return {
        "kernel": tf.matmul(_flat(inputs), by_position, transpose_a=True),  # [B, features, units]
        "bias": tf.reduce_sum(by_position, axis=1),
    }


def _flat(values: tf.Tensor) -> tf.Tensor:
    """[batch, ..., features] -> [batch, positions, features]."""
    return tf.reshape(values, [-1, math.prod(values.shape[1:-1]), values.shape[-1]])


def _convolution(layer: Any, inputs: tf.Tensor, derivative: tf.Tensor) -> Mapping[str, tf.Tensor]:
    derivative = _before_activation(layer, derivative, lambda: layer.convolution_op(inputs, layer.kernel))
    return _filter_gradients(layer, inputs, derivative, groups=layer.groups)


def _depthwise_convolution(layer: Any, inputs: tf.Tensor, derivative: tf.Tensor) -> Mapping[str, tf.Tensor]:
    def linear() -> tf.Tensor:
        return keras.ops.depthwise_conv(
            inputs, layer.kernel, layer.strides, layer.padding, layer.data_format, layer.dilation_rate
        )

    channels = layer.kernel.shape[2]
    return _filter_gradients(layer, inputs, _before_activation(layer, derivative, linear), groups=channels)


def _filter_gradients(layer: Any, inputs: tf.Tensor, derivative: tf.Tensor, groups: int) -> Mapping[str, tf.Tensor]:
    """One matrix product for each position of the kernel: what lies under it, times the derivative at the output.

    All filters of WRN-28-2 for 64 images took 0.30 s so, on two cores; the backward function of the convolution under
    `tf.vectorized_map`, as in appendix B, 0.47 s; `tf.image.extract_patches` and one large product 0.72 s; and the
    gradients of the whole batch, the least that it could take, 0.18 s.
    """
    _, height, width, filters = derivative.shape
    blocks = inputs
    for axis, positions, size, stride, dilation in zip(
        (1, 3), (height, width), layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
    ):
        blocks = _in_blocks(blocks, axis, positions, dilation * (size - 1), stride)
    under = []
    for row in range(layer.kernel_size[0]):
        for column in range(layer.kernel_size[1]):
            down, below = divmod(row * layer.dilation_rate[0], layer.strides[0])
            right, beside = divmod(column * layer.dilation_rate[1], layer.strides[1])
            part = blocks[:, down : down + height, below, right : right + width, beside]  # [B, height, width, C]
            under.append(_in_groups(part, groups))
    grouped = _in_groups(derivative, groups)
    if height * width < filters // groups:
        # The products are larger than what they are made of, and would be copied to be put together.
        products = tf.matmul(tf.concat(under, axis=3), grouped, transpose_a=True)
        products = tf.reshape(products, [-1, groups, len(under), inputs.shape[-1] // groups, filters // groups])
    else:
        products = tf.stack([tf.matmul(part, grouped, transpose_a=True) for part in under], axis=2)
    kernel = tf.transpose(products, [0, 2, 3, 1, 4])  # [B, kernel positions, C / groups, groups, filters / groups]
    return {"kernel": kernel, "bias": tf.reduce_sum(derivative, axis=[1, 2])}


def _in_groups(values: tf.Tensor, groups: int) -> tf.Tensor:
    """[batch, height, width, channels] -> [batch, groups, height * width, channels / groups]."""
    _, height, width, channels = values.shape
    return tf.transpose(tf.reshape(values, [-1, height * width, groups, channels // groups]), [0, 2, 1, 3])


def _in_blocks(inputs: tf.Tensor, axis: int, positions: int, reach: int, stride: int) -> tf.Tensor:
    """Pads an axis as the convolution does and splits it in two, [blocks, stride].

    The inputs under one position of the kernel, `stride` apart, are then neighbors in a slice; slices with a stride
    are many times slower.

    Args:
      inputs: the layer's input.
      axis: of height or width.
      positions: how many there are in the output.
      reach: from the first to the last position of the kernel.
      stride: of the convolution.

    Returns:
      The inputs with one axis more.
    """
    blocks = positions + reach // stride
    needed = (positions - 1) * stride + reach + 1
    before = max(needed - inputs.shape[axis], 0) // 2  # always 0 for padding="valid"
    kept = inputs[(slice(None),) * axis + (slice(blocks * stride - before),)]
    padding = [[0, 0]] * len(inputs.shape)
    padding[axis] = [before, blocks * stride - before - kept.shape[axis]]
    return tf.reshape(tf.pad(kept, padding), [-1, *kept.shape[1:axis], blocks, stride, *kept.shape[axis + 1 :]])


def _before_activation(layer: Any, derivative: tf.Tensor, linear: Callable[[], tf.Tensor]) -> tf.Tensor:
    """From the derivative behind the layer's activation function to that before it.

    Args:
      layer: with an activation, which may be the identity, and perhaps a bias.
      derivative: at the layer's output.
      linear: computes the layer's output without bias and activation; only called if there is an activation.

    Returns:
      A tensor of the same shape.
    """
    if layer.activation is keras.activations.linear:
        return derivative
    affine = linear()
    if layer.bias is not None:
        affine += keras.ops.convert_to_tensor(layer.bias)
    with tf.GradientTape() as tape:
        tape.watch(affine)
        outputs = layer.activation(affine)
    return tape.gradient(outputs, affine, output_gradients=derivative)


def _batch_normalization(layer: Any, inputs: tf.Tensor, derivative: tf.Tensor) -> Mapping[str, tf.Tensor]:
    rank = len(inputs.shape)
    axis = layer.axis % rank
    mean, variance = (
        tf.reshape(keras.ops.convert_to_tensor(values), [-1 if position == axis else 1 for position in range(rank)])
        for values in (layer.moving_mean, layer.moving_variance)
    )
    normalized = (inputs - mean) * tf.math.rsqrt(variance + layer.epsilon)
    positions = [position for position in range(1, rank) if position != axis]
    return {
        "gamma": tf.reduce_sum(normalized * derivative, axis=positions),
        "beta": tf.reduce_sum(derivative, axis=positions),
    }


_RULES: dict[type, Callable[[Any, tf.Tensor, tf.Tensor], Mapping[str, tf.Tensor]]] = {
    keras.layers.Dense: _dense,
    keras.layers.Conv2D: _convolution,
    keras.layers.DepthwiseConv2D: _depthwise_convolution,
    keras.layers.BatchNormalization: _batch_normalization,
}
