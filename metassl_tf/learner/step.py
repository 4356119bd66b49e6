"""One training step: from per-example terms to an update. The only place where losses are reduced."""

import tensorflow as tf

from metassl_tf.algorithms.base import Algorithm, Batch, Context, Losses, Term
from metassl_tf.learner import distribution
from metassl_tf.learner.learner import Learner

Sums = dict[str, tf.Tensor]


def training_step(
    learner: Learner, algorithm: Algorithm, batch: Batch, context: Context, *, unlabeled_weight: tf.Tensor
) -> Sums:
    """Runs one step on this replica's part of the global batch. Call it inside `strategy.run`.

    Args:
      learner: what is trained.
      algorithm: what gives the losses.
      batch: this replica's examples.
      context: where in the run this is.
      unlabeled_weight: float32 scalar, on every unlabeled term.

    Returns:
      name -> float32 [2], (sum, count) over the global batch: `loss`, `loss/<term>`, `gradient_norm`
      and the algorithm's metrics.
    """
    with tf.GradientTape() as tape:
        forward = learner.begin(context.step)
        losses = algorithm.losses(forward, batch, context)
        share, sums = reduce_terms(losses, unlabeled_weight)
    gradients = tape.gradient(share, learner.trainable_variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    norm = learner.update(gradients, forward.new_statistics, step=context.step)
    replicas = distribution.replica_context().num_replicas_in_sync
    sums["gradient_norm"] = tf.stack([norm, 1.0]) / replicas  # the same on every replica
    for name, average in losses.metrics.items():
        sums[name] = tf.stack([tf.reduce_sum(average.values * average.counts), tf.reduce_sum(average.counts)])
    totals = distribution.all_reduce_sum([tf.stack(list(sums.values()))])[0]
    return dict(zip(sums, tf.unstack(totals, num=len(sums)), strict=True))


def reduce_terms(losses: Losses, unlabeled_weight: tf.Tensor) -> tuple[tf.Tensor, Sums]:
    """Reduces every term over the global batch.

    Args:
      losses: the algorithm's terms.
      unlabeled_weight: float32 scalar.

    Returns:
      This replica's share of the loss (the shares of all replicas add up to the loss), and (sum, count) of the
      loss and of each term on this replica.
    """
    replicas = distribution.replica_context().num_replicas_in_sync
    share = tf.zeros([])
    sums: Sums = {}
    one = tf.ones([])
    for factor, terms in ((one, losses.labeled), (unlabeled_weight, losses.unlabeled)):
        for name, term in terms.items():
            total = tf.reduce_sum(term.values)
            divisor = _global_count(term, replicas)
            share += factor * term.coefficient * total / divisor
            # Counts are of the global batch already: one replica's share of them keeps the ratio.
            sums[f"loss/{name}"] = tf.stack([total, divisor / replicas])
    return share, {"loss": tf.stack([share, one / replicas]), **sums}


def _global_count(term: Term, replicas: int) -> tf.Tensor:
    if term.counts is None:
        return tf.constant(float(term.values.shape[0] * replicas))
    total = distribution.all_reduce_sum([tf.reduce_sum(term.counts)])[0]
    return tf.maximum(total, 1.0)
