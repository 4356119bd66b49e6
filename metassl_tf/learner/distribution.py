"""The four things a step needs from the replica it runs on. All are no-ops or plain sums on one device."""

from collections.abc import Sequence

import keras
import tensorflow as tf


def replica_context() -> tf.distribute.ReplicaContext:
    """Returns the current replica context.

    Raises:
      RuntimeError: called outside `strategy.run`.
    """
    context = tf.distribute.get_replica_context()
    if context is None:
        raise RuntimeError("Expected to run inside strategy.run; wrap the step in it.")
    return context


def all_reduce_sum(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Sums each tensor over all replicas; there may be none."""
    context = replica_context()
    if context.num_replicas_in_sync == 1 or not tensors:
        return list(tensors)
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors)))


def gather_all(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Puts each tensor's parts on all replicas behind each other, in their order."""
    context = replica_context()
    if context.num_replicas_in_sync == 1:
        return list(tensors)
    return [context.all_gather(tensor, axis=0) for tensor in tensors]


def assign_everywhere(variables: Sequence[keras.Variable], values: Sequence[tf.Tensor]) -> None:
    """Assigns values that are equal on every replica to variables that every replica holds a copy of."""

    def assign(strategy: tf.distribute.Strategy, values: Sequence[tf.Tensor]) -> None:
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(variable.value, lambda local, new: local.assign(new), args=(value,), group=False)

    if variables:
        replica_context().merge_call(assign, args=(list(values),))
