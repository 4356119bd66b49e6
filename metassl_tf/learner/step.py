"""One training step: from per-example terms to an update. The only place where losses are reduced."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from metassl_tf.algorithms.base import Algorithm, Average, Context, Losses, Term
from metassl_tf.algorithms.batch import Batch
from metassl_tf.learner import distribution
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.passes import Pass

Sums = dict[str, tf.Tensor]


class Evaluated(NamedTuple):
    """Losses and gradients of a step at the present weights, before anything moves.

    Attributes:
      batch: what the step learns from.
      unlabeled_weight: float32 scalar, on every unlabeled term.
      forward: the passes that the algorithm made.
      losses: what it returned.
      gradients: of this replica's share of the loss, one per trainable variable.
      sums: name -> (sum, count) of this replica, float32 [2].
    """

    batch: Batch
    unlabeled_weight: tf.Tensor
    forward: Pass
    losses: Losses
    gradients: list[tf.Tensor]
    sums: Sums


class Pending(NamedTuple):
    """A step of which all is known and that has moved nothing yet.

    Attributes:
      evaluated: of the learner whose unlabeled examples may have weights.
      apply: makes everything move, and returns the metrics of the global batch.
    """

    evaluated: Evaluated
    apply: Callable[[], Sums]


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """One learner and the algorithm that gives its losses.

    Attributes:
      learner: what is trained.
      algorithm: what it minimises.
    """

    learner: Learner
    algorithm: Algorithm

    def begin_step(
        self,
        batch: Batch,
        context: Context,
        unlabeled_weight: tf.Tensor,
        example_weights: tf.Tensor | None = None,
    ) -> Pending:
        """Evaluates a step on this replica's part of the global batch. Call it inside `strategy.run`.

        Args:
          batch: this replica's examples.
          context: where in the run this is.
          unlabeled_weight: float32 scalar, on every unlabeled term.
          example_weights: float32 [unlabeled batch], on every value of the unlabeled terms; None weighs all by 1.

        Returns:
          The step. Applying it returns name -> float32 [2], (sum, count) over the global batch: `loss`,
          `loss/<term>`, `gradient_norm` and the algorithm's metrics.
        """
        evaluated = evaluate(
            self.learner,
            self.algorithm,
            batch,
            context,
            unlabeled_weight=unlabeled_weight,
            example_weights=example_weights,
        )
        return Pending(evaluated, lambda: _apply(self.learner, evaluated, context))

    def learning_rates(self, step: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Name -> learning rate of a step, float32 scalar."""
        return {"learning_rate": self.learner.learning_rate(step)}


def evaluate(
    learner: Learner,
    algorithm: Algorithm,
    batch: Batch,
    context: Context,
    *,
    unlabeled_weight: tf.Tensor,
    example_weights: tf.Tensor | None = None,
    at: Sequence[tf.Tensor] | None = None,
) -> Evaluated:
    """The first half of a step: forward, losses, gradients; see `Training.begin_step`.

    `at` are the values of the learner's parameters, where they were read before; an equal pass with the same tensors
    is then made once.
    """
    parameters = learner.trainable_variables if at is None else list(at)
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        forward = learner.begin(context.step, at=[] if at is None else list(zip(learner.parameters, at, strict=True)))
        losses = algorithm.losses(forward, batch, context)
        share, sums = reduce_terms(losses, unlabeled_weight, example_weights)
    gradients = tape.gradient(share, parameters, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return Evaluated(batch, unlabeled_weight, forward, losses, gradients, sums)


def _apply(learner: Learner, evaluated: Evaluated, context: Context) -> Sums:
    norm = learner.update(evaluated.gradients, evaluated.forward.new_statistics, step=context.step)
    replicas = distribution.replica_context().num_replicas_in_sync
    # The same on every replica.
    sums = {**evaluated.sums, "gradient_norm": tf.stack([norm, 1.0]) / replicas}
    return total_sums(sums, evaluated.losses.metrics)


def total_sums(sums: Sums, averages: Mapping[str, Average]) -> Sums:
    """Adds up what is logged of a step over all replicas.

    Args:
      sums: name -> (sum, count) of this replica.
      averages: name -> values and counts of its examples.

    Returns:
      name -> (sum, count) over the global batch, float32 [2].
    """
    sums = dict(sums)
    for name, average in averages.items():
        sums[name] = tf.stack([tf.reduce_sum(average.values * average.counts), tf.reduce_sum(average.counts)])
    totals = distribution.all_reduce_sum([tf.stack(list(sums.values()))])[0]
    return dict(zip(sums, tf.unstack(totals, num=len(sums)), strict=True))


def reduce_terms(
    losses: Losses, unlabeled_weight: tf.Tensor, example_weights: tf.Tensor | None = None
) -> tuple[tf.Tensor, Sums]:
    """Reduces every term over the global batch.

    Args:
      losses: the algorithm's terms.
      unlabeled_weight: float32 scalar.
      example_weights: float32 [unlabeled batch], or None. They do not change what a term is divided by: a weight of 0
        removes an example and leaves the pull of the others as it is.

    Returns:
      This replica's share of the loss (the shares of all replicas add up to the loss), and (sum, count) of the
      loss and of each term on this replica.
    """
    replicas = distribution.replica_context().num_replicas_in_sync
    share = tf.zeros([])
    sums: Sums = {}
    one = tf.ones([])
    for factor, terms, weights in (
        (one, losses.labeled, None),
        (unlabeled_weight, losses.unlabeled, example_weights),
    ):
        for name, term in terms.items():
            values = term.counted_values
            total = tf.reduce_sum(values if weights is None else weights * values)
            divisor = _global_count(term, replicas)
            share += factor * total / divisor
            # Counts are of the global batch already: one replica's share of them keeps the ratio.
            sums[f"loss/{name}"] = tf.stack([total, divisor / replicas])
    return share, {"loss": tf.stack([share, one / replicas]), **sums}


def contributions(losses: Losses, unlabeled_weight: tf.Tensor, *, masked: bool = True) -> tf.Tensor:
    """What each unlabeled example adds to the loss at a weight of 1: the l_U of Eq. 1, divided as it is minimised.

    Args:
      losses: the algorithm's terms, each with one value per unlabeled example.
      unlabeled_weight: float32 scalar.
      masked: leave out what a term's mask removes; else it counts as if it were there.

    Returns:
      float32 [unlabeled batch] of this replica; weighted and summed over all replicas, the unlabeled part of the loss.
    """
    replicas = distribution.replica_context().num_replicas_in_sync
    return tf.add_n(
        [
            unlabeled_weight * (term.counted_values if masked else term.values) / _global_count(term, replicas)
            for term in losses.unlabeled.values()
        ]
    )


def _global_count(term: Term, replicas: int) -> tf.Tensor:
    if term.counts is None:
        return tf.constant(float(term.values.shape[0] * replicas))
    total = distribution.all_reduce_sum([tf.reduce_sum(term.counts)])[0]
    return tf.maximum(total, 1.0)
