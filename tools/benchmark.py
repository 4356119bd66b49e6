"""Measures speed as ratios: `python -m tools.benchmark --output=benchmark.json`.

Two ways of doing the same work take turns in one process, after a warm-up; the ratio of each pair of turns does not
depend much on the machine or on what else it does. Every benchmark is a process of its own, so that none is slowed down
by the settings, threads or memory of another. A goal that is missed is a result, not an error.
"""

import concurrent.futures
import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from absl import flags
from tqdm import tqdm

from metassl_tf import flag_definitions
from metassl_tf.engine.workdir import write_atomically
from metassl_tf.errors import UserError, near_match
from tools.benchmarks.augmentation import rand_augment_vs_official
from tools.benchmarks.compare import NotMeasurable, summary
from tools.benchmarks.engine_loop import engine_vs_bare_loop
from tools.benchmarks.input_pipeline import pipeline_vs_step
from tools.benchmarks.pytorch import step_vs_pytorch

_OUTPUT = flags.DEFINE_string("output", "benchmark.json", "File to write.")
_ONLY = flags.DEFINE_list("only", [], "Names to measure; default: all.")
_QUICK = flags.DEFINE_bool("quick", False, "5 pairs of turns instead of 15: a first impression.")

_RUNS, _QUICK_RUNS = 15, 5

Result = dict[str, Any]


class Benchmark(NamedTuple):
    """One ratio.

    Attributes:
      ratios: from a number of runs to that many ratios, ours over the other's; raises `NotMeasurable` where it cannot.
      goal: what the median should reach.
      better: whether `higher` or `lower` ratios are better.
    """

    ratios: Callable[[int], Iterator[float]]
    goal: float
    better: Literal["higher", "lower"]


BENCHMARKS = {
    "engine_vs_bare_loop": Benchmark(engine_vs_bare_loop, 0.95, "higher"),
    "rand_augment_vs_official": Benchmark(rand_augment_vs_official, 3.0, "higher"),
    "pipeline_vs_step": Benchmark(pipeline_vs_step, 5.0, "higher"),
    "step_vs_pytorch": Benchmark(step_vs_pytorch, 1.05, "lower"),
}


def measure(name: str, benchmark: Benchmark, runs: int) -> Result:
    """Runs one benchmark in this process.

    Args:
      name: for the progress bar.
      benchmark: what to run.
      runs: number of ratios to take.

    Returns:
      `ratio` (the median), `min`, `max`, `goal`, `better` and `runs`; or `skipped` and why.
    """
    try:
        ratios = list(tqdm(benchmark.ratios(runs), desc=name, total=runs, unit="pair", disable=None))
    except NotMeasurable as reason:
        return {"skipped": str(reason)}
    return summary(ratios, goal=benchmark.goal, better=benchmark.better)


def measure_apart(name: str, benchmark: Benchmark, runs: int) -> Result:
    """Runs one benchmark in a fresh process; see `measure`."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(measure, name, benchmark, runs).result()


def choose(names: Iterable[str]) -> dict[str, Benchmark]:
    """Returns the benchmarks of these names, or all if there are none.

    Raises:
      UserError: a name that is not in the table.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise UserError(
                f"--only={name} is not a benchmark. Expected some of: {', '.join(BENCHMARKS)}."
                f"{near_match(name, list(BENCHMARKS))}"
            )
    return {name: BENCHMARKS[name] for name in names} or BENCHMARKS


def run_all(
    benchmarks: Mapping[str, Benchmark],
    output: Path,
    *,
    runs: int,
    measure: Callable[[str, Benchmark, int], Result] = measure_apart,
) -> str:
    """Runs benchmarks one after the other and writes all results so far after each.

    Args:
      benchmarks: name -> what to run.
      output: JSON file, name -> result.
      runs: number of ratios of each.
      measure: runs one.

    Returns:
      A table of the results.
    """
    results: dict[str, Result] = {}
    seconds: dict[str, float] = {}
    for name, benchmark in benchmarks.items():
        start = time.monotonic()
        results[name] = measure(name, benchmark, runs)
        seconds[name] = time.monotonic() - start
        text = json.dumps(results, indent=2) + "\n"
        write_atomically(output, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    return table(results, seconds)


def table(results: Mapping[str, Result], seconds: Mapping[str, float]) -> str:
    """Lays results out, a line each, with whether the goal was reached and how long the measurement took."""
    width = max(map(len, results))
    lines = [f"{'':{width}}   ratio     min     max         goal           time"]
    for name, result in results.items():
        line = f"{name:{width}}  "
        if "skipped" in result:
            line += f"skipped: {result['skipped']}"
        else:
            line += "".join(f"{result[key]:6.3g}  " for key in ("ratio", "min", "max"))
            line += f"{'>=' if result['better'] == 'higher' else '<='} {result['goal']:<5g} {verdict(result):6}"
            line += f"{seconds[name]:8.0f} s"
        lines.append(line)
    return "\n".join([*lines, f"{'in all':{width}}{sum(seconds.values()):52.0f} s"])


def verdict(result: Result) -> str:
    """Says whether a result that was measured has reached its goal."""
    reached = result["ratio"] >= result["goal"] if result["better"] == "higher" else result["ratio"] <= result["goal"]
    return "reached" if reached else "missed"


def main() -> None:
    """Runs the command line."""
    flag_definitions.given(set(), why="a benchmark")
    benchmarks, output = choose(_ONLY.value), Path(_OUTPUT.value)
    if not output.parent.is_dir():
        raise UserError(f"--output={output} cannot be written: there is no folder {output.parent}. Make it first.")
    print(run_all(benchmarks, output, runs=_QUICK_RUNS if _QUICK.value else _RUNS))


if __name__ == "__main__":
    flag_definitions.run_binary(main)
