"""Which examples a step sees: a pure function of (seed, step), so that a resumed run goes on exactly.

Every pass over a set is its own random permutation, and passes follow each other without a gap: position p of the
endless sequence is element p mod size of permutation p div size. A batch may hold the end of one pass and the
beginning of the next, and one larger than the set holds some examples more than once.
"""

import hashlib

import numpy as np
import tensorflow as tf

_ROUNDS = 4  # of the block cipher behind the permutation; what index_shuffle takes


def batch_indices(seed: tf.Tensor, step: tf.Tensor, *, batch_size: int, size: int) -> tf.Tensor:
    """Indices of the examples of one step.

    Args:
      seed: int32 [2].
      step: int64 scalar, counted from 0.
      batch_size: examples per step.
      size: examples in the set.

    Returns:
      int64 [batch_size], each in [0, size).
    """
    positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    passes = tf.cast(positions // size, tf.int32)
    seeds = tf.concat([tf.tile(seed[tf.newaxis], [batch_size, 1]), passes[:, tf.newaxis]], axis=1)  # [batch, 3]
    last = tf.fill([batch_size], tf.constant(size - 1, tf.int64))
    # tf.random.experimental.index_shuffle pads the wrong dimension of a batch of seeds; this is the op behind it.
    return tf.raw_ops.RandomIndexShuffle(index=positions % size, seed=seeds, max_index=last, rounds=_ROUNDS)


def named_seed(run_seed: int, name: str) -> tf.Tensor:
    """A seed of its own for each user of randomness, int32 [2], from the run's seed and the user's name."""
    digest = hashlib.sha256(f"{run_seed} {name}".encode()).digest()
    return tf.constant(np.frombuffer(digest[:8], np.int32))


def at_step(seed: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """The seed's value at one step, int32 [2]."""
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(step, tf.int32), alg="philox")
