"""The training step with learned weights: every step uses them, every N-th moves them."""

import functools
from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

from metassl_tf.algorithms.base import Algorithm, Context
from metassl_tf.algorithms.batch import Batch, Side
from metassl_tf.errors import UserError
from metassl_tf.hypergrad.last_layer import LARGEST_EXACT
from metassl_tf.hypergrad.solvers import GROWN
from metassl_tf.learner import distribution
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.passes import Call
from metassl_tf.learner.step import Pending, Sums
from metassl_tf.meta.influence import Influence, Inverse, influence
from metassl_tf.meta.per_example_weights import PerExampleWeights
from metassl_tf.meta.scopes import (
    LastLayer,
    Objective,
    StepLosses,
    head_inputs,
    network_objective,
    scope_parameters,
    validation_share,
)
from metassl_tf.meta.weight_table import WeightTable

_LOSS = "weights/validation_loss"
_INFLUENCE = "weights/influence_size"


class WeightedTraining(Protocol):
    """A step in which one learner learns from unlabeled examples, be it alone or not."""

    @property
    def learner(self) -> Learner:
        """The one whose unlabeled examples have weights."""

    @property
    def algorithm(self) -> Algorithm:
        """What gives that learner's losses."""

    def begin_step(
        self, batch: Batch, context: Context, unlabeled_weight: tf.Tensor, example_weights: tf.Tensor | None = None
    ) -> Pending:
        """Evaluates a step that has moved nothing yet; see `metassl_tf.learner.step.Training`."""


