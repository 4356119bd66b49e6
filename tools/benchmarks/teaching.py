"""What a step of Meta Pseudo Labels costs: WRN-28-2, 64 labeled and 448 unlabeled images, a UDA teacher."""

from collections.abc import Iterator, Sequence

from tools.benchmarks import experiments
from tools.benchmarks.compare import Side, time_ratios
from tools.benchmarks.memory import MOST_RUNS, peak_of

_FLAGFILE = "flags/cifar10/uda_4000.flags"
_BATCH = ("--batch_size=64", "--unlabeled_ratio=7")
_TAUGHT = (*_BATCH, "--meta=meta_pseudo_labels")


def _step(changes: Sequence[str]) -> Side:
    trainer = experiments.trainer_without_input(experiments.build_on_noise(_FLAGFILE, changes))
    return Side(work=experiments.steps(trainer, 1))


def mpl_vs_uda_step(runs: int) -> Iterator[float]:
    """Time of a step of teacher and student, over a UDA step of the same batch."""
    return time_ratios(_step(_TAUGHT), _step(_BATCH), runs)


def soft_jvp_vs_hard(runs: int) -> Iterator[float]:
    """Time of a step with feedback on every label of every example, over one with a single number as feedback."""
    return time_ratios(_step([*_TAUGHT, "--feedback=soft_jvp"]), _step([*_TAUGHT, "--feedback=hard"]), runs)


def mpl_memory_vs_uda(runs: int) -> Iterator[float]:
    """Peak memory of a process that takes steps of teacher and student, over one that takes UDA steps."""
    return (peak_of(_taught_steps) / peak_of(_plain_steps) for _ in range(min(runs, MOST_RUNS)))


def _taught_steps() -> None:
    _step(_TAUGHT).work()


def _plain_steps() -> None:
    _step(_BATCH).work()
