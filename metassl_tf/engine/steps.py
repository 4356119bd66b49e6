"""One training step over all replicas: what it reads, and how often it does what."""

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from metassl_tf.algorithms.base import Context
from metassl_tf.algorithms.batch import Batch
from metassl_tf.learner.step import Sums
from metassl_tf.meta.weighting import Weighting

ReplicaStep = Callable[..., Any]


class Step(Protocol):
    """One step, traced into the loop."""

    def take(self, iterator: Any, context: Context) -> Sums:
        """Takes a step with the next batch of an iterator, or of a structure of them; returns the metrics."""

    def check(self) -> None:
        """Raises a UserError where a step taken before has found something that the run must not go on with."""


class PlainStep:
    """The same on every step: the replicas share a batch."""

    def __init__(self, replica_step: Callable[[Batch, Context], Sums], *, strategy: Any, xla: bool) -> None:
        """Prepares the step.

        Args:
          replica_step: one step on one replica's batch.
          strategy: where it runs.
          xla: compile it with XLA.
        """
        self._strategy = strategy
        self._replica_step = _compiled(replica_step, xla)

    def take(self, iterator: tf.data.Iterator, context: Context) -> Sums:
        """Takes a step; see `Step.take`."""
        return _first(self._strategy, self._strategy.run(self._replica_step, args=(iterator.get_next(), context)))

    def check(self) -> None:
        """Finds nothing."""


class WeightedStep:
    """With learned weights: every N-th step reads validation examples as well, and moves the weights.

    The iterators are `{"training": .., "validation": ..}`; the second is read only by the steps that need it.
    """

    def __init__(
        self,
        weighting: Weighting,
        unlabeled_weight: Callable[[tf.Tensor], tf.Tensor],
        *,
        strategy: Any,
        xla: bool,
    ) -> None:
        """Prepares the step.

        Args:
          weighting: the rule.
          unlabeled_weight: step -> scalar weight of the unlabeled loss.
          strategy: where it runs.
          xla: compile what runs on a replica with XLA.
        """
        self._weighting, self._unlabeled_weight, self._strategy = weighting, unlabeled_weight, strategy
        self._plain, self._moving = _compiled(weighting.plain_step, xla), _compiled(weighting.moving_step, xla)

    def take(self, iterator: dict[str, tf.data.Iterator], context: Context) -> Sums:
        """Takes a step; see `Step.take`."""
        strategy, weight = self._strategy, self._unlabeled_weight(context.step)
        batch = iterator["training"].get_next()

        def plain() -> Sums:
            return _first(strategy, strategy.run(self._plain, args=(batch, context, weight)))

        def moving() -> Sums:
            validation = iterator["validation"].get_next()
            results = strategy.run(self._moving, args=(batch, validation, context, weight))
            sums, index, derivative, grew = _first(strategy, results)
            self._weighting.move(context.step, index, derivative, grew)
            return sums

        # Around the replicas: a condition within them cannot hold what adds up over them.
        return tf.cond(self._weighting.is_due(context.step), moving, plain)

    def check(self) -> None:
        """See `Weighting.check`."""
        self._weighting.check()


def _compiled(function: ReplicaStep, xla: bool) -> ReplicaStep:
    return tf.function(function, jit_compile=True, autograph=False) if xla else function


def _first(strategy: tf.distribute.Strategy, results: Any) -> Any:
    """What the first replica returned; all return the same."""
    return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], results)