class Weighting:
    """Per-example weights on top of an algorithm.

    Attributes:
      settings: how weights are learned.
      table: the weights.
      every: steps between two updates, N.
    """

    def __init__(
        self,
        settings: PerExampleWeights,
        table: WeightTable,
        training: WeightedTraining,
        *,
        every: int,
        seed: int,
    ) -> None:
        """Checks that the model and the algorithm allow what the settings ask for.

        Args:
          settings: how weights are learned.
          table: a row for every unlabeled example.
          training: in which the weighted examples are learned from.
          every: steps between two updates.
          seed: of the run, for stochastic estimation.

        Raises:
          UserError: the model has no last layer of the kind that the settings need, or it is too large.
        """
        self.settings, self.table, self.every = settings, table, every
        self._training, self._learner, self._algorithm = training, training.learner, training.algorithm
        self._seed = seed
        _check_scope(settings, training.learner)
        with tf.device("/CPU:0"):
            self._grew_at = tf.Variable(-1, dtype=tf.int64, trainable=False, name="series_grew_at")

    @property
    def state_variables(self) -> list[tf.Variable]:
        """Everything that survives a step."""
        return self.table.state_variables

    def is_due(self, step: tf.Tensor) -> tf.Tensor:
        """Whether a step moves the weights, bool scalar."""
        return tf.logical_and(step % self.every == 0, step >= self.settings.weight_warmup_steps)

    def first_due(self, step: int) -> int:
        """The first step from `step` on that moves the weights."""
        start = max(step, self.settings.weight_warmup_steps)
        return -(-start // self.every) * self.every

    def plain_step(self, batch: Batch, context: Context, unlabeled_weight: tf.Tensor) -> Sums:
        """A step that uses the weights, on one replica."""
        sums = self._training.begin_step(
            batch, context, unlabeled_weight, self.table.weights(batch.unlabeled.index)
        ).apply()
        return sums | {_LOSS: tf.zeros([2]), _INFLUENCE: tf.zeros([2])}

    def moving_step(
        self, batch: Batch, validation: Side, context: Context, unlabeled_weight: tf.Tensor
    ) -> tuple[Sums, tf.Tensor, tf.Tensor, tf.Tensor]:
        """A step that uses the weights and finds out where they should go, on one replica.

        Influence and training see the same weights of examples and of the network, those before the step.

        Returns:
          The metrics; index and derivative of the global batch, [batch] each; whether the series for H^-1 grew.
        """
        weights = self.table.weights(batch.unlabeled.index)
        pending = self._training.begin_step(batch, context, unlabeled_weight, weights)
        evaluated = pending.evaluated
        found = self.influence_of(
            evaluated.batch, validation, context, evaluated.unlabeled_weight, evaluated.forward.calls
        )
        sums = pending.apply()
        index, derivative = distribution.gather_all([batch.unlabeled.index, found.derivative])
        size = tf.reduce_mean(tf.abs(derivative))
        # An influence that is not finite is left out and counted; it must not stop the run.
        sums[_INFLUENCE] = tf.where(tf.math.is_finite(size), tf.stack([size, 1.0]), tf.zeros([2]))
        sums[_LOSS] = tf.stack([found.validation_loss, 1.0])
        return sums, index, derivative, found.grew

    def influence_of(
        self,
        batch: Batch,
        validation: Side,
        context: Context,
        unlabeled_weight: tf.Tensor,
        calls: Sequence[Call],
    ) -> Influence:
        """Derivatives by the weights of this replica's examples, before anything moves.

        Args:
          batch: this replica's part of the global batch.
          validation: its part of the validation batch, with the view "plain".
          context: where in the run this is.
          unlabeled_weight: float32 scalar.
          calls: the forward passes that the algorithm has made of the batch at the present weights.
        """
        step = StepLosses(
            algorithm=self._algorithm,
            batch=batch,
            context=context,
            unlabeled_weight=unlabeled_weight,
            example_weights=self.table.weights(batch.unlabeled.index),
            masked=not self.settings.move_masked,
        )
        objective, layer = self._objective(step, calls, validation)
        seed = tf.random.experimental.stateless_fold_in(
            tf.constant([self._seed & 0x7FFFFFFF, 0x5EED]), tf.cast(context.step, tf.int32), alg="philox"
        )
        return influence(objective, self._inverse, layer=layer, seed=seed)

    def move(self, step: tf.Tensor, index: tf.Tensor, derivative: tf.Tensor, grew: tf.Tensor) -> None:
        """Moves the weights of a global batch; call it outside of replicas."""
        self._grew_at.assign(tf.where(grew & (self._grew_at < 0), step, self._grew_at))
        self.table.update(index, derivative)

    def check(self) -> None:
        """Stops a run whose series for the inverse Hessian grows.

        Raises:
          UserError: it does; says at which step.
        """
        step = int(self._grew_at.numpy())
        if step >= 0:
            raise UserError(f"Step {step}: {GROWN}")

    @property
    def _inverse(self) -> Inverse:
        settings = self.settings
        return Inverse(
            settings.inverse_hessian, settings.damping, settings.solver_iterations, settings.series_step_size
        )

    def _objective(
        self, step: StepLosses, calls: Sequence[Call], validation: Side
    ) -> tuple[Objective, LastLayer | None]:
        training = self.settings.influence_batch_norm == "training"
        inputs = {"validation": validation.views["plain"]}
        validation_loss = functools.partial(
            validation_share, label=validation.label, loss=self.settings.meta_validation_loss
        )
        head = self._learner.head if self.settings.influence_scope == "last_layer" else None
        if head is None:
            objective = network_objective(
                self._learner,
                self.settings.influence_scope,
                step,
                validation=inputs,
                validation_loss=validation_loss,
                training=training,
            )
            return objective, None
        if not training:
            again = self._learner.begin(step.context.step, training=False)
            step.terms(again)
            calls = again.calls
        apart = self._learner.begin(step.context.step, training=training)
        apart(inputs, update_statistics=False)
        layer = LastLayer(
            head=head,
            step=step,
            calls=calls,
            validation_features=head_inputs(head, apart.calls[0].features),
            validation_loss=validation_loss,
        )
        return layer.objective(self._learner), layer


def _check_scope(settings: PerExampleWeights, learner: Learner) -> None:
    scope, method = settings.influence_scope, settings.inverse_hessian
    if scope == "last_layer" and learner.head is None:
        raise UserError(
            "--influence_scope=last_layer needs a model that ends in one Dense layer without activation, and this one "
            "does not. Expected --influence_scope=last_block or all, with --inverse_hessian=identity or another "
            "approximation."
        )
    if method != "exact":
        return
    if scope != "last_layer":
        raise UserError(
            f"--inverse_hessian=exact has a closed form for the last layer only; --influence_scope={scope}. Expected "
            "--influence_scope=last_layer, or identity, neumann, conjugate_gradient, stochastic or unrolled."
        )
    size = sum(int(tf.size(parameter.value)) for parameter in scope_parameters(learner, scope))
    if size > LARGEST_EXACT:
        raise UserError(
            f"--inverse_hessian=exact would factorise a matrix of {size} rows. Expected at most {LARGEST_EXACT}: use "
            "--inverse_hessian=conjugate_gradient, which never forms it."
        )
