"""Two ways of doing the same work, timed in alternation: A, B, A, B ...

What else a machine does changes from second to second, and hits both sides of a pair alike: the ratio of a pair is
steadier than either time, and the median over pairs is steadier still.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

_WARM_UPS = 2


class NotMeasurableError(Exception):
    """A benchmark cannot run on this machine; the message says why, and what it would take."""


def _nothing() -> None:
    """Prepares nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One of two contestants.

    Attributes:
      work: does some work, returns when it is done, and says how much it was, in units that both sides count in
        (steps, images). The sides may do different amounts: rates are compared.
      prepare: called before each timing, such as to use up what a pipeline has produced while the other side worked.
    """

    work: Callable[[], float]
    prepare: Callable[[], None] = _nothing


def rate_ratios(
    ours: Side, theirs: Side, runs: int, *, clock: Callable[[], float] = time.perf_counter
) -> Iterator[float]:
    """Work per second, ours over theirs.

    Args:
      ours: goes first in each pair.
      theirs: goes second.
      runs: number of pairs, after each side was warmed up.
      clock: in seconds.

    Yields:
      The ratio of each pair.
    """
    for _ in range(_WARM_UPS):
        for side in (ours, theirs):
            _rate(side, clock)
    for _ in range(runs):
        our_rate = _rate(ours, clock)
        yield our_rate / _rate(theirs, clock)


def time_ratios(
    ours: Side, theirs: Side, runs: int, *, clock: Callable[[], float] = time.perf_counter
) -> Iterator[float]:
    """Seconds per unit of work, ours over theirs; see `rate_ratios`."""
    return (1.0 / ratio for ratio in rate_ratios(ours, theirs, runs, clock=clock))


def _rate(side: Side, clock: Callable[[], float]) -> float:
    side.prepare()
    start = clock()
    amount = side.work()
    return amount / (clock() - start)


def summary(ratios: Sequence[float], *, goal: float, better: str) -> dict[str, float | str]:
    """What is stored of one benchmark: the median of its ratios, their range, and what it should be."""
    return {
        "ratio": _rounded(statistics.median(ratios)),
        "min": _rounded(min(ratios)),
        "max": _rounded(max(ratios)),
        "goal": goal,
        "better": better,
        "runs": len(ratios),
    }


def _rounded(ratio: float) -> float:
    return float(f"{ratio:.4g}")
