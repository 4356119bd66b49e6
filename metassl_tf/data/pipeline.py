"""From a split to batches: gather, augment, normalise; every batch a pure function of (seed, step).

The pipeline obeys an algorithm's `Needs` and never asks which algorithm it is. It works on the global batch and
then hands each replica its part, so that one device and several see the same examples under the same augmentation.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import tensorflow as tf

from metassl_tf.algorithms.base import Beta, Needs
from metassl_tf.algorithms.batch import Batch, Side, View
from metassl_tf.data import order
from metassl_tf.data.examples import Examples
from metassl_tf.data.views import Views, reader
from metassl_tf.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Everything that determines the batches.

    Attributes:
      labeled: the labeled examples, in the split's order.
      unlabeled: the unlabeled ones, in the split's order; empty where the algorithm uses none.
      views: how views are made.
      needs: what the algorithm wants.
      batch_size: labeled examples per step, over all replicas.
      unlabeled_batch_size: unlabeled examples per step, over all replicas.
      seed: of order, augmentation and draws.
    """

    labeled: Examples
    unlabeled: Examples
    views: Views
    needs: Needs
    batch_size: int
    unlabeled_batch_size: int
    seed: int

    def batches(self, *, start_step: int, strategy: tf.distribute.Strategy) -> tf.data.Dataset:
        """An endless dataset of batches, from any step on.

        Args:
          start_step: first step, counted from 0.
          strategy: whose replicas each get their part of every batch.

        Returns:
          A dataset of `Batch`, distributed where the strategy has several replicas.

        Raises:
          UserError: a batch size that the replicas cannot share evenly, or a column that the algorithm needs and the
            examples lack.
        """
        replicas = strategy.num_replicas_in_sync
        for flag, size in (
            ("batch_size", self.batch_size),
            ("batch_size x unlabeled_ratio", self.unlabeled_batch_size),
        ):
            if size % replicas:
                raise UserError(
                    f"--{flag} is {size}, which {replicas} replicas cannot share evenly. "
                    f"Expected a multiple of {replicas}."
                )
        steps = tf.data.Dataset.range(start_step, tf.int64.max)
        dataset = steps.map(_plain(self.batch_function()), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        if replicas == 1:
            return dataset.prefetch(tf.data.AUTOTUNE)
        return strategy.distribute_datasets_from_function(
            lambda _: dataset.flat_map(_parts(replicas)).prefetch(tf.data.AUTOTUNE)
        )

    def batch_function(self) -> Callable[[tf.Tensor], Batch]:
        """Returns the function from a step, int64 scalar, to its global batch; every tensor has a static shape.

        Raises:
          UserError: the algorithm needs a kind of view that there is not, or a column that the examples lack.
        """
        needs = self.needs
        _check_views("labeled", needs.labeled_views)
        _check_views("unlabeled", needs.unlabeled_views)
        _check_columns("labeled", self.labeled, needs.labeled_columns)
        _check_columns("unlabeled", self.unlabeled, needs.unlabeled_columns)
        unlabeled_size = self.unlabeled_batch_size if needs.unlabeled_views else 0
        labeled = self._side("labeled", self.labeled, needs.labeled_views, needs.labeled_columns, self.batch_size)
        unlabeled = self._side(
            "unlabeled", self.unlabeled, needs.unlabeled_views, needs.unlabeled_columns, unlabeled_size
        )

        def batch(step: tf.Tensor) -> Batch:
            draws = {
                name: _draw(draw, self.batch_size, order.at_step(order.named_seed(self.seed, f"draw {name}"), step))
                for name, draw in needs.draws.items()
            }
            return Batch(labeled(step), unlabeled(step), draws)

        return batch

    def _side(
        self, name: str, pool: Examples, wanted: Mapping[str, str], column_names: Sequence[str], size: int
    ) -> Callable[[tf.Tensor], Side]:
        if not size:
            return lambda _: Side({}, tf.zeros([0], tf.int64), tf.zeros([0], tf.int64), {})
        read, labels = reader(pool), tf.constant(pool.labels)
        with tf.device("/CPU:0"):  # where batches are made
            columns = {column: tf.constant(pool.columns[column]) for column in column_names}

        def side(step: tf.Tensor) -> Side:
            def seed_of(view: str) -> tf.Tensor:
                return order.at_step(order.named_seed(self.seed, f"view {name} {view}"), step)

            seed = order.named_seed(self.seed, f"order {name}")
            index = order.batch_indices(seed, step, batch_size=size, size=len(pool))
            return Side(
                views=self.views.make(wanted, read(index), seed_of),
                label=tf.gather(labels, index),
                index=index,
                columns={column: tf.gather(values, index) for column, values in columns.items()},
            )

        return side


def _check_views(side: str, wanted: Mapping[str, str]) -> None:
    kinds = get_args(View)
    for name, kind in wanted.items():
        if kind not in kinds:
            raise UserError(
                f"The algorithm needs {side} examples in a view {name!r} of kind {kind!r}. Expected one of: "
                f"{', '.join(kinds)}."
            )


def _check_columns(side: str, pool: Examples, wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in pool.columns]
    if missing:
        raise UserError(
            f"The algorithm needs the column {missing[0]!r} of the {side} examples, which have "
            f"{', '.join(sorted(pool.columns)) or 'none'}. Expected data that bring it: choose another --dataset or "
            "--algorithm."
        )


# Nothing here needs autograph, and what it converts loses the type of its errors.
_plain = tf.autograph.experimental.do_not_convert


def _draw(draw: Beta, size: int, seed: tf.Tensor) -> tf.Tensor:
    """Beta(a, a) as the share of one of two Gamma(a) draws, float32 [size]."""
    gamma = tf.random.stateless_gamma(
        [2, size], seed, alpha=tf.constant(draw.concentration, tf.float64), dtype=tf.float64
    )
    total = tf.reduce_sum(gamma, axis=0)
    # Both draws underflow where the concentration is tiny; the distribution then is a fair coin.
    share = tf.where(total > 0.0, gamma[0] / tf.where(total > 0.0, total, 1.0), 1.0)
    return tf.cast(share, tf.float32)


def _parts(replicas: int) -> Callable[[Batch], tf.data.Dataset]:
    """Splits a global batch into one batch per replica, in order."""

    def split(tensor: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tensor, [replicas, tensor.shape[0] // replicas, *tensor.shape[1:]])

    return lambda batch: tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(split, batch))


def evaluation_batches(
    pool: Examples, views: Views, *, batch_size: int, strategy: tf.distribute.Strategy
) -> tf.data.Dataset:
    """All examples once, in order, in full batches; the last one is filled up with its set's last example.

    Args:
      pool: the examples.
      views: how inputs are normalised; nothing is augmented.
      batch_size: examples per batch over all replicas, divisible by their number.
      strategy: whose replicas each get their part of every batch.

    Returns:
      A dataset of inputs, `ceil(len(pool) / batch_size)` batches.
    """
    replicas = strategy.num_replicas_in_sync
    part = batch_size // replicas
    read = reader(pool)

    def inputs(number: tf.Tensor) -> tf.Tensor:
        index = tf.minimum(number * part + tf.range(part, dtype=tf.int64), len(pool) - 1)
        return views.plain(read(index))

    count = -(-len(pool) // batch_size) * replicas
    dataset = tf.data.Dataset.range(count).map(_plain(inputs), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if replicas == 1:
        return dataset.prefetch(2)
    return strategy.distribute_datasets_from_function(lambda _: dataset.prefetch(2))


def validation_batches(
    pool: Examples,
    views: Views,
    *,
    batch_size: int,
    first: int,
    every: int,
    seed: int,
    strategy: tf.distribute.Strategy,
) -> tf.data.Dataset:
    """Batches of validation examples for the steps that learn from them: in random order, not augmented.

    Args:
      pool: the examples.
      views: how inputs are normalised.
      batch_size: examples per batch over all replicas, divisible by their number.
      first: the first step that asks for a batch, a multiple of `every`.
      every: steps between two batches.
      seed: of the run.
      strategy: whose replicas each get their part of every batch.

    Returns:
      An endless dataset of `Side` with the view "plain".
    """
    replicas = strategy.num_replicas_in_sync
    read, labels = reader(pool), tf.constant(pool.labels)
    own_seed = order.named_seed(seed, "order meta validation")

    def batch(number: tf.Tensor) -> Side:
        index = order.batch_indices(own_seed, number, batch_size=batch_size, size=len(pool))
        return Side({"plain": views.plain(read(index))}, tf.gather(labels, index), index, {})

    numbers = tf.data.Dataset.range(first // every, tf.int64.max)
    dataset = numbers.map(_plain(batch), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if replicas == 1:
        return dataset.prefetch(1)
    return strategy.distribute_datasets_from_function(lambda _: dataset.flat_map(_parts(replicas)).prefetch(1))
