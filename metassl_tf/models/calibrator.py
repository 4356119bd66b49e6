"""The teacher of reduced Meta Pseudo Labels: a small network from a distribution over classes to a better one.

Five layers with ReLU between them (arXiv:2003.10580v1, section 3.2 and appendix C.2): four hidden ones and the output.
"Many actions of the reduced teacher would be close to an identity map": the output is added to the logarithm of what
came in, and starts at zero, so that it is one.

Departs from the paper, which says nothing of a start: a network with random weights gives labels that have nothing to
do with the image, and has to find the identity first (`start="random"`).
"""

from typing import Literal

import keras

_HIDDEN_LAYERS = 4
_SMALLEST = 1e-7  # a probability of 0 has no logarithm

Start = Literal["identity", "random"]


def build_calibrator(num_classes: int, *, units: int, start: Start) -> keras.Model:
    """Makes the network with new weights.

    Args:
      num_classes: K.
      units: of each hidden layer.
      start: `identity` for a network that returns what it is given; `random` for the paper's plain perceptron.

    Returns:
      A model from distributions, float32 [batch, K], to logits [batch, K].
    """
    given = keras.Input((num_classes,), dtype="float32", name="distribution")
    features = given
    for number in range(1, _HIDDEN_LAYERS + 1):
        features = keras.layers.Dense(units, activation="relu", name=f"hidden{number}")(features)
    identity = start == "identity"
    initializer = "zeros" if identity else "glorot_uniform"
    logits = keras.layers.Dense(num_classes, kernel_initializer=initializer, dtype="float32", name="logits")(features)
    if identity:
        logits += keras.ops.log(keras.ops.maximum(given, _SMALLEST))
    return keras.Model(given, logits, name="calibrator")
