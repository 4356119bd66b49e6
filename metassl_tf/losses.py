"""Losses on logits, and the distributions that serve as their targets; nothing here reduces over the batch.

A loss returns one float per example, [batch]. Cross-entropy and what is made of it are written with
`tf.nn.log_softmax`, never with `tf.nn.softmax_cross_entropy_with_logits`: the latter has no second-order gradient with
respect to its labels (it is silently zero), and gradients through soft labels are what the learned signals of this
package are made of.
"""

from collections.abc import Callable

import tensorflow as tf


def cross_entropy(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy H(q, softmax(z)) = -sum_c q_c log softmax(z)_c.

    Args:
      target: distribution q over classes, [batch, classes], dtype of `logits`; differentiated through.
      logits: z, [batch, classes].

    Returns:
      [batch], the loss of each example.
    """
    return -tf.reduce_sum(target * tf.nn.log_softmax(logits), axis=-1)


def kl_divergence(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Kullback-Leibler divergence KL(q || softmax(z)) = sum_c q_c (log q_c - log softmax(z)_c).

    Args:
      target: distribution q over classes, [batch, classes]; entries of zero contribute zero.
      logits: z, [batch, classes].

    Returns:
      [batch], the loss of each example.
    """
    return tf.reduce_sum(tf.math.xlogy(target, target), axis=-1) + cross_entropy(target, logits)


def squared_error(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Squared error of the probabilities, sum_c (softmax(z)_c - q_c)^2.

    It is convex in the probabilities and not in the logits, so that its Hessian has negative directions, along which an
    inverse Hessian points uphill. The second derivative by the logits is therefore the Gauss-Newton one, 2 J^T J with
    J = diag p - p p^T, which is never negative (Schraudolph, 2002); first derivatives, and those of gradients by the
    target, are exact.

    Args:
      target: distribution q over classes, [batch, classes], dtype of `logits`; differentiated through.
      logits: z, [batch, classes].

    Returns:
      [batch], the loss of each example.
    """
    return tf.reduce_sum(tf.square(_softmax_with_fixed_jacobian(logits) - target), axis=-1)


@tf.custom_gradient
def _softmax_with_fixed_jacobian(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Softmax whose Jacobian counts as a constant: what a loss of it has for curvature is its own, pulled back."""
    probability = tf.nn.softmax(logits)

    def backward(upstream: tf.Tensor) -> tf.Tensor:
        fixed = tf.stop_gradient(probability)
        return fixed * (upstream - tf.reduce_sum(fixed * upstream, axis=-1, keepdims=True))

    return probability, backward


def smooth_one_hot(labels: tf.Tensor, num_classes: int, *, smoothing: float, dtype: tf.DType) -> tf.Tensor:
    """One-hot labels mixed with the uniform distribution: (1 - d) onehot(y) + d / C (Szegedy et al., 2016).

    Args:
      labels: class ids, int [batch].
      num_classes: C.
      smoothing: d in [0, 1); 0 gives plain one-hot labels.
      dtype: of the result.

    Returns:
      [batch, classes], each row sums to 1.
    """
    return tf.one_hot(labels, num_classes, dtype=dtype) * (1.0 - smoothing) + smoothing / num_classes


def sharpen(logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """Softmax of `logits / temperature`, [batch, classes]; a temperature below 1 sharpens, above 1 flattens."""
    return tf.nn.softmax(logits / temperature)
