"""What all backbones share: the contract, batch normalisation over all replicas, and the classifier.

A model is a functional `keras.Model` from float32 inputs [batch, *input_shape], normalised already, to float32 logits
[batch, num_classes]. Its last layer is the Dense layer "classifier", which computes in float32 under every dtype
policy; the penultimate features are that layer's input.
"""

from typing import Any, Protocol

import keras

from metassl_tf.errors import UserError
from metassl_tf.models.batch_norm import fuse


class ModelSettings(Protocol):
    """The settings of one kind of model: a frozen dataclass whose fields are declared with `setting`."""

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
        """Makes the network with new random weights, drawn from Keras' global seed.

        Args:
          input_shape: shape of one example, without the batch.
          num_classes: number of logits.

        Returns:
          A functional model from float32 [batch, *input_shape] to float32 logits [batch, num_classes].

        Raises:
          UserError: the settings do not fit each other or the input shape.
        """


def inputs_of(input_shape: tuple[int, ...]) -> keras.KerasTensor:
    """Returns the symbolic float32 input [batch, *input_shape]; float32 also where the policy computes in bfloat16."""
    return keras.Input(input_shape, dtype="float32", name="inputs")


def batch_normalization(momentum: float, epsilon: float, name: str) -> keras.layers.Layer:
    """Returns batch normalisation over the last axis, with the statistics of the global batch.

    Replicas that each normalised by their own part of the batch would compute another function than one device does.
    """
    return fuse(keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon, synchronized=True, name=name))


def classifier(
    features: keras.KerasTensor,
    num_classes: int,
    dropout: float,
    kernel_initializer: Any = "glorot_uniform",
    bias_initializer: Any = "zeros",
) -> keras.KerasTensor:
    """Ends a model: dropout where asked for, then the Dense layer "classifier" in float32.

    Args:
      features: penultimate features [batch, num_features].
      num_classes: number of logits.
      dropout: rate of the dropout before the Dense layer; 0 adds no layer.
      kernel_initializer: of the Dense layer, as Keras takes it.
      bias_initializer: of the Dense layer, as Keras takes it.

    Returns:
      Float32 logits [batch, num_classes].
    """
    if dropout > 0:
        features = keras.layers.Dropout(dropout, name="dropout")(features)
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=kernel_initializer,
        bias_initializer=bias_initializer,
        dtype="float32",
        name="classifier",
    )(features)


def check_image_shape(model: str, input_shape: tuple[int, ...]) -> None:
    """Checks that examples are images [height, width, channels].

    Args:
      model: name of the model, for the message.
      input_shape: shape of one example.

    Raises:
      UserError: they are not.
    """
    if len(input_shape) != 3:
        raise UserError(
            f"--model={model} takes images [height, width, channels]. Received examples of shape {list(input_shape)}. "
            "Use --model=mlp, which takes any shape."
        )


def check_model(name: str, model: keras.Model, input_shape: tuple[int, ...], num_classes: int) -> None:
    """Checks on symbolic inputs that a model maps float32 inputs to float32 logits; builds one that is not built yet.

    Args:
      name: value of `--model`, for messages.
      model: any Keras model.
      input_shape: shape of one example, without the batch.
      num_classes: number of logits.

    Raises:
      UserError: it cannot be called on the inputs, or its output has another shape, another dtype, or went through
        a softmax or sigmoid.
    """
    expected = (
        f"Expected a model from float32 inputs {_shape_text(input_shape)} to float32 logits "
        f"{_shape_text((num_classes,))}"
    )
    try:
        logits = model(keras.KerasTensor((None, *input_shape), dtype="float32"), training=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"--model={name} does not take the inputs. {expected}. It raised: {error}") from error
    if not isinstance(logits, keras.KerasTensor):
        raise UserError(f"--model={name} does not return one tensor. {expected}. Received {logits!r}.")
    if tuple(logits.shape) != (None, num_classes):
        raise UserError(
            f"--model={name} does not return one logit per class. {expected}. Received {_shape_text(logits.shape[1:])}."
        )
    if logits.dtype != "float32":
        raise UserError(
            f"--model={name} computes its output in lower precision. {expected}. Received {logits.dtype}. "
            'Give its last layer dtype="float32".'
        )
    activation = _final_activation(model)
    if activation:
        raise UserError(
            f"--model={name} returns probabilities. {expected}. Received the output of a {activation}: leave it out."
        )


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join(['batch', *map(str, shape)])}]"


def _final_activation(model: keras.Model) -> str:
    """Name of the softmax or sigmoid that ends a functional or sequential model, or an empty string."""
    # The layers of other models stand in the order of their definition, which says nothing about the last.
    if not getattr(model, "outputs", None):
        return ""
    last = model.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    activation = getattr(last, "activation", None)
    return activation.__name__ if activation in (keras.activations.softmax, keras.activations.sigmoid) else ""
