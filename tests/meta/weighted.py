"""A rule of learned weights on the tiny network, and the steps it takes."""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from metassl_tf.algorithms.base import Context
from metassl_tf.algorithms.batch import Batch, Side
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.step import Sums, Training
from metassl_tf.meta.per_example_weights import PerExampleWeights
from metassl_tf.meta.weight_table import WeightTable
from metassl_tf.meta.weighting import Weighting
from tests import weight_rows
from tests.learner import tiny
from tests.meta import reference
from tests.meta.reference import ALGORITHMS, UNLABELED_WEIGHT, WEIGHTS

FIXMATCH = ALGORITHMS["fixmatch"]
DAMPING = 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class Made:
    """A rule, and the steps it takes in a graph."""

    rule: Weighting
    own: Learner
    strategy: tf.distribute.Strategy

    def plain(self, step: int = 0) -> Sums:
        return self._plain(tiny.batch_for(FIXMATCH, seed=step), tf.constant(step, tf.int64))

    def moving(self, step: int = 0) -> tuple[Sums, np.ndarray]:
        """The metrics, and the derivative of every unlabeled example."""
        batch = tiny.batch_for(FIXMATCH, seed=step)
        sums, derivative = self._moving(batch, reference.validation(), tf.constant(step, tf.int64))
        return sums, derivative.numpy()

    @functools.cached_property
    def _plain(self) -> Any:
        def on_replica(batch: Batch, step: tf.Tensor) -> Sums:
            context = Context(step, tiny.STEPS)
            return self.rule.plain_step(tiny.replica_part(batch), context, tf.constant(UNLABELED_WEIGHT))

        @tf.function(autograph=False)
        def once(batch: Batch, step: tf.Tensor) -> Any:
            return tiny.first_replica(self.strategy, self.strategy.run(on_replica, args=(batch, step)))

        return once

    @functools.cached_property
    def _moving(self) -> Any:
        def on_replica(batch: Batch, examples: Side, step: tf.Tensor) -> Any:
            part = tiny.replica_part((batch, examples))
            return self.rule.moving_step(*part, Context(step, tiny.STEPS), tf.constant(UNLABELED_WEIGHT))

        @tf.function(autograph=False)
        def once(batch: Batch, examples: Side, step: tf.Tensor) -> Any:
            results = self.strategy.run(on_replica, args=(batch, examples, step))
            sums, index, derivative, grew = tiny.first_replica(self.strategy, results)
            self.rule.move(step, index, derivative, grew)
            return sums, tf.scatter_nd(index[:, tf.newaxis], derivative, [tiny.UNLABELED])

        return once

    def weights(self) -> np.ndarray:
        return self.rule.table.columns()["weight"].numpy()

    def network(self) -> list[np.ndarray]:
        return [variable.numpy() for variables in self.own.state_variables.values() for variable in variables]


def make(
    strategy: tf.distribute.Strategy | None = None,
    *,
    weights: np.ndarray | None = WEIGHTS,
    dropout: float = 0.0,
    **settings: Any,
) -> Made:
    """A rule on the tiny network whose table starts with `weights`."""
    strategy = strategy or tf.distribute.get_strategy()
    own = reference.learner(strategy, dropout=dropout)
    chosen = PerExampleWeights(**({"damping": DAMPING, "weight_optimizer": "sgd"} | settings))
    table = WeightTable(
        tiny.UNLABELED,
        strategy=strategy,
        rule=chosen.weight_optimizer,
        learning_rate=chosen.weight_learning_rate,
        initial_weight=chosen.initial_weight,
    )
    if weights is not None:
        weight_rows.assign(table, weight=weights)
    return Made(Weighting(chosen, table, Training(own, FIXMATCH), every=1, seed=0), own, strategy)
