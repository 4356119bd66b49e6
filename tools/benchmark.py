"""Measures speed as ratios: `python -m tools.benchmark --output=benchmark.json`.

Two ways of doing the same work take turns in one process, after a warm-up; the ratio of a pair of turns does not depend
much on the machine, nor on what else it does. Every benchmark is a process of its own, so that none is slowed down by
the settings, threads or memory of another. A goal that is missed is a result, not an error.
"""

from absl import flags

from metassl_tf import flag_definitions
from tools.benchmarks import suite
from tools.comparisons import choose
from tools.outputs import output_file

_OUTPUT = flags.DEFINE_string("output", "benchmark.json", "File to write.")
_ONLY = flags.DEFINE_list("only", [], "Names to measure; default: all.")
_QUICK = flags.DEFINE_bool(
    "quick", False, f"{suite.QUICK_RUNS} pairs of turns instead of {suite.RUNS}: a first impression."
)


def main() -> None:
    """Runs the command line."""
    flag_definitions.given(set(), why="a benchmark")
    names = choose(_ONLY.value, list(suite.BENCHMARKS), flag="only", what="a benchmark")
    benchmarks, output = {name: suite.BENCHMARKS[name] for name in names}, output_file(_OUTPUT)
    runs = suite.QUICK_RUNS if _QUICK.value else suite.RUNS
    print(suite.run_all(benchmarks, output, runs=runs, measure=suite.measure_apart))


if __name__ == "__main__":
    flag_definitions.run_binary(main)
