"""The forward passes of one training step: what an algorithm is given to run the network with."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import keras
import tensorflow as tf

from metassl_tf.algorithms.batch import Inputs
from metassl_tf.learner import dropout, variables

if TYPE_CHECKING:
    from metassl_tf.learner.learner import Learner


class Call(NamedTuple):
    """What one forward pass of a step left behind.

    Attributes:
      features: the head's input, [joint batch, features]; None where the model has no head.
      logits: name -> [batch, classes].
    """

    features: tf.Tensor | None
    logits: dict[str, tf.Tensor]


class Pass:
    """The forward passes of one step of one learner: the `Forward` that an algorithm is given.

    Attributes:
      new_statistics: moving statistics after the step, in the model's order.
      calls: the passes made so far.
    """

    def __init__(
        self,
        learner: "Learner",
        step: tf.Tensor,
        *,
        at: Sequence[tuple[keras.Variable, tf.Tensor]],
        training: bool,
        with_dropout: bool,
    ) -> None:
        """Starts at the learner's present state; see `Learner.begin`."""
        self._learner = learner
        self._step = step
        self._at = at
        self._training = training
        self._with_dropout = with_dropout
        self._updated = False
        self.calls: list[Call] = []
        self.new_statistics: list[tf.Tensor] = [
            tf.convert_to_tensor(variable.value) for variable in variables.statistics(learner.model)
        ]

    def __call__(
        self,
        inputs: Mapping[str, Inputs],
        *,
        update_statistics: bool = True,
    ) -> dict[str, tf.Tensor]:
        """Runs one joint training-mode pass; see `metassl_tf.algorithms.base.Forward`.

        Raises:
          ValueError: a second pass of the step asks to update the moving statistics.
        """
        if update_statistics and self._updated:
            raise ValueError(
                "Two forward passes of one step asked to update the moving statistics; expected exactly one. "
                "Pass update_statistics=False to the others."
            )
        self._updated |= update_statistics
        learner = self._learner
        mapping = [*learner.seed_mapping(self._step, len(self.calls)), *self._at]
        joint = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *inputs.values())
        noise = contextlib.nullcontext() if self._with_dropout else dropout.omitted()
        with noise, keras.StatelessScope(state_mapping=mapping) as scope:
            if learner.head is None:
                features, logits = None, learner.model(joint, training=self._training)
            else:
                features, logits = learner.head.probe(joint, training=self._training)
        if update_statistics:
            moved = [scope.get_current_value(variable) for variable in variables.statistics(learner.model)]
            self.new_statistics = [
                old if new is None else new for old, new in zip(self.new_statistics, moved, strict=True)
            ]
        sizes = [tf.nest.flatten(part)[0].shape[0] for part in inputs.values()]
        # Losses of a network that computes in lower precision are taken in float32.
        precise = logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)
        parts = dict(zip(inputs, tf.split(precise, sizes), strict=True))
        self.calls.append(Call(features, parts))
        return parts
