"""One row per unlabeled example: its weight, the state of the weight's optimizer, and what was last seen of it.

A step gathers the rows of its batch and scatters them back; the size of the table never enters the cost. The table is
keyed to the split, whose order of unlabeled examples its rows follow.
"""

import contextlib

import numpy as np
import tensorflow as tf

from metassl_tf.errors import UserError
from metassl_tf.meta.masked_adam import DENSE_RULES, RULES, Rows

PERCENTILES = (0, 10, 25, 50, 75, 90, 100)

# Columns: weight, first moment, second moment, number of updates, latest influence. A row lies together in memory:
# fetching rows is what an update of a huge table costs. Float32 counts exactly up to 2^24 updates of one example.
_COLUMNS = 5
_WEIGHT, _COUNT, _INFLUENCE = 0, 3, 4


class WeightTable:
    """Learned weights of all unlabeled examples.

    Attributes:
      size: number of rows.
      updates: int64 scalar, number of updates of the table.
      skipped: int64 scalar, updates that were left out because an influence was not finite.
    """

    def __init__(
        self,
        size: int,
        *,
        strategy: tf.distribute.Strategy,
        rule: str,
        learning_rate: float,
        initial_weight: float = 1.0,
        max_weight: float = 0.0,
        on_host: bool = False,
        split_hash: str = "0",
    ) -> None:
        """Creates the table with every weight at its initial value.

        Args:
          size: number of unlabeled examples; 1 for a single weight that all share.
          strategy: whose replicas each hold a copy, unless it is on the host.
          rule: a key of `masked_adam.RULES`.
          learning_rate: of the weights.
          initial_weight: of every example.
          max_weight: upper bound; 0 for none. The lower bound is 0.
          on_host: keep one copy in the host's memory.
          split_hash: hexadecimal hash of the split that the rows belong to.
        """
        self.size = size
        self._strategy, self._on_host = strategy, on_host
        self._rule, self._dense = RULES[rule], rule in DENSE_RULES
        self._learning_rate = learning_rate
        self._max_weight = max_weight
        self._key = int(split_hash[:15], 16)
        place = contextlib.ExitStack()
        place.enter_context(tf.device("/CPU:0") if on_host else strategy.scope())
        with place:
            fresh = [float(initial_weight) if column == _WEIGHT else 0.0 for column in range(_COLUMNS)]
            self._rows = _variable("rows", tf.tile(tf.constant([fresh]), [size, 1]))
            self._scalars = _variable("scalars", tf.constant([0, 0, self._key], tf.int64))

    @property
    def state_variables(self) -> list[tf.Variable]:
        """Everything that survives a step."""
        return [self._rows, self._scalars]

    @property
    def updates(self) -> tf.Tensor:
        """Number of updates of the table, int64 scalar."""
        return self._scalars[0]

    @property
    def skipped(self) -> tf.Tensor:
        """Number of updates left out because an influence was not finite, int64 scalar."""
        return self._scalars[1]

    def columns(self) -> dict[str, tf.Tensor]:
        """The rows as a user reads them: `weight`, `updates`, `latest_influence`, each [size]."""
        return {
            "weight": self._rows[:, _WEIGHT],
            "updates": tf.cast(self._rows[:, _COUNT], tf.int64),
            "latest_influence": self._rows[:, _INFLUENCE],
        }

    def summary(self) -> dict[str, float]:
        """How the weights lie: percentiles, mean, share at 0, updates per example so far, and skipped updates."""
        weights = self._rows[:, _WEIGHT].numpy()
        values = np.percentile(weights, PERCENTILES)
        return {
            **{f"percentile_{rank}": float(value) for rank, value in zip(PERCENTILES, values, strict=True)},
            "mean": float(weights.mean()),
            "share_zero": float(np.mean(weights == 0)),
            "updates_per_example": float(self._rows[:, _COUNT].numpy().mean(dtype=np.float64)),
            "skipped_updates": int(self.skipped),
        }

    def check_key(self) -> None:
        """Compares the split that a restored table belongs to with this run's.

        Raises:
          UserError: they differ.
        """
        if int(self._scalars[2]) != self._key:
            raise UserError(
                "The learned weights in the checkpoint belong to another split of the examples, so that each would be "
                "given to the wrong one. Expected the split of this run: start in a new --workdir."
            )

    def weights(self, index: tf.Tensor) -> tf.Tensor:
        """Weights of some examples, float32 [batch]; callable inside and outside of replicas.

        Args:
          index: int64 [batch], rows; all mean row 0 of a table of one row.
        """
        return self._gather(self._places(index))[:, _WEIGHT]

    def _places(self, index: tf.Tensor) -> tf.Tensor:
        return tf.zeros_like(index) if self.size == 1 else index

    def update(self, index: tf.Tensor, influence: tf.Tensor) -> None:
        """Moves the weights of a global batch. Call it outside of replicas.

        An example that is in the batch more than once moves once, by the sum of its derivatives. An update with an
        influence that is not finite is skipped as a whole and counted.

        Args:
          index: int64 [batch].
          influence: derivative of the validation loss by each weight, float32 [batch]; 0 leaves an example alone.
        """
        finite = tf.reduce_all(tf.math.is_finite(influence))
        influence = tf.where(finite, influence, 0.0)
        places = self._places(index)
        _, duplicate_of = tf.unique(places)
        summed = tf.gather(tf.math.unsorted_segment_sum(influence, duplicate_of, tf.size(places)), duplicate_of)
        if self._dense:
            scattered = tf.scatter_nd(places[:, tf.newaxis], influence, [self.size])
            places, summed = tf.range(self.size, dtype=tf.int64), scattered
        before = self._gather(places)
        weight, first, second, count, seen = tf.unstack(before, axis=1)
        rows = Rows(weight, first, second, tf.cast(count, tf.int64))
        moved = self._rule(rows, summed, self._learning_rate, self.updates)
        seen = tf.where(tf.not_equal(summed, 0.0), summed, seen)
        count = tf.cast(moved.count, tf.float32)
        after = tf.stack([self._project(moved.weight), moved.first_moment, moved.second_moment, count, seen], axis=1)
        self._scatter(self._rows, places, tf.where(finite, after, before))
        counted = tf.stack([tf.cast(finite, tf.int64), tf.cast(~finite, tf.int64)])
        self._scatter(self._scalars, tf.constant([0, 1], tf.int64), self._scalars[:2] + counted)

    def _project(self, weight: tf.Tensor) -> tf.Tensor:
        weight = tf.maximum(weight, 0.0)  # Lambda >= 0, Eq. 2
        return tf.minimum(weight, self._max_weight) if self._max_weight else weight

    def _gather(self, places: tf.Tensor) -> tf.Tensor:
        # tf.gather would read, and after a first update copy, the whole of a variable with a copy on each replica.
        outside = tf.distribute.in_cross_replica_context()
        local = self._strategy.experimental_local_results(self._rows)[0] if outside else self._rows
        return tf.raw_ops.ResourceGather(resource=local.handle, indices=places, dtype=tf.float32)

    def _scatter(self, variable: tf.Variable, places: tf.Tensor, values: tf.Tensor) -> None:
        # Rows that occur twice are written twice with the same values.
        if self._on_host:
            variable.scatter_update(tf.IndexedSlices(values, places))
            return
        self._strategy.extended.update(
            variable,
            lambda local, where, new: local.scatter_update(tf.IndexedSlices(new, where)),
            args=(places, values),
            group=False,
        )


def _variable(name: str, value: tf.Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
