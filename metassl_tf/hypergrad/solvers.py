"""Approximations of H^-1 v, all rows of Table A1 of "Not All Unlabeled Data are Equal" (arXiv:2007.01293).

H is never formed here: a solver is given `product`, which multiplies a vector by H, damping included. Damping is the
caller's to add, so that every solver means the same matrix by H. `exact` is in `last_layer`, where H is
small enough to be formed.

| row of Table A1                        | here                 | needs                                     |
|----------------------------------------|----------------------|-------------------------------------------|
| identity (Luketina et al., 2016)       | the vector itself    | nothing                                   |
| Neumann (Lorraine et al., 2020)        | `neumann`            | step_size < 2 / largest eigenvalue        |
| conjugate gradients (Larsen et al.)    | `conjugate_gradient` | H positive definite                       |
| stochastic (Koh and Liang, 2017)       | `stochastic`         | unbiased products of batches of their own |
| truncated unrolling (Shaban et al.)    | `unrolled`           | the products at the steps unrolled        |
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from metassl_tf.hypergrad.products import Product, Vector, combine, dot


class Solution(NamedTuple):
    """An approximation of H^-1 v.

    Attributes:
      vector: the approximation.
      grew: bool scalar, whether the series grew instead of shrinking, so that the vector means nothing.
    """

    vector: Vector
    grew: tf.Tensor


def conjugate_gradient(product: Product, right: Sequence[tf.Tensor], *, iterations: int) -> Solution:
    """Minimises x.H x / 2 - x.v over growing subspaces (Hestenes and Stiefel, 1952), without preconditioning.

    Args:
      product: multiplication by H.
      right: v.
      iterations: number of products; it stands still where v is reached, or where H turns out not to be positive
        along a direction (then the subspace found so far is the answer, as in truncated Newton methods).

    Returns:
      The approximation; it never counts as grown.
    """

    def body(state: list[Vector]) -> list[Vector]:
        solution, residual, direction = state
        curved = product(direction)
        squared, along = dot(residual, residual), dot(direction, curved)
        moving = (along > 0) & (squared > 0)
        length = tf.where(moving, tf.math.divide_no_nan(squared, along), 0)
        new_residual = combine(residual, -length, curved)
        conjugate = tf.math.divide_no_nan(dot(new_residual, new_residual), squared)
        # Once stopped, the direction stays, so that it stays stopped.
        new_direction = [
            tf.where(moving, now, before)
            for now, before in zip(combine(new_residual, conjugate, direction), direction, strict=True)
        ]
        return [combine(solution, length, direction), new_residual, new_direction]

    vector = list(right)
    state = [[tf.zeros_like(part) for part in vector], vector, vector]
    return Solution(_repeat(body, state, iterations)[0], tf.constant(False))


def neumann(product: Product, right: Sequence[tf.Tensor], *, terms: int, step_size: float) -> Solution:
    """H^-1 v ~ s sum_{j < terms} (I - s H)^j v.

    Args:
      product: multiplication by H.
      right: v.
      terms: number of terms; the last products are `terms - 1`.
      step_size: s; the series converges for 0 < s < 2 / largest eigenvalue of H.

    Returns:
      The partial sum.
    """
    return unrolled([product] * (terms - 1), right, step_size=step_size)


def unrolled(products: Sequence[Product], right: Sequence[tf.Tensor], *, step_size: float) -> Solution:
    """s sum_j prod_{k < j} (I - s H_k) v: what differentiating through steps of gradient descent gives.

    Args:
      products: multiplication by the Hessian at each unrolled step, the latest first.
      right: v, the gradient of the outer loss after the last step.
      step_size: s, the learning rate of the unrolled steps.

    Returns:
      The sum of `len(products) + 1` terms: truncated back-propagation (Shaban et al., 2019). At a minimum all H_k are
      the same and it is the Neumann series.
    """
    term = total = list(right)
    if len(set(map(id, products))) == 1:

        def body(state: list[Vector]) -> list[Vector]:
            term = combine(state[0], -step_size, products[0](state[0]))
            return [term, combine(state[1], 1.0, term)]

        term, total = _repeat(body, [term, total], len(products))
    else:
        for product in products:
            term = combine(term, -step_size, product(term))
            total = combine(total, 1.0, term)
    return Solution([step_size * part for part in total], _longer(term, right, 1.0 + 1e-6))


def stochastic(
    sampled_product: Callable[[Vector, tf.Tensor], Vector],
    right: Sequence[tf.Tensor],
    *,
    terms: int,
    step_size: float,
    seed: tf.Tensor,
) -> Solution:
    """One sample of stochastic estimation: v_j = v + (I - s H_j) v_{j-1}, with a fresh estimate of H in each term.

    Its mean over seeds is the partial sum that `neumann` gives, if the estimates are independent and unbiased
    (Koh and Liang, arXiv:1703.04730, section 3, after Agarwal et al.).

    Args:
      sampled_product: maps (vector, seed int32 [2]) to a product with an estimate of H, such as one batch's.
      right: v.
      terms: number of terms.
      step_size: s; it has to suit the largest eigenvalue of the single estimates.
      seed: int32 [2]; each term folds its number in.

    Returns:
      s v_terms.
    """

    def body(state: list[Vector], number: tf.Tensor) -> list[Vector]:
        term_seed = tf.random.experimental.stateless_fold_in(seed, number, alg="philox")
        shrunk = combine(state[0], -step_size, sampled_product(state[0], term_seed))
        return [combine(shrunk, 1.0, right)]

    total = _repeat_numbered(body, [list(right)], terms - 1)[0]
    # Of `terms` terms, none of which grew.
    return Solution([step_size * part for part in total], _longer(total, right, 2.0 * terms))


GROWN = (
    "The series for the inverse Hessian grew instead of shrinking. Expected a step size below 2 / (largest eigenvalue "
    "of the Hessian) and no direction that bends down: lower --series_step_size, raise --damping, or use "
    "--inverse_hessian=conjugate_gradient, which needs no step size."
)
"""What to say where `Solution.grew`."""


def _longer(last: Sequence[tf.Tensor], first: Sequence[tf.Tensor], factor: float) -> tf.Tensor:
    """Whether a term of a series is so many times longer than the first one; a NaN counts as long.

    A first term that is not finite says something about the network, and nothing about the series.
    """
    start, end = dot(first, first), dot(last, last)
    # Not ~(end <= ...), which TensorFlow turns into end > ... in a graph, where a NaN is lost.
    return tf.math.is_finite(start) & ((end > factor**2 * start) | ~tf.math.is_finite(end))


def _repeat(body: Callable[[list[Vector]], list[Vector]], state: list[Vector], count: int) -> list[Vector]:
    return _repeat_numbered(lambda now, _: body(now), state, count)


def _repeat_numbered(
    body: Callable[[list[Vector], tf.Tensor], list[Vector]], state: list[Vector], count: int
) -> list[Vector]:
    """Applies `body` so many times: a loop in the graph on one device, its copies behind each other on several.

    A product on several replicas adds up over them, which TensorFlow does not allow inside a loop in the graph.
    """
    context = tf.distribute.get_replica_context()
    if tf.executing_eagerly() or (context is not None and context.num_replicas_in_sync > 1):
        for number in range(count):
            state = body(state, tf.constant(number))
        return state

    def step(number: tf.Tensor, now: list[Vector]) -> tuple[tf.Tensor, list[Vector]]:
        return number + 1, body(now, number)

    _, last = tf.while_loop(
        lambda number, _: number < count, step, (tf.constant(0), state), maximum_iterations=count, parallel_iterations=1
    )
    return list(last)
