"""The last layer in closed form: its Hessian is small enough to be formed and solved with exactly.

With features h_i (a trailing 1 for the bias) and logits z_i = W^T h_i, the Hessian of sum_i c_i loss_i(z_i) by the
[D, K] kernel W, in the kernel's own order of entries, is

    H = sum_i c_i (h_i h_i^T) kron S_i,    S_i = d2 loss_i / dz_i^2, [K, K].

The rows of diag(p) - p p^T, which is S_i for cross-entropy, add up to zero, and so do those of every gradient by the
logits: D directions of H have no curvature and no gradient. A small damping makes the solution the one of the
pseudo-inverse; it has to be added to all K columns alike, for dropping a class and damping the rest treats the
classes differently.
"""

from collections.abc import Callable

import tensorflow as tf

# A dense H has (D K)^2 entries of 8 bytes: 8192 rows take half a gibibyte, and a Cholesky factor as much again.
LARGEST_EXACT = 8192


def with_ones(features: tf.Tensor) -> tf.Tensor:
    """Appends the constant feature that the bias belongs to: [N, D] -> [N, D + 1]."""
    return tf.concat([features, tf.ones_like(features[:, :1])], axis=1)


def curvature_blocks(loss: Callable[[tf.Tensor], tf.Tensor], logits: tf.Tensor) -> tf.Tensor:
    """c_i S_i of every row by automatic differentiation.

    Args:
      loss: maps logits [N, K] to the scalar sum_i c_i loss_i(z_i), in which every loss depends on its own row.
      logits: [N, K].

    Returns:
      [N, K, K].
    """
    with tf.GradientTape() as outer:
        outer.watch(logits)
        with tf.GradientTape() as inner:
            inner.watch(logits)
            value = loss(logits)
        derivative = inner.gradient(value, logits)
    return outer.batch_jacobian(derivative, logits)


def hessian(features: tf.Tensor, blocks: tf.Tensor) -> tf.Tensor:
    """sum_i (h_i h_i^T) kron (c_i S_i).

    Args:
      features: h_i, [N, D].
      blocks: c_i S_i, [N, K, K].

    Returns:
      float64 [D K, D K]; row d K + k is entry [d, k] of the kernel.
    """
    features, blocks = tf.cast(features, tf.float64), tf.cast(blocks, tf.float64)
    size, classes = features.shape[1], blocks.shape[1]

    def rows_of_class(block: tf.Tensor) -> tf.Tensor:
        weighted = features[:, :, tf.newaxis] * block[:, tf.newaxis, :]  # [N, D, K]
        return tf.matmul(features, tf.reshape(weighted, [-1, size * classes]), transpose_a=True)  # [D, D K]

    # Class by class: of all at once the factors, [N, D, K, K], would be larger than the matrix.
    rows = tf.map_fn(rows_of_class, tf.transpose(blocks, [1, 0, 2]), parallel_iterations=1)  # [K, D, D K]
    return tf.reshape(tf.transpose(rows, [1, 0, 2]), [size * classes, size * classes])


def solve(matrix: tf.Tensor, right: tf.Tensor, *, diagonal: tf.Tensor) -> tf.Tensor:
    """(H + diag(d))^-1 g by a Cholesky factorisation in float64.

    Args:
      matrix: H, float64 [D K, D K], positive semi-definite.
      right: g, [D, K].
      diagonal: d, what damping and weight decay add, positive, [D, K].

    Returns:
      [D, K] in the dtype of `right`; NaN where the matrix is not positive definite.
    """
    flat = tf.cast(tf.reshape(diagonal, [-1]), tf.float64)
    factor = tf.linalg.cholesky(tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + flat))
    solution = tf.linalg.cholesky_solve(factor, tf.cast(tf.reshape(right, [-1, 1]), tf.float64))
    return tf.cast(tf.reshape(solution, right.shape), right.dtype)
