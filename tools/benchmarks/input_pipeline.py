"""Whether reading and augmenting keeps up with the network."""

from collections.abc import Iterator

import tensorflow as tf

from tools.benchmarks import experiments
from tools.benchmarks.compare import Side, rate_ratios

_FLAGFILE = "flags/cifar10/fixmatch_4000.flags"
_BATCHES = 30
_UNTIMED_BATCHES = 3


def pipeline_vs_step(runs: int) -> Iterator[float]:
    """Batches per second that the pipeline delivers alone, over those that the step of WRN-28-2 consumes.

    Both are FixMatch's on CIFAR-10: 64 labeled images and two views of 448 unlabeled ones.
    """
    experiment = experiments.build_on_noise(_FLAGFILE)
    step = experiments.steps(experiments.trainer_without_input(experiment), 1)
    dataset = experiment.pipeline().batches(start_step=0, strategy=experiment.strategy)
    return rate_ratios(_deliver(dataset), Side(work=step), runs)


def _deliver(dataset: tf.data.Dataset) -> Side:
    """The work of a pipeline that was started a moment ago and is then left alone again."""
    running: list[Iterator[object]] = []

    def prepare() -> None:
        running.append(iter(dataset))
        for _ in range(_UNTIMED_BATCHES):
            next(running[0])

    def work() -> float:
        for _ in range(_BATCHES):
            next(running[0])
        # Otherwise it would go on filling its buffers while the step is timed.
        running.clear()
        return float(_BATCHES)

    return Side(work=work, prepare=prepare)
