"""Predictions for a whole set, with the trained weights and with their moving average, in one pass over the data."""

import functools
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import orbit
import tensorflow as tf

from metassl_tf.algorithms.base import Parameters
from metassl_tf.data.examples import Examples
from metassl_tf.data.pipeline import evaluation_batches
from metassl_tf.data.views import Views
from metassl_tf.engine.metrics import evaluate_logits
from metassl_tf.engine.trainer import MEND
from metassl_tf.errors import UserError
from metassl_tf.learner.learner import Learner

PARAMETERS: tuple[Parameters, ...] = get_args(Parameters)


class Evaluator(orbit.StandardEvaluator):
    """Predicts one set.

    Attributes:
      examples: the set.
    """

    def __init__(
        self,
        learner: Learner,
        examples: Examples,
        views: Views,
        *,
        batch_size: int,
        strategy: tf.distribute.Strategy,
        kinds: tuple[Parameters, ...] = PARAMETERS,
    ) -> None:
        """Prepares the batches.

        Args:
          learner: whose weights predict.
          examples: the set.
          views: how inputs are normalised.
          batch_size: over all replicas; rounded up to a multiple of their number.
          strategy: where the prediction runs.
          kinds: of weights to predict with.
        """
        replicas = strategy.num_replicas_in_sync
        batch_size = -(-min(batch_size, len(examples)) // replicas) * replicas
        super().__init__(evaluation_batches(examples, views, batch_size=batch_size, strategy=strategy))
        self.examples = examples
        self._learner = learner
        self._strategy = strategy
        self._kinds = kinds
        self._num_batches = -(-len(examples) // batch_size)

    def create_eval_loop_fn(self, has_state: bool) -> Callable[..., Any]:
        """Calls the compiled step for each batch, as orbit does."""
        del has_state  # there always is one
        # TensorFlow counts the graphs of a method over all its objects and would warn of many sets; not of a partial.
        return orbit.utils.create_loop_fn(tf.function(functools.partial(self.eval_step)))

    def eval_begin(self) -> list[Any]:
        """Starts an empty list of batches."""
        return []

    def eval_step(self, iterator: tf.data.Iterator) -> dict[str, tuple[tf.Tensor, ...]]:
        """Logits of one batch, a tensor per replica, for each kind of weights."""

        def predict(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            return {kind: tf.cast(self._learner.predict(inputs, parameters=kind), tf.float32) for kind in self._kinds}

        logits = self._strategy.run(predict, args=(next(iterator),))
        return {kind: self._strategy.experimental_local_results(value) for kind, value in logits.items()}

    def eval_reduce(self, state: list[Any], step_outputs: dict[str, tuple[tf.Tensor, ...]]) -> list[Any]:
        """Keeps a batch's logits on the host."""
        state.append({kind: np.concatenate(parts) for kind, parts in step_outputs.items()})
        return state

    def eval_end(self, state: list[Any]) -> dict[str, np.ndarray]:
        """Joins the batches and drops what filled up the last one."""
        return {kind: np.concatenate([batch[kind] for batch in state])[: len(self.examples)] for kind in self._kinds}

    def logits(self) -> dict[str, np.ndarray]:
        """Returns the logits of every example for each kind of weights, float32 [examples, classes]."""
        output: dict[str, np.ndarray] = self.evaluate(tf.constant(self._num_batches))
        return output

    def metrics(self, step: int) -> dict[str, dict[str, Any]]:
        """Measures each kind of weights.

        Args:
          step: number of steps taken, for the message.

        Returns:
          The metrics of each kind; see `metrics.evaluate_logits`.

        Raises:
          UserError: a prediction is infinite or NaN.
        """
        predicted = self.logits()
        for kind, logits in predicted.items():
            if not np.isfinite(logits).all():
                raise UserError(
                    f"The predictions with the {kind} weights became infinite or NaN before step {step}. Expected "
                    f"finite ones; {MEND}"
                )
        return {kind: evaluate_logits(logits, self.examples.labels) for kind, logits in predicted.items()}
