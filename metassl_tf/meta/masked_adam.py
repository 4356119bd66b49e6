"""How a learned weight moves along its derivative: M-Adam (Algorithm 2 of the weights paper) and its rivals.

Only the examples of the batch have a derivative. Dense Adam would take that of all others for zero: their moments
would decay, and momentum would move weights of examples that nobody looked at. M-Adam touches the rows of the batch
and nothing else, so that an update costs the same for a thousand examples and for a hundred million.

| paper (Algorithm 2)      | here                                             |
|--------------------------|--------------------------------------------------|
| Lambda, m, v             | `Rows.weight`, `.first_moment`, `.second_moment` |
| t                        | `Rows.count` (per example), or the global number |
| M = 1[g != 0]            | `moves`                                          |
| alpha, beta_1, beta_2    | `learning_rate`, 0.9, 0.999                      |
| epsilon                  | 1e-8                                             |

Departs from the paper, by default: t counts the updates of the example, not of the table. With the paper's global t, an
example that is first seen late has moments that are corrected as if they had been averaged for long, and its first step
is (1 - beta_1) / sqrt(1 - beta_2) = 3.16 learning rates long; the authors' code counts per example as well.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Rows(NamedTuple):
    """Some examples' rows of the table, each [rows].

    Attributes:
      weight: lambda, float32.
      first_moment: m, float32.
      second_moment: v, float32.
      count: number of updates of the example before this one, int64.
    """

    weight: tf.Tensor
    first_moment: tf.Tensor
    second_moment: tf.Tensor
    count: tf.Tensor


# (rows, derivative [rows], learning rate, number of updates of the table before this one) -> rows
Rule = Callable[[Rows, tf.Tensor, float, tf.Tensor], Rows]


def masked_adam(rows: Rows, derivative: tf.Tensor, learning_rate: float, updates: tf.Tensor) -> Rows:
    """M-Adam with bias correction by the example's own count."""
    del updates
    return _adam(rows, derivative, learning_rate, rows.count + 1, moves=tf.not_equal(derivative, 0.0))


def masked_adam_global_step(rows: Rows, derivative: tf.Tensor, learning_rate: float, updates: tf.Tensor) -> Rows:
    """M-Adam as the paper prints it: one t for all examples."""
    time = tf.fill(tf.shape(rows.count), updates + 1)
    return _adam(rows, derivative, learning_rate, time, moves=tf.not_equal(derivative, 0.0))


def adam(rows: Rows, derivative: tf.Tensor, learning_rate: float, updates: tf.Tensor) -> Rows:
    """Adam for the ablation: it takes every row of the table, with a derivative of 0 for examples not in the batch."""
    time = tf.fill(tf.shape(rows.count), updates + 1)
    return _adam(rows, derivative, learning_rate, time, moves=tf.ones_like(derivative, tf.bool))


def sgd(rows: Rows, derivative: tf.Tensor, learning_rate: float, updates: tf.Tensor) -> Rows:
    """Gradient descent, Eq. 4."""
    del updates
    moved = tf.cast(tf.not_equal(derivative, 0.0), tf.int64)
    return rows._replace(weight=rows.weight - learning_rate * derivative, count=rows.count + moved)  # Eq. 4


RULES: dict[str, Rule] = {
    "masked_adam": masked_adam,
    "masked_adam_global_step": masked_adam_global_step,
    "adam": adam,
    "sgd": sgd,
}
DENSE_RULES = ("adam",)


def _adam(rows: Rows, derivative: tf.Tensor, learning_rate: float, time: tf.Tensor, *, moves: tf.Tensor) -> Rows:
    mask = tf.cast(moves, derivative.dtype)  # Algorithm 2, line 5
    first = rows.first_moment + (BETA_1 - 1.0) * rows.first_moment * mask + (1.0 - BETA_1) * derivative  # line 6
    second = rows.second_moment + (BETA_2 - 1.0) * rows.second_moment * mask + (1.0 - BETA_2) * derivative**2  # line 7
    steps = tf.cast(time, derivative.dtype)
    # 1 - beta^t, without the cancellation that 1 - 0.999 would lose four digits to.
    corrected_first = first / -tf.math.expm1(steps * math.log(BETA_1))  # line 8
    corrected_second = second / -tf.math.expm1(steps * math.log(BETA_2))  # line 9
    change = learning_rate * corrected_first * mask / (tf.sqrt(corrected_second) + EPSILON)  # line 10
    return Rows(rows.weight - change, first, second, rows.count + tf.cast(moves, tf.int64))
