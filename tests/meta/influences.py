"""Influences on the tiny network as the code under test has them: what the tests of influences share."""

from typing import Any

import numpy as np
import tensorflow as tf

from metassl_tf.learner.learner import Learner
from metassl_tf.meta.influence import Inverse, influence
from tests.meta import reference
from tests.meta.reference import ALGORITHMS

DAMPING = 0.05
SEED = tf.constant([1, 2])


def inverse(method: str, **settings: Any) -> Inverse:
    return Inverse(**({"method": method, "damping": DAMPING, "iterations": 20, "step_size": 0.1} | settings))


def found(
    algorithm: str,
    how: Inverse,
    *,
    scope: str = "last_layer",
    training: bool = True,
    own: Learner | None = None,
    seed: tf.Tensor = SEED,
    **step: Any,
) -> tuple[np.ndarray, float, bool]:
    """Derivative, validation loss and whether the series grew; in a graph where many products make that faster."""
    own = own or reference.learner()
    losses = reference.step_losses(ALGORITHMS[algorithm], **step)

    def once() -> Any:
        objective, layer = reference.objective(own, scope, losses, reference.validation(), training=training)
        return influence(objective, how, layer=layer, seed=seed)

    looped = how.method not in ("exact", "identity") and how.iterations > 8
    result = tf.function(once, autograph=False)() if looped else once()
    return result.derivative.numpy(), float(result.validation_loss), bool(result.grew)
