"""Gradients, products with the Hessian, and the change of many losses along one direction, without any matrix.

A function here takes the parameters as a list of tensors, so that it can be evaluated at any point; a *vector* is a
list of tensors of the parameters' shapes. All of it runs eagerly, in a graph, under XLA and on replicas. On several
replicas every one computes its share: a loss that is the replica's part of a sum gives the replica's part of the
derivative, and adding those up over the replicas is left to the caller.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TypeAlias

import tensorflow as tf

Vector: TypeAlias = list[tf.Tensor]
Loss: TypeAlias = Callable[[Vector], tf.Tensor]
Product: TypeAlias = Callable[[Vector], Vector]

_ZERO = tf.UnconnectedGradients.ZERO
_SAVES_MEMORY: ContextVar[bool] = ContextVar("saves_memory", default=False)


def dot(left: Sequence[tf.Tensor], right: Sequence[tf.Tensor]) -> tf.Tensor:
    """Inner product of two vectors, a scalar."""
    return tf.add_n([tf.reduce_sum(one * other) for one, other in zip(left, right, strict=True)])


def combine(left: Sequence[tf.Tensor], factor: tf.Tensor | float, right: Sequence[tf.Tensor]) -> Vector:
    """left + factor * right."""
    return [one + factor * other for one, other in zip(left, right, strict=True)]


def gradient(loss: Loss, at: Sequence[tf.Tensor]) -> Vector:
    """Gradient of a scalar loss.

    Args:
      loss: maps parameters to a scalar.
      at: the parameters.

    Returns:
      One tensor per parameter, zero where the loss does not depend on it.
    """
    return value_and_gradient(loss, at)[1]


def value_and_gradient(loss: Loss, at: Sequence[tf.Tensor]) -> tuple[tf.Tensor, Vector]:
    """A scalar loss and its gradient, from one pass; see `gradient`."""
    parameters = list(at)
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        value = loss(parameters)
    return value, list(tape.gradient(value, parameters, unconnected_gradients=_ZERO))


def hessian_vector_product(loss: Loss, at: Sequence[tf.Tensor], vector: Sequence[tf.Tensor]) -> Vector:
    """H v, with H the Hessian of a scalar loss: the gradient of <grad L, v> (Pearlmutter, 1994).

    Args:
      loss: maps parameters to a scalar; twice differentiable.
      at: the parameters.
      vector: v.

    Returns:
      One tensor per parameter.
    """
    parameters = list(at)
    with tf.GradientTape() as outer:
        outer.watch(parameters)
        along = dot(gradient(loss, parameters), [tf.stop_gradient(part) for part in vector])
    return list(outer.gradient(along, parameters, unconnected_gradients=_ZERO))


def jacobian_vector_product(
    values: Callable[[Vector], tf.Tensor], at: Sequence[tf.Tensor], vector: Sequence[tf.Tensor]
) -> tf.Tensor:
    """J v: how much every value changes along v, in one backward pass and the backward pass of that.

    The gradient of sum_u w_u values_u is linear in w, so that its inner product with v, derived by w, is the inner
    product of v with the gradient of every single value. Nothing per example is ever as large as the parameters.
    Right on several replicas as well, through batch normalisation that is synchronised between them.

    Args:
      values: maps parameters to a tensor of any shape, such as [batch] losses.
      at: the parameters.
      vector: v.

    Returns:
      A tensor of the values' shape: for losses the score v . grad loss_u of every example.
    """
    parameters = list(at)
    with tf.GradientTape() as inner:
        inner.watch(parameters)
        value = values(parameters)
    weights = tf.ones_like(value)
    with tf.GradientTape() as outer:
        outer.watch(weights)
        weighted = inner.gradient(value, parameters, output_gradients=weights, unconnected_gradients=_ZERO)
        along = dot(weighted, [tf.stop_gradient(part) for part in vector])
    return outer.gradient(along, weights)


def forward_mode_product(
    values: Callable[[Vector], tf.Tensor],
    at: Sequence[tf.Tensor],
    vector: Sequence[tf.Tensor],
    *,
    save_memory: bool = False,
) -> tf.Tensor:
    """J v as `jacobian_vector_product` gives it, by forward-mode differentiation: less memory, one device only.

    On several replicas it is silently wrong through synchronised batch normalisation.

    Args:
      values: maps parameters to a tensor of any shape.
      at: the parameters.
      vector: v.
      save_memory: ask the layers for computations whose derivatives are small (`saving_memory`); it is then a pass of
        its own, even where the graph has the same one already.

    Returns:
      A tensor of the values' shape.
    """
    with tf.autodiff.ForwardAccumulator(list(at), [tf.convert_to_tensor(part) for part in vector]) as accumulator:
        token = _SAVES_MEMORY.set(save_memory)
        try:
            value = values(list(at))
        finally:
            _SAVES_MEMORY.reset(token)
    return accumulator.jvp(value, unconnected_gradients=_ZERO)


def saving_memory() -> bool:
    """Whether what is computed now is differentiated by a `forward_mode_product` that saves memory."""
    return _SAVES_MEMORY.get()
