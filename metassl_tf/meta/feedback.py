"""How a student's step on pseudo labels tells its teacher what they were worth (thesis, 5.2 and 5.7.1; v1, section 2).

Everything is about one step of the student, theta_S -> theta'_S, on labels q that the teacher gave to unlabeled
examples, and about L_l, the student's loss on labeled ones. What every form finds makes a scalar (`reinforce`,
`follow`, or the loss itself) whose gradient by the teacher's parameters is an estimate of

    d/d theta_T  L_l(theta'_S(q(theta_T)))                                                     thesis Eq. 5.4, v1 Eq. 3

| form              | labels  | gradient by the teacher                                            | source       |
|-------------------|---------|--------------------------------------------------------------------|--------------|
| `hard`            | sampled | h grad CE(y, T(x_u)), h = -<grad L_l(theta'_S), how y moved theta_S> | Eq. 5.12    |
| `hard_cosine`     | sampled | h = the cosine of these two, and a mean over the batch             | 5.7.6        |
| `hard_difference` | sampled | h = L_l(theta_S) - L_l(theta'_S): unbiased at any step size        | of 5.12      |
| `soft`            | q       | plain differentiation through the student's update                 | v1, Eq. 3    |
| `soft_jvp`        | q       | the same number: -c_u JVP_v log S(x_u; theta_S), v pulled back     | of v1, Eq. 3 |

REINFORCE needs the log-probability of the joint vector of labels, so cross-entropies are *summed* over the unlabeled
batch where h is an inner product or a difference. With h measured on labels, these very labels have to stand in both
losses.

Departs from the thesis: Algorithm 3 multiplies by eta_S twice, here it is in h once; Eq. 5.10 to 5.12 print
S(x_u; theta_T) for T(x_u; theta_T). Departs from the released code (google-research/meta_pseudo_labels): its h is
L_l(theta'_S) - L_l(theta_S), the opposite sign, under other statistics of batch normalisation, and multiplies
CE(stop(T), T), whose gradient is exactly zero.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from metassl_tf.hypergrad.products import (
    Vector,
    dot,
    forward_mode_product,
    gradient,
    jacobian_vector_product,
    value_and_gradient,
)
from metassl_tf.learner import distribution


class StudentStep(NamedTuple):
    """What became of the student, as functions of its parameters.

    Attributes:
      parameters: theta_S.
      gradient: of the student's loss on the teacher's labels, over the global batch.
      moved: theta'_S.
      change: global gradient -> theta'_S - theta_S; differentiable.
      labeled_loss: parameters -> this replica's share of L_l.
      log_probability: parameters -> log S(x_u; .), [batch, classes].
      coefficients: what each example's cross-entropy counts in the student's loss, [batch].
    """

    parameters: Vector
    gradient: Vector
    moved: Vector
    change: Callable[[Vector], Vector]
    labeled_loss: Callable[[Vector], tf.Tensor]
    log_probability: Callable[[Vector], tf.Tensor]
    coefficients: tf.Tensor


class Verdict(NamedTuple):
    """What a form found.

    Attributes:
      usefulness: h, the same on every replica; how much the labels have helped. None of the soft forms.
      derivative: of the labeled loss by what the teacher gave, d L_l / d q_c(u), [batch, classes]; of `soft_jvp` alone.
      loss: this replica's share of the labeled loss behind the step, to be differentiated; of `soft` alone.
      alignment: cosine of the gradients on labeled and on unlabeled examples (v1, Figure 8); None without feedback.
    """

    usefulness: tf.Tensor | None = None
    derivative: tf.Tensor | None = None
    loss: tf.Tensor | None = None
    alignment: tf.Tensor | None = None


Form = Callable[[StudentStep], Verdict]


def hard(step: StudentStep) -> Verdict:
    """h is how far the labels moved the student against the labeled gradient.

    For gradient descent, with or without momentum, that is eta_S <grad L_l(theta'_S), grad L_u(theta_S)>, Eq. 5.12.
    """
    slope = _labeled_gradient(step)
    usefulness = -dot(slope, _moved_by_labels(step))  # Eq. 5.12
    return Verdict(usefulness=usefulness, alignment=cosine(slope, step.gradient))


def hard_cosine(step: StudentStep) -> Verdict:
    """h is the cosine in place of the inner product, in [-1, 1]: the sign is the same, the range is known (5.7.6).

    For gradient descent, with or without momentum, that is cos(grad L_l(theta'_S), grad L_u(theta_S)).
    """
    slope = _labeled_gradient(step)
    return Verdict(usefulness=-cosine(slope, _moved_by_labels(step)), alignment=cosine(slope, step.gradient))


def hard_difference(step: StudentStep) -> Verdict:
    """h is how much the labeled loss fell; both losses are taken on the same examples, alone and without dropout."""
    moved_loss, slope = value_and_gradient(step.labeled_loss, step.moved)
    before, after = distribution.all_reduce_sum([step.labeled_loss(step.parameters), moved_loss])
    alignment = cosine(distribution.all_reduce_sum(slope), step.gradient)
    return Verdict(usefulness=before - after, alignment=alignment)


def soft(step: StudentStep) -> Verdict:
    """The labeled loss behind the step, itself: the tape goes through the update and the gradient in it."""
    constant = step._replace(moved=[tf.stop_gradient(part) for part in step.moved])
    alignment = tf.stop_gradient(cosine(_labeled_gradient(constant), step.gradient))
    return Verdict(loss=step.labeled_loss(step.moved), alignment=alignment)  # v1, Eq. 3


def soft_jvp(step: StudentStep) -> Verdict:
    """The derivative of the labeled loss by every label of every example, from one Jacobian-vector product.

    With v = (d theta' / d g)^T grad L_l(theta'), the labeled gradient pulled back through the optimizer's update, and
    g = - sum_u c_u sum_c q_c(u) grad log S_c(u):  d L_l / d q_c(u) = - c_u v . grad log S_c(u).
    """
    slope = _labeled_gradient(step)
    with tf.GradientTape() as tape:
        tape.watch(step.gradient)
        change = step.change(step.gradient)
    pulled_back = tape.gradient(change, step.gradient, slope, unconnected_gradients=tf.UnconnectedGradients.ZERO)  # v
    on_one_device = distribution.replica_context().num_replicas_in_sync == 1
    # Forward mode shares the student's pass, whose activations are kept anyway; through batch norm that is synchronised
    # between replicas it is wrong.
    along = forward_mode_product if on_one_device else jacobian_vector_product
    changes = along(step.log_probability, step.parameters, pulled_back)  # JVP_v log S, [batch, classes]
    derivative = -step.coefficients[:, tf.newaxis] * changes  # d L_l / d q_c(u)
    return Verdict(derivative=derivative, alignment=cosine(slope, step.gradient))


FORMS: dict[str, Form] = {
    "hard": hard,
    "hard_cosine": hard_cosine,
    "hard_difference": hard_difference,
    "soft": soft,
    "soft_jvp": soft_jvp,
}
HARD = ("hard", "hard_cosine", "hard_difference")
"""Forms whose labels are sampled."""
AVERAGED = ("hard_cosine",)
"""Forms whose teacher loss is a mean over the unlabeled batch instead of a sum."""


def reinforce(advantage: tf.Tensor, log_probability: tf.Tensor, *, mean: bool) -> tf.Tensor:
    """The share of the teacher's loss (h - b) CE(y, T(x_u; theta_T)), whose gradient is Eq. 5.12.

    Args:
      advantage: h - b, scalar; a constant to the teacher.
      log_probability: log T(y | x_u; theta_T) of what was sampled for each example, whatever that is, [batch];
        differentiated through.
      mean: over the global batch instead of the sum.
    """
    share = -tf.stop_gradient(advantage) * tf.reduce_sum(log_probability)
    if not mean:
        return share
    replicas = distribution.replica_context().num_replicas_in_sync
    return share / float(log_probability.shape[0] * replicas)


def follow(derivative: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The share of a teacher's loss whose gradient is the derivative by its labels, passed on to its parameters."""
    return tf.reduce_sum(tf.stop_gradient(derivative) * labels)


def cosine(left: Vector, right: Vector) -> tf.Tensor:
    """Cosine of the angle between two vectors, a scalar; 0 where one of them is zero."""
    return tf.math.divide_no_nan(dot(left, right), tf.linalg.global_norm(left) * tf.linalg.global_norm(right))


def _labeled_gradient(step: StudentStep) -> Vector:
    """grad L_l(theta'_S) over the global batch."""
    return distribution.all_reduce_sum(gradient(step.labeled_loss, step.moved))


def _moved_by_labels(step: StudentStep) -> Vector:
    """How the labels moved the student: f(gradient), which is -eta_S grad L_u(theta_S) of gradient descent (Eq. 6.18).

    It is less what the optimizer would have done without a gradient: momentum and decay are not the labels' doing.
    """
    without = step.change([tf.zeros_like(part) for part in step.gradient])
    return [own - other for own, other in zip(step.change(step.gradient), without, strict=True)]
