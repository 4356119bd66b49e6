"""The table of benchmarks, and how they are run, stored and shown.

Another benchmark is one function and one line.
"""

import concurrent.futures
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from tools.benchmarks.augmentation import rand_augment_vs_official
from tools.benchmarks.compare import NotMeasurableError, summary
from tools.benchmarks.engine_loop import engine_vs_bare_loop
from tools.benchmarks.influence import (
    exact_vs_identity,
    exact_vs_neumann,
    many_classes_vs_forward,
    scores_vs_batch_gradient,
    scores_vs_serial,
    scores_vs_vectorized_map,
    weight_table_1e8_vs_1e4,
    weight_update_vs_step,
)
from tools.benchmarks.input_pipeline import pipeline_vs_step
from tools.benchmarks.memory import many_classes_memory, scores_memory_vs_batch_gradient
from tools.benchmarks.per_example import layerwise_vs_serial, layerwise_vs_vectorized
from tools.benchmarks.pytorch import step_vs_pytorch
from tools.benchmarks.teaching import mpl_memory_vs_uda, mpl_vs_uda_step, soft_jvp_vs_hard
from tools.outputs import write_json

RUNS, QUICK_RUNS = 15, 5

Result = dict[str, Any]


class Benchmark(NamedTuple):
    """One ratio.

    Attributes:
      ratios: from a number of runs to that many ratios, ours over the other's; raises `NotMeasurableError` where that
        cannot be done.
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
    "scores_vs_batch_gradient": Benchmark(scores_vs_batch_gradient, 1.15, "lower"),
    "scores_memory_vs_batch_gradient": Benchmark(scores_memory_vs_batch_gradient, 1.3, "lower"),
    "scores_vs_vectorized_map": Benchmark(scores_vs_vectorized_map, 1.5, "higher"),
    "scores_vs_serial": Benchmark(scores_vs_serial, 2.5, "higher"),
    "layerwise_vs_serial": Benchmark(layerwise_vs_serial, 1.5, "higher"),
    "layerwise_vs_vectorized": Benchmark(layerwise_vs_vectorized, 1.0, "higher"),
    "weight_update_vs_step": Benchmark(weight_update_vs_step, 0.25, "lower"),
    "exact_vs_identity": Benchmark(exact_vs_identity, 1.2, "lower"),
    "exact_vs_neumann": Benchmark(exact_vs_neumann, 5.0, "higher"),
    "many_classes_vs_forward": Benchmark(many_classes_vs_forward, 2.0, "lower"),
    "many_classes_memory": Benchmark(many_classes_memory, 1.0, "lower"),
    "weight_table_1e8_vs_1e4": Benchmark(weight_table_1e8_vs_1e4, 1.5, "lower"),
    "mpl_vs_uda_step": Benchmark(mpl_vs_uda_step, 2.2, "lower"),
    "mpl_memory_vs_uda": Benchmark(mpl_memory_vs_uda, 2.2, "lower"),
    "soft_jvp_vs_hard": Benchmark(soft_jvp_vs_hard, 1.3, "lower"),
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
    except NotMeasurableError as reason:
        return {"skipped": str(reason)}
    return summary(ratios, goal=benchmark.goal, better=benchmark.better)


def measure_apart(name: str, benchmark: Benchmark, runs: int) -> Result:
    """Runs one benchmark in a fresh process; see `measure`."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(measure, name, benchmark, runs).result()


def run_all(
    benchmarks: Mapping[str, Benchmark],
    output: Path,
    *,
    runs: int,
    measure: Callable[[str, Benchmark, int], Result],
) -> str:
    """Runs benchmarks one after the other and writes all results so far after each.

    Args:
      benchmarks: name -> what to run.
      output: JSON file, name -> result.
      runs: number of ratios of each.
      measure: runs one: `measure_apart`.

    Returns:
      A table of the results.
    """
    results: dict[str, Result] = {}
    seconds: dict[str, float] = {}
    for name, benchmark in benchmarks.items():
        start = time.monotonic()
        results[name] = measure(name, benchmark, runs)
        seconds[name] = time.monotonic() - start
        write_json(output, results)
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
