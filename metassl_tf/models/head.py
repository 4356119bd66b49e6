"""Where a network ends: the last Dense layer, whose input are the features that the closed forms speak of."""

import dataclasses
from collections.abc import Callable

import keras


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """The last layer of a model.

    Attributes:
      kernel: [features, outputs].
      bias: [outputs], or None.
      probe: the model with two outputs: features [batch, features], logits [batch, classes].
      logits_of: maps the Dense layer's outputs to the logits: what follows it has no weights and no random numbers.
    """

    kernel: keras.Variable
    bias: keras.Variable | None
    probe: Callable[..., tuple[keras.KerasTensor, keras.KerasTensor]]
    logits_of: Callable[[keras.KerasTensor], keras.KerasTensor]

    @property
    def parameters(self) -> list[keras.Variable]:
        """Kernel and, where there is one, bias."""
        return [self.kernel] if self.bias is None else [self.kernel, self.bias]


def find_head(model: keras.Model) -> Head | None:
    """Finds the last layer of a model.

    Args:
      model: any Keras model, built.

    Returns:
      The head, or None: the model is not functional, its last layer with variables (dropout has them as well) is not
      Dense, or is frozen, has an activation, takes more than one row per example or is used more than once, or the
      logits do not come from it alone.
    """
    layers = [layer for layer in model.layers if layer.variables] if getattr(model, "outputs", None) else []
    last = layers[-1] if layers else None
    if not isinstance(last, keras.layers.Dense) or last.activation is not keras.activations.linear:
        return None
    if not last.trainable_variables:
        return None
    try:
        features, outputs, logits = last.input, last.output, model.outputs[0]
        probe = keras.Model(model.inputs, [features, logits], name="probe")
        tail = None if logits is outputs else keras.Model(outputs, logits, name="tail")
    except ValueError:  # used more than once, or not all that the logits come from
        return None
    # A subclass' own `call` need not be what the graph of its layers says.
    overridden = type(model).call not in (type(probe).call, keras.Sequential.call)
    if overridden or len(features.shape) != 2:
        return None
    return Head(kernel=last.kernel, bias=last.bias, probe=probe, logits_of=tail or (lambda values: values))
