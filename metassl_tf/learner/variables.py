"""Which of a model's variables are what: random seeds, moving statistics, kernels, normalisation."""

import keras

COVERAGES = ("kernels", "all_but_norm", "all")

_NORMALIZATION_LAYERS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
)


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Every layer of a model, those within others too, which a user's own layers may hold in attributes or lists."""
    # The walk behind Keras' own `Model.layers`, which is public, but without what a layer holds. TensorFlow's public
    # walk, `tf.train.TrackableView`, misses what is held in lists, and one of our own would read more that is private.
    # Keras is pinned, and a test with layers in a list and in a model fails where an upgrade changes this.
    return list(model._flatten_layers())  # noqa: SLF001 - the only complete walk, see above


def is_seed(variable: keras.Variable) -> bool:
    """Whether the variable is the state of a Keras seed generator (dropout and the like)."""
    return variable.name == "seed_generator_state"


def statistics(model: keras.Model) -> list[keras.Variable]:
    """Moving statistics of normalisation layers: what is neither trained nor a random seed.

    Integers, such as the number of examples that a Normalization layer was adapted to, have no mean over replicas or
    steps; no layer changes them in training.
    """
    return [
        variable
        for variable in model.non_trainable_variables
        if not is_seed(variable) and keras.backend.is_float_dtype(variable.dtype)
    ]


def seeds(model: keras.Model) -> list[keras.Variable]:
    """States of the model's seed generators."""
    return [variable for variable in model.non_trainable_variables if is_seed(variable)]


def decayed(model: keras.Model, coverage: str) -> list[bool]:
    """Which trainable variables weight decay covers, in the model's order.

    Args:
      model: any Keras model.
      coverage: `kernels` (FixMatch, MixMatch: kernels of dense and convolution layers), `all_but_norm` (Meta
        Pseudo Labels: everything outside normalisation layers, biases included), `all` (UDA).

    Returns:
      One bool per trainable variable.
    """
    normalization = {
        id(variable)
        for layer in all_layers(model)
        if isinstance(layer, _NORMALIZATION_LAYERS)
        for variable in layer.variables
    }
    if coverage == "all":
        return [True for _ in model.trainable_variables]
    if coverage == "all_but_norm":
        return [id(variable) not in normalization for variable in model.trainable_variables]
    return ["kernel" in variable.name for variable in model.trainable_variables]
