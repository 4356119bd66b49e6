"""The derivative of the validation loss by the weight of every unlabeled example (Eq. 6 of the weights paper).

    d L_S(V, theta*(Lambda)) / d lambda_u = - g_val^T H^-1 g_u

g_val is the gradient of the mean validation loss, H the Hessian of the loss that is minimised, at the weights lambda of
the step, and g_u the gradient of what example u adds to that loss at a weight of 1: free of lambda_u, so that a weight
of 0 can grow again. No per-example gradient is formed: with the direction d = H^-1 g_val, all g_u^T d together are the
change of the [batch] losses along d, one Jacobian-vector product.
"""

from typing import NamedTuple

import tensorflow as tf

from metassl_tf.hypergrad import last_layer, solvers
from metassl_tf.hypergrad.products import (
    Product,
    Vector,
    combine,
    forward_mode_product,
    gradient,
    hessian_vector_product,
    jacobian_vector_product,
    value_and_gradient,
)
from metassl_tf.hypergrad.solvers import Solution
from metassl_tf.learner import distribution
from metassl_tf.meta.scopes import LastLayer, Objective

INVERSES = ("exact", "identity", "neumann", "conjugate_gradient", "stochastic", "unrolled")


class Inverse(NamedTuple):
    """How H^-1 is approximated. Field meanings are those of the settings of the same names.

    Attributes:
      method: a member of `INVERSES`.
      damping: added to the diagonal of H.
      iterations: terms of a series or steps of conjugate gradients.
      step_size: of the series.
    """

    method: str
    damping: float
    iterations: int
    step_size: float


class Influence(NamedTuple):
    """What an update of the weights is made from.

    Attributes:
      derivative: by the weight of each unlabeled example of this replica, float32 [unlabeled batch].
      validation_loss: of the global validation batch, scalar.
      grew: bool scalar, whether the series for H^-1 grew.
    """

    derivative: tf.Tensor
    validation_loss: tf.Tensor
    grew: tf.Tensor


def influence(objective: Objective, inverse: Inverse, *, layer: LastLayer | None, seed: tf.Tensor) -> Influence:
    """Derivatives by the weights of this replica's unlabeled examples. Call it inside `strategy.run`.

    Args:
      objective: the losses by the parameters of the scope.
      inverse: how H^-1 is approximated.
      layer: the last layer, which `exact` needs.
      seed: int32 [2], of stochastic estimation.
    """
    parameters = objective.parameters
    share, slope = value_and_gradient(objective.validation, parameters)
    loss, *right = distribution.all_reduce_sum([share, *slope])  # g_val
    solution = _solve(objective, inverse, right, layer, seed)  # H^-1 g_val
    on_one_device = distribution.replica_context().num_replicas_in_sync == 1
    if on_one_device:
        changes = forward_mode_product(objective.unlabeled, parameters, solution.vector, save_memory=True)
    else:  # forward mode is wrong through batch norm that is synchronised between replicas
        changes = jacobian_vector_product(objective.unlabeled, parameters, solution.vector)
    return Influence(-changes, loss, solution.grew)  # Eq. 6


def _solve(objective: Objective, inverse: Inverse, right: Vector, layer: LastLayer | None, seed: tf.Tensor) -> Solution:
    if inverse.method == "identity":
        return Solution(right, tf.constant(False))
    if layer is not None and inverse.method == "exact":
        return Solution([_exact(objective, layer, right[0], inverse.damping)], tf.constant(False))
    product = _product(objective, inverse.damping)
    if inverse.method == "conjugate_gradient":
        return solvers.conjugate_gradient(product, right, iterations=inverse.iterations)
    if inverse.method == "neumann":
        return solvers.neumann(product, right, terms=inverse.iterations, step_size=inverse.step_size)
    if inverse.method == "unrolled":
        return _unrolled(objective, inverse)
    return solvers.stochastic(
        lambda vector, term_seed: _product(objective, inverse.damping, _subset(objective, term_seed))(vector),
        right,
        terms=inverse.iterations,
        step_size=inverse.step_size,
        seed=seed,
    )


def _product(objective: Objective, damping: float, subset: tf.Tensor | None = None) -> Product:
    """Multiplication by the Hessian of the global loss, L2 and damping included."""

    def product(vector: Vector) -> Vector:
        share = hessian_vector_product(lambda at: objective.training(at, subset), objective.parameters, vector)
        total = distribution.all_reduce_sum(share)
        return [
            curved + (decay + damping) * part
            for curved, decay, part in zip(total, objective.decay, vector, strict=True)
        ]

    return product


def _subset(objective: Objective, seed: tf.Tensor) -> tf.Tensor:
    """A random half of the examples, each counted twice: an estimate of H whose mean is H. Replicas draw apart."""
    seed = tf.random.experimental.stateless_fold_in(
        seed, distribution.replica_context().replica_id_in_sync_group, alg="philox"
    )
    # Whole numbers, unlike fractions, are the same ones under XLA.
    drawn = tf.random.stateless_uniform([objective.num_examples], seed, 0, 2, tf.int32, alg="philox")
    return 2.0 * tf.cast(drawn, tf.float32)


def _exact(objective: Objective, layer: LastLayer, right: tf.Tensor, damping: float) -> tf.Tensor:
    features = layer.features
    blocks = last_layer.curvature_blocks(
        lambda outputs: layer.step.training(layer.replay(outputs)), features @ objective.parameters[0]
    )
    matrix = distribution.all_reduce_sum([last_layer.hessian(features, blocks)])[0]
    diagonal = tf.broadcast_to(objective.decay[0] + damping, right.shape)
    return last_layer.solve(matrix, right, diagonal=diagonal)


def _unrolled(objective: Objective, inverse: Inverse) -> Solution:
    """Differentiates through steps of gradient descent on this batch's loss, damping included, from the present.

    The validation gradient is that after the last step. As in Table A1 one g_u, the present one, serves all steps.
    """
    trajectory = [objective.parameters]
    start = objective.parameters
    for _ in range(inverse.iterations):
        at = trajectory[-1]
        slope = distribution.all_reduce_sum(gradient(objective.training, at))
        decayed = [
            part + decay * here + inverse.damping * (here - origin)
            for part, decay, here, origin in zip(slope, objective.decay, at, start, strict=True)
        ]
        trajectory.append(combine(at, -inverse.step_size, decayed))
    products = [_product(objective.at(point), inverse.damping) for point in reversed(trajectory[1:-1])]
    last = objective.at(trajectory[-1])
    right = distribution.all_reduce_sum(gradient(last.validation, last.parameters))
    return solvers.unrolled(products, right, step_size=inverse.step_size)
