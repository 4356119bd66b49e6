"""What learned weights need in memory: the peak of a fresh process, which nothing else has touched."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from tools.benchmarks.compare import NotMeasurableError
from tools.benchmarks.influence import Scores, many_classes_inputs, many_classes_solve

# The peak of the same work hardly varies, and every one costs a start of TensorFlow.
MOST_RUNS = 3
_STATUS = Path("/proc/self/status")


def scores_memory_vs_batch_gradient(runs: int) -> Iterator[float]:
    """Peak memory of scoring 64 examples over all parameters, over that of one gradient of the batch; training mode."""
    return (peak_of(_scores) / peak_of(_batch_gradient) for _ in range(min(runs, MOST_RUNS)))


def many_classes_memory(runs: int) -> Iterator[float]:
    """Gigabytes that the solution for 1000 classes and 2048 features adds to the peak of a process with its inputs."""
    return ((peak_of(_many_classes) - peak_of(many_classes_inputs)) / 2**30 for _ in range(min(runs, MOST_RUNS)))


def _many_classes() -> None:
    many_classes_solve(*many_classes_inputs())


def _scores() -> None:
    tf.function(Scores(training=True).jacobian_vector, autograph=False)()


def _batch_gradient() -> None:
    tf.function(Scores(training=True).batch_gradient, autograph=False)()


def peak_of(work: Callable[[], object]) -> int:
    """Largest resident memory, in bytes, of a fresh process that does some work.

    Args:
      work: a function of a module.

    Raises:
      NotMeasurableError: the machine does not say.
    """
    if not _STATUS.exists():
        raise NotMeasurableError("needs Linux, which says what the peak memory of a process was")
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_peak_here, work).result()


def _peak_here(work: Callable[[], object]) -> int:
    """Largest resident memory of this process, in bytes, when the work is done."""
    work()
    # getrusage would count what the process that started this one had when it did.
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
