"""The training step as orbit runs it: many steps per call, sums of metrics kept on the device."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orbit
import tensorflow as tf

from metassl_tf.algorithms.base import Context
from metassl_tf.engine.steps import Step
from metassl_tf.errors import UserError

# What to do when a run has left the real numbers.
MEND = "the checkpoints from before are intact. Lower --learning_rate, set --gradient_clip_norm, or look at the inputs."


class Trainer(orbit.StandardTrainer):
    """Runs steps and keeps (sum, count) of every metric since the last `read_metrics`.

    Attributes:
      step: number of steps taken, int64.
      names: the metrics, in the order of the sums.
    """

    def __init__(self, step: Step, dataset: Any, *, total_steps: int) -> None:
        """Traces the step once, without running it.

        Args:
          step: one step over all replicas, and what it reads.
          dataset: what `step` reads, of the shapes to come; replace it by setting `train_dataset`.
          total_steps: length of the run.
        """
        super().__init__(dataset, orbit.StandardTrainerOptions(use_tf_function=True, use_tf_while_loop=True))
        self._step = step
        self._total_steps = total_steps
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self.names: list[str] = []
        # A function that makes variables is traced twice. So this one is traced before, and tells which metrics
        # there are; the loop calls it.
        self._sums_of_step = tf.function(self._trace_step, autograph=False)
        self._sums_of_step.get_concrete_function(tf.nest.map_structure(iter, dataset))
        self._sums = tf.Variable(tf.zeros([len(self.names), 2]), trainable=False, name="sums")
        never = tf.fill([len(self.names)], tf.constant(-1, tf.int64))
        self._first_bad = tf.Variable(never, trainable=False, name="first_bad")
        self.train(tf.constant(0))

    @property
    def state_variables(self) -> list[tf.Variable]:
        """What survives a step beside the learner's state."""
        return [self.step, self._sums, self._first_bad]

    def create_train_loop_fn(self) -> Callable[[Any, tf.Tensor], None]:
        """The loop over steps, in plain graph code: through autograph, a user's mistake would lose its message."""

        def loop(iterator: Any, num_steps: tf.Tensor) -> None:
            def body(count: tf.Tensor) -> tuple[tf.Tensor]:
                self.train_step(iterator)
                return (count + 1,)

            tf.while_loop(lambda count: count < num_steps, body, [tf.constant(0)], parallel_iterations=1)

        # TensorFlow counts the graphs of this code over all trainers and would warn of many runs; not of a partial.
        return tf.function(functools.partial(loop), autograph=False)

    def train_step(self, iterator: Any) -> None:
        """Takes one step; called while tracing the loop."""
        sums = self._sums_of_step(iterator)
        bad = tf.reduce_any(~tf.math.is_finite(sums), axis=1)
        self._sums.assign_add(sums)
        self._first_bad.assign(tf.where(bad & (self._first_bad < 0), self.step, self._first_bad))
        self.step.assign_add(1)

    def _trace_step(self, iterator: Any) -> tf.Tensor:
        """Takes the step; returns its (sum, count) in the order of `names`, float32 [metrics, 2]."""
        sums = self._step.take(iterator, Context(tf.identity(self.step), self._total_steps))
        self.names = list(sums)
        return tf.stack(list(sums.values()))

    def check_finite(self) -> None:
        """Stops a run that has left the real numbers.

        Raises:
          UserError: a loss term, the loss or the gradient has become infinite or NaN; says which, and at which step.
            Or whatever the step itself finds wrong.
        """
        self._step.check()
        steps = {name: int(step) for name, step in zip(self.names, self._first_bad.numpy(), strict=True) if step >= 0}
        if not steps:
            return
        first = min(steps.values())
        # A term says more than the loss it is part of, and that says more than the gradient.
        names = sorted((name for name, step in steps.items() if step == first), key=_vagueness)
        raise UserError(f"{names[0]} became infinite or NaN at step {first}. Expected a finite loss; {MEND}")

    def read_metrics(self) -> dict[str, float]:
        """Returns the mean of every metric since the last call, without those that had no example, and starts anew."""
        sums = self._sums.numpy()
        self._sums.assign(tf.zeros_like(self._sums))
        return {
            name: float(total / count)
            for name, (total, count) in zip(self.names, sums, strict=True)
            if count > 0 and math.isfinite(total)
        }


def check_finite_state(state: Mapping[str, Sequence[tf.Variable]], step: int) -> None:
    """Stops a run before weights are measured or saved that a last, finite gradient has thrown out of the reals.

    Args:
      state: role -> variables.
      step: number of steps taken, for the message.

    Raises:
      UserError: a variable holds an infinite value or NaN.
    """
    for role, variables in state.items():
        for variable in variables:
            if variable.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(variable)):
                raise UserError(
                    f"A weight ({variable.name} of {role}) became infinite or NaN before step {step}. Expected finite "
                    f"ones; {MEND}"
                )


def _vagueness(name: str) -> int:
    return 2 if name.endswith("gradient_norm") else 1 if name == "loss" else 0
