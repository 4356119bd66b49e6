"""A model that learns: weights, optimizer state, schedule, weight decay, clipping and moving average in one place.

The order of an update is: all-reduce the gradient over replicas, add the L2 term, clip by the global norm, apply
the rule, then move the average. Clipping or decaying before the all-reduce would do it once per replica.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from metassl_tf.algorithms.base import Parameters
from metassl_tf.algorithms.batch import Inputs
from metassl_tf.learner import distribution, dropout, schedules, variables
from metassl_tf.learner.passes import Pass
from metassl_tf.learner.update_rules import UpdateRule, root
from metassl_tf.models.head import find_head


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimization:
    """How a learner is updated. Field meanings are those of the settings of the same names."""

    rule: UpdateRule
    schedule: schedules.Schedule
    learning_rate: float
    total_steps: int
    warmup_steps: int = 0
    l2_weight_decay: float = 0.0
    weight_decay_coverage: str = "kernels"
    gradient_clip_norm: float = 0.0
    ema_decay: float = 0.999
    ema_ramp: bool = True
    ema_statistics: bool = True


class Updated(NamedTuple):
    """What an update makes of a learner.

    Attributes:
      values: of the trainable variables.
      changes: what these are more than the present ones; of a small step they say more digits.
      slots: of the optimizer, all of one variable behind each other.
      gradient_norm: global norm of the gradient, weight decay included, before clipping.
    """

    values: list[tf.Tensor]
    changes: list[tf.Tensor]
    slots: list[tf.Tensor]
    gradient_norm: tf.Tensor


class Learner:
    """A model, and everything that changes with it.

    Create it inside `strategy.scope()`. All state that survives a step is in `state_variables`.

    Attributes:
      model: maps inputs to logits.
      optimization: how it is updated.
      head: the model's last layer; None where it does not end in a Dense layer that can be told apart.
      slots: optimizer state, `rule.num_slots` variables for each trainable variable.
      ema: moving averages of the trainable variables and of the moving statistics, in that order.
    """

    def __init__(self, model: keras.Model, optimization: Optimization, *, seed: int) -> None:
        """Creates optimizer state at zero and averages at the model's present values.

        Args:
          model: a built Keras model.
          optimization: how it is updated.
          seed: of the run; with the step it gives every dropout mask.
        """
        self.model = model
        self.optimization = optimization
        self.head = find_head(model)
        dropout.make_omittable(model)
        self._seed = seed
        self._trainable: list[keras.Variable] = list(model.trainable_variables)
        self._statistics = variables.statistics(model)
        self._seeds = variables.seeds(model)
        self._decayed = variables.decayed(model, optimization.weight_decay_coverage)
        self.slots = [
            tuple(
                keras.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False, name="slot")
                for _ in range(optimization.rule.num_slots)
            )
            for variable in self._trainable
        ]
        self.ema = [
            keras.Variable(tf.identity(variable.value), trainable=False, name="ema")
            for variable in self._trainable + self._statistics
        ]

    @property
    def trainable_variables(self) -> list[tf.Variable]:
        """What gradients are taken with respect to."""
        return [variable.value for variable in self._trainable]

    @property
    def parameters(self) -> list[keras.Variable]:
        """The trainable variables as Keras' own, for evaluating the model at other values of them."""
        return self._trainable

    def decay_of(self, parameter: keras.Variable) -> float:
        """What the L2 term adds to the diagonal of the loss' Hessian at one of the parameters."""
        decayed = {id(own): covered for own, covered in zip(self._trainable, self._decayed, strict=True)}
        return self.optimization.l2_weight_decay if decayed[id(parameter)] else 0.0

    @property
    def state_variables(self) -> dict[str, list[tf.Variable]]:
        """Everything that survives a step, by role; seed states do not, they follow from (seed, step)."""
        return {
            "model": [variable.value for variable in self._trainable + self._statistics],
            "slots": [slot.value for slots in self.slots for slot in slots],
            "ema": [variable.value for variable in self.ema],
        }

    def learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        """Learning rate of `step`, float32 scalar."""
        return schedules.learning_rate(
            self.optimization.schedule,
            base=self.optimization.learning_rate,
            warmup_steps=self.optimization.warmup_steps,
            step=step,
            total_steps=self.optimization.total_steps,
        )

    def predict(self, inputs: Inputs, *, parameters: Parameters) -> tf.Tensor:
        """Inference-mode logits [batch, classes], with the trained weights or their moving average."""
        with keras.StatelessScope(state_mapping=self._mapping(parameters)):
            return self.model(inputs, training=False)

    def begin(
        self,
        step: tf.Tensor,
        *,
        at: Sequence[tuple[keras.Variable, tf.Tensor]] = (),
        training: bool = True,
        with_dropout: bool = True,
    ) -> Pass:
        """Starts the forward passes of one training step.

        Args:
          step: the step; with the run's seed it gives every dropout mask, the same each time it is begun.
          at: values to take for some of the parameters instead of the present ones; differentiated through.
          training: whether batch normalisation and dropout do what they do in training.
          with_dropout: whether dropout does.

        Returns:
          The `Forward` of this step.
        """
        return Pass(self, step, at=at, training=training, with_dropout=with_dropout)

    def _mapping(self, parameters: Parameters) -> list[tuple[keras.Variable, tf.Tensor]]:
        """What stands for the model's variables when it is called with these weights."""
        if parameters == "raw":
            return []
        originals = self._trainable + self._statistics
        return [(variable, average.value) for variable, average in zip(originals, self.ema, strict=True)]

    def seed_mapping(self, step: tf.Tensor, number: int) -> list[tuple[keras.Variable, tf.Tensor]]:
        """A state for each seed generator, which run seed, step, replica and number of the pass determine."""
        context = distribution.replica_context()
        mapping = []
        for position, variable in enumerate(self._seeds):
            seed = tf.stack([tf.cast(self._seed, tf.int32), position])
            for data in (tf.cast(step, tf.int32), context.replica_id_in_sync_group, number):
                seed = tf.random.experimental.stateless_fold_in(seed, data, alg="philox")
            mapping.append((variable, tf.bitcast(seed, tf.uint32)))
        return mapping

    def update(
        self, gradients: Sequence[tf.Tensor], new_statistics: Sequence[tf.Tensor], *, step: tf.Tensor
    ) -> tf.Tensor:
        """Applies one update. Call it in a replica context, on every replica.

        Args:
          gradients: this replica's share of the gradient of the loss over the global batch.
          new_statistics: this replica's new moving statistics.
          step: number of updates made before.

        Returns:
          Global norm of the gradient, weight decay included, before clipping.
        """
        updated = self.pure_update(distribution.all_reduce_sum(gradients), step=step)
        self.assign(updated, new_statistics, step=step)
        return updated.gradient_norm

    def pure_update(self, gradients: Sequence[tf.Tensor], *, step: tf.Tensor) -> Updated:
        """What an update would make of the weights: a differentiable function of the gradient; nothing moves.

        Args:
          gradients: of the loss over the global batch, the same on every replica.
          step: number of updates made before.
        """
        options = self.optimization
        gradients = list(gradients)
        if options.l2_weight_decay:
            gradients = [
                gradient + options.l2_weight_decay * variable if decayed else gradient
                for gradient, variable, decayed in zip(gradients, self.trainable_variables, self._decayed, strict=True)
            ]
        norm = root(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in gradients]))
        if options.gradient_clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, options.gradient_clip_norm, use_norm=norm)
        changes, slots = self._apply_rule(gradients, step)
        values = [variable + change for variable, change in zip(self.trainable_variables, changes, strict=True)]
        return Updated(values, changes, slots, norm)

    def assign(
        self,
        updated: Updated,
        new_statistics: Sequence[tf.Tensor],
        *,
        step: tf.Tensor,
        moves: tf.Tensor | None = None,
    ) -> None:
        """Makes an update happen. Call it in a replica context, on every replica.

        Args:
          updated: what `pure_update` returned.
          new_statistics: this replica's new moving statistics.
          step: number of updates made before.
          moves: bool scalar; False leaves everything as it was. None: True.
        """
        replicas = distribution.replica_context().num_replicas_in_sync
        new_statistics = [total / replicas for total in distribution.all_reduce_sum(new_statistics)]
        averages = self._averages([*updated.values, *new_statistics], step)
        flat_slots = [slot for group in self.slots for slot in group]
        variables = [*self._trainable, *self._statistics, *flat_slots, *self.ema]
        new = [*updated.values, *new_statistics, *updated.slots, *averages]
        if moves is not None:
            new = [tf.where(moves, value, own.value) for value, own in zip(new, variables, strict=True)]
        distribution.assign_everywhere(variables, new)

    def _apply_rule(self, gradients: Sequence[tf.Tensor], step: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        rate = self.learning_rate(step)
        decay = self.optimization.rule.decoupled_weight_decay
        changes: list[tf.Tensor] = []
        new_slots: list[tf.Tensor] = []
        for gradient, variable, slots, decayed in zip(
            gradients, self.trainable_variables, self.slots, self._decayed, strict=True
        ):
            change, changed_slots = self.optimization.rule.update(
                gradient,
                variable.value(),
                tuple(slot.value.value() for slot in slots),
                learning_rate=tf.cast(rate, variable.dtype),
                step=step,
            )
            if decay and decayed:
                change -= tf.cast(rate, variable.dtype) * decay * variable
            changes.append(change)
            new_slots.extend(changed_slots)
        return changes, new_slots

    def _averages(self, values: Sequence[tf.Tensor], step: tf.Tensor) -> list[tf.Tensor]:
        """EMA after the update: decay min(d, (1 + t) / (10 + t)) where ramped, with t updates made before."""
        options = self.optimization
        decay = tf.constant(options.ema_decay, tf.float32)
        if options.ema_ramp:
            count = tf.cast(step, tf.float32)
            decay = tf.minimum(decay, (1.0 + count) / (10.0 + count))
        averages = []
        for position, (average, value) in enumerate(zip(self.ema, values, strict=True)):
            if position >= len(self._trainable) and not options.ema_statistics:
                averages.append(value)  # moving statistics are averages already
            else:
                keep = tf.cast(decay, value.dtype)
                averages.append(keep * average.value + (1.0 - keep) * value)
        return averages
