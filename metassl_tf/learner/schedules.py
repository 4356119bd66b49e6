"""Learning-rate schedules and ramps: pure functions of the step, counted from 0."""

import dataclasses
import math
from typing import Protocol

import tensorflow as tf

from metassl_tf.settings import setting


class Schedule(Protocol):
    """The factor on the base learning rate after the warm-up."""

    def factor(self, step: tf.Tensor, total_steps: int) -> tf.Tensor:
        """Returns a float32 scalar; `step` runs from 0 to `total_steps`, both counted after the warm-up."""


def _progress(step: tf.Tensor, total_steps: int) -> tf.Tensor:
    return tf.clip_by_value(tf.cast(step, tf.float32) / max(total_steps, 1), 0.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
    """The base learning rate throughout."""

    def factor(self, step: tf.Tensor, total_steps: int) -> tf.Tensor:
        """Always 1."""
        del step, total_steps
        return tf.ones([])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine, from 1 to 0 (Loshchilov and Hutter, 2017)."""

    def factor(self, step: tf.Tensor, total_steps: int) -> tf.Tensor:
        """(1 + cos(pi t / T)) / 2."""
        return 0.5 * (1.0 + tf.cos(math.pi * _progress(step, total_steps)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine716:
    """FixMatch's schedule (arXiv:2001.07685, section 2.4): it ends at 0.195 of the base rate, not at 0."""

    def factor(self, step: tf.Tensor, total_steps: int) -> tf.Tensor:
        """cos(7 pi t / (16 T))."""
        return tf.cos(7.0 * math.pi / 16.0 * _progress(step, total_steps))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponential:
    """Exponential decay, in stairs, as EfficientNet is trained."""

    decay_rate: float = setting(0.97, "Factor applied every --decay_steps.", above=0.0, maximum=1.0)
    decay_steps: int = setting(1000, "Steps between two decays.", minimum=1)

    def factor(self, step: tf.Tensor, total_steps: int) -> tf.Tensor:
        """rate ^ floor(t / decay_steps)."""
        del total_steps
        stairs = tf.cast(step // self.decay_steps, tf.float32)
        return tf.pow(self.decay_rate, stairs)


SCHEDULES = {"constant": Constant, "cosine": Cosine, "cosine_7_16": Cosine716, "exponential": Exponential}


def learning_rate(
    schedule: Schedule, *, base: float, warmup_steps: int, step: tf.Tensor, total_steps: int
) -> tf.Tensor:
    """Learning rate of one step: a linear warm-up, then the schedule over what remains.

    Args:
      schedule: shape of the decay.
      base: learning rate at the end of the warm-up.
      warmup_steps: the rate of step t is base * (t + 1) / warmup_steps while t < warmup_steps; 0 for none.
      step: int64 scalar.
      total_steps: length of the whole run, warm-up included.

    Returns:
      float32 scalar.
    """
    remaining = tf.maximum(step - warmup_steps, 0)
    rate = base * schedule.factor(remaining, total_steps - warmup_steps)
    if warmup_steps:
        rate *= tf.minimum(tf.cast(step + 1, tf.float32) / warmup_steps, 1.0)
    return rate


RAMPS = ("constant", "linear", "sigmoid")


def ramp(shape: str, *, ramp_steps: int, step: tf.Tensor) -> tf.Tensor:
    """Factor on the scalar unlabeled weight, from about 0 to 1 over the first `ramp_steps` steps.

    Args:
      shape: `constant` (always 1), `linear`, or `sigmoid`: exp(-5 (1 - t)^2) (Laine and Aila, arXiv:1610.02242).
      ramp_steps: length of the ramp in steps.
      step: int64 scalar.

    Returns:
      float32 scalar.
    """
    progress = _progress(step, ramp_steps)
    if shape == "linear":
        return progress
    if shape == "sigmoid":
        return tf.exp(-5.0 * tf.square(1.0 - progress))
    return tf.ones([])
