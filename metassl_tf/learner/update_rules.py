"""Optimizers as pure functions of (gradient, variable, state).

Keras' optimizers cannot be used here: they all-reduce a gradient that is already the global one, have no
`stateless_apply` on TensorFlow, and there is no LARS. A pure rule serves the training step and can be
differentiated through. The formulas are those of Keras 3 (equal to its optimizers to the last bits of float64),
so its documentation and defaults apply.
"""

import dataclasses
from typing import Protocol

import tensorflow as tf

from metassl_tf.settings import setting

Slots = tuple[tf.Tensor, ...]


class UpdateRule(Protocol):
    """An optimizer: how many slots of a variable's shape it keeps, all starting at zero, and its update."""

    @property
    def num_slots(self) -> int:
        """Number of state tensors per variable."""

    @property
    def decoupled_weight_decay(self) -> float:
        """w -= learning rate * decay * w, applied beside the update (Loshchilov and Hutter, 2019)."""

    def update(
        self, gradient: tf.Tensor, value: tf.Tensor, slots: Slots, *, learning_rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """Returns the change to add to `value` and the new slots; `step` is the number of updates made before."""


def root(square: tf.Tensor) -> tf.Tensor:
    """Square root whose derivative at 0 is 0 and not infinite.

    A weight without a gradient, such as those of a dead unit, has a square of 0; what follows the infinite derivative
    back to it is 0 times infinity.
    """
    zero = square == 0.0
    return tf.where(zero, tf.zeros_like(square), tf.sqrt(tf.where(zero, tf.ones_like(square), square)))


_DECAY_HELP = "Decay beside the update: weights shrink by learning rate x this, each step."


def _decay_setting(default: float) -> float:
    decay: float = setting(default, _DECAY_HELP, minimum=0.0)
    return decay


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd:
    """Gradient descent with classical or Nesterov momentum."""

    momentum: float = setting(0.9, "Share of the last update that is kept.", minimum=0.0, below=1.0)
    nesterov: bool = setting(True, "Nesterov's momentum instead of the classical one.")
    decoupled_weight_decay: float = _decay_setting(0.0)
    num_slots = 1

    def update(
        self, gradient: tf.Tensor, value: tf.Tensor, slots: Slots, *, learning_rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """m <- mu m - eta g; w <- w + m, or w + mu m - eta g (Nesterov)."""
        del value, step
        descent = learning_rate * gradient
        momentum = self.momentum * slots[0] - descent
        return (self.momentum * momentum - descent if self.nesterov else momentum), (momentum,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba, 2015)."""

    beta_1: float = setting(0.9, "Decay of the mean of gradients.", minimum=0.0, below=1.0)
    beta_2: float = setting(0.999, "Decay of the mean of squared gradients.", minimum=0.0, below=1.0)
    epsilon: float = setting(1e-7, "Added to the denominator.", above=0.0)
    decoupled_weight_decay: float = _decay_setting(0.0)
    num_slots = 2

    def update(
        self, gradient: tf.Tensor, value: tf.Tensor, slots: Slots, *, learning_rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """Adam's Algorithm 1 in the form with the bias correction in the step size."""
        del value
        count = tf.cast(step + 1, gradient.dtype)
        mean = self.beta_1 * slots[0] + (1.0 - self.beta_1) * gradient
        square = self.beta_2 * slots[1] + (1.0 - self.beta_2) * tf.square(gradient)
        correction = tf.sqrt(1.0 - tf.pow(tf.cast(self.beta_2, gradient.dtype), count)) / (
            1.0 - tf.pow(tf.cast(self.beta_1, gradient.dtype), count)
        )
        return -learning_rate * correction * mean / (root(square) + self.epsilon), (mean, square)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay on by default (Loshchilov and Hutter, 2019)."""

    decoupled_weight_decay: float = _decay_setting(0.004)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RmsProp:
    """RMSProp (Tieleman and Hinton, 2012) with momentum, as EfficientNet is trained."""

    rho: float = setting(0.9, "Decay of the mean of squared gradients.", minimum=0.0, below=1.0)
    momentum: float = setting(0.9, "Share of the last update that is kept.", minimum=0.0, below=1.0)
    epsilon: float = setting(1e-7, "Added inside the root.", above=0.0)
    decoupled_weight_decay: float = _decay_setting(0.0)
    num_slots = 2

    def update(
        self, gradient: tf.Tensor, value: tf.Tensor, slots: Slots, *, learning_rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """v <- rho v + (1 - rho) g^2; m <- mu m + eta g / sqrt(v + epsilon); w <- w - m."""
        del value, step
        square = self.rho * slots[0] + (1.0 - self.rho) * tf.square(gradient)
        momentum = self.momentum * slots[1] + learning_rate * gradient * tf.math.rsqrt(square + self.epsilon)
        return -momentum, (square, momentum)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lars:
    """Layer-wise adaptive rates (You et al., arXiv:1708.03888), on matrices and filters; vectors take plain SGD."""

    momentum: float = setting(0.9, "Share of the last update that is kept.", minimum=0.0, below=1.0)
    trust_coefficient: float = setting(0.001, "eta: how far a layer may move relative to its norm.", above=0.0)
    epsilon: float = setting(1e-9, "Added to the gradient's norm.", above=0.0)
    decoupled_weight_decay: float = _decay_setting(0.0)
    num_slots = 1

    def update(
        self, gradient: tf.Tensor, value: tf.Tensor, slots: Slots, *, learning_rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """v <- mu v + eta lambda g with lambda = eta ||w|| / (||g|| + epsilon); w <- w - v; g holds the L2 term."""
        del step
        rate = learning_rate
        if len(value.shape) > 1:
            weight_norm, gradient_norm = tf.norm(value), root(tf.reduce_sum(tf.square(gradient)))
            trust = self.trust_coefficient * weight_norm / (gradient_norm + self.epsilon)
            # A layer that is all zero, or gets no gradient, has no scale of its own.
            rate *= tf.where((weight_norm > 0.0) & (gradient_norm > 0.0), trust, tf.ones_like(trust))
        momentum = self.momentum * slots[0] + rate * gradient
        return -momentum, (momentum,)


OPTIMIZERS = {"sgd": Sgd, "adam": Adam, "adamw": AdamW, "rmsprop": RmsProp, "lars": Lars}
