"""When to evaluate, checkpoint and log: at absolute multiples of the step, whatever was killed in between.

orbit's own Controller is not used: it checkpoints before it evaluates and counts its evaluation steps from where it
was restored, so that a kill in between loses an evaluation. Here an evaluation is on the disk before the checkpoint of
its step, and what a run computes depends on the step alone. How many steps one call takes, and when a checkpoint is
due by the clock, do not change any result.
"""

import dataclasses
import sys
import time
from collections.abc import Callable

import tensorflow as tf
from tqdm import tqdm

from metassl_tf.engine.trainer import Trainer

_SECONDS_PER_CALL = 1.0
_SECONDS_PER_CHECKPOINT = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """Steps at which things happen: at every multiple and at the end.

    Attributes:
      total: steps of the run.
      log: steps between two readings of the training metrics.
      evaluate: steps between evaluations.
      checkpoint: steps between checkpoints.
    """

    total: int
    log: int
    evaluate: int
    checkpoint: int

    def next_boundary(self, step: int) -> int:
        """The first step after `step` at which anything is due."""
        return min(self.total, *(step - step % every + every for every in (self.log, self.evaluate, self.checkpoint)))

    def due(self, step: int, every: int) -> bool:
        """Whether something that happens every so many steps is due at `step`."""
        return step % every == 0 or step == self.total


def run_loop(
    trainer: Trainer,
    grid: Grid,
    *,
    on_metrics: Callable[[int, dict[str, float]], None],
    on_evaluation: Callable[[int, dict[str, float]], str],
    save: Callable[[int], None],
    examples_per_step: int,
    title: str = "",
) -> None:
    """Trains to the end of the grid.

    Args:
      trainer: at any step.
      grid: when things are due.
      on_metrics: called with the step and the mean training metrics since the last call.
      on_evaluation: called with the step and the latest training metrics; returns a few words for the progress bar,
        which become a line where there is no terminal.
      save: writes the checkpoint of a step.
      examples_per_step: for the rate that is shown.
      title: what the progress bar says before the first evaluation.

    Raises:
      UserError: the loss is no longer finite.
    """
    step = int(trainer.step.numpy())
    last_save = time.monotonic()
    steps_per_call = 1
    with tqdm(total=grid.total, initial=step, desc=title, unit="step", disable=None, dynamic_ncols=True) as progress:
        while step < grid.total:
            count = min(steps_per_call, grid.next_boundary(step) - step)
            start = time.monotonic()
            trainer.train(tf.constant(count))
            seconds = max(time.monotonic() - start, 1e-6)
            steps_per_call = _next_call(steps_per_call, count, seconds)
            step += count
            trainer.check_finite()
            progress.update(count)
            progress.set_postfix_str(f"{count * examples_per_step / seconds:,.0f} examples/s", refresh=False)
            evaluating = grid.due(step, grid.evaluate)
            if evaluating or grid.due(step, grid.log):
                metrics = trainer.read_metrics()
                on_metrics(step, metrics)
                if evaluating:
                    words = on_evaluation(step, metrics)
                    progress.set_description_str(words)
                    if progress.disable:  # no terminal: lines for whoever reads the log of a job
                        print(f"step {step:,} of {grid.total:,}: {words}", file=sys.stderr, flush=True)
            if grid.due(step, grid.checkpoint) or time.monotonic() - last_save > _SECONDS_PER_CHECKPOINT:
                save(step)
                last_save = time.monotonic()


def _next_call(previous: int, count: int, seconds: float) -> int:
    """Steps of the next call, so that one takes about a second: few calls, and a clock that moves."""
    wanted = max(1, int(count * _SECONDS_PER_CALL / seconds))
    return min(wanted, 2 * previous)
