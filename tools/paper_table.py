"""Runs flagfiles over seeds and prints a Markdown table, ours beside the papers'.

    python -m tools.paper_table --runs='flags/digits/*_40.flags' --seeds=0,1,2 --write_headers
    python -m tools.paper_table --runs=flags/cifar10/cpu_fixmatch_250.flags --data_dir=DIR --note="a JPEG copy"
    python -m tools.paper_table --print_only --page=RESULTS.md

Every run is a process of its own, one after the other, in a folder below `--runs_dir`. The same command again goes on
where it was stopped: a run that has ended is not repeated. Accuracies go to the `measured.json` beside the flagfile;
one run that fails is reported at the end and keeps none of the others from running.
"""

import itertools
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

from metassl_tf import flag_definitions
from metassl_tf.engine.workdir import write_atomically
from metassl_tf.errors import UserError
from tools import region_comparison, runs
from tools.comparisons import parse_seeds
from tools.measurements import Flagfile, find_flagfiles, page, table
from tools.outputs import output_file

_RUNS = flags.DEFINE_list(
    "runs", None, "Flagfiles or glob patterns; with --print_only the default is all measured ones."
)
_SEEDS = flags.DEFINE_list(
    "seeds", ["0", "1", "2"], "Seeds, or ranges such as 0..4, each given to a run as --seed and --split_seed."
)
_RUNS_DIR = flags.DEFINE_string("runs_dir", "runs/paper_table", "Folder of the runs.")
_NOTE = flags.DEFINE_string("note", "", "Stored and shown with what is measured, such as how the data differ.")
_PRINT_ONLY = flags.DEFINE_bool("print_only", False, "Run nothing: print the table of what was measured before.")
_WRITE_HEADERS = flags.DEFINE_bool("write_headers", False, "Bring `# Measured:` in the flagfiles up to date.")
_PAGE = flags.DEFINE_string("page", None, "Markdown file to write with the table of all measured flagfiles.")

# What says where data and devices are; a flag that changes the experiment belongs in a flagfile.
_PASSED_ON = {"data_dir", "download", "distribution", "tpu"}
_OF_RUNS = ("seeds", "runs_dir", "note")
_ALL = "flags/*/*.flags"
for _name in sorted(_PASSED_ON):
    flags.declare_key_flag(_name)


def _all_measured() -> list[Flagfile]:
    return [flagfile for flagfile in find_flagfiles([_ALL]) if flagfile.measurements()]


def _run_all(flagfiles: Sequence[Flagfile], seeds: Sequence[int], given: Sequence[str]) -> list[str]:
    """Runs everything, the first seed of all before the second; returns what went wrong."""
    failures = []
    jobs = list(itertools.product(seeds, flagfiles))
    with tqdm(jobs, unit="run", disable=None) as progress:
        for seed, flagfile in progress:
            progress.set_description(f"{flagfile.name}, seed {seed}")
            try:
                flagfile.record(
                    runs.measure(flagfile, seed, runs_dir=Path(_RUNS_DIR.value), given=given, note=_NOTE.value)
                )
            except runs.RunFailedError as failure:
                failures.append(str(failure))
    return failures


def _check_flags() -> list[str]:
    """Refuses what would have no effect, and returns what is passed on to the runs."""
    given = flag_definitions.given(set() if _PRINT_ONLY.value else _PASSED_ON, why="a table of runs")
    useless = [name for name in _OF_RUNS if flags.FLAGS[name].present] if _PRINT_ONLY.value else []
    if useless:
        raise UserError(f"--{useless[0]} has no effect with --print_only, which runs nothing. Leave one of them out.")
    if not _RUNS.value and not _PRINT_ONLY.value:
        raise UserError("No --runs are given. Expected flagfiles, such as --runs=flags/digits/fixmatch_40.flags.")
    return given


def main() -> None:
    """Runs the command line."""
    given, seeds = _check_flags(), parse_seeds(_SEEDS.value)
    written = output_file(_PAGE) if _PAGE.value else None
    flagfiles = find_flagfiles(_RUNS.value) if _RUNS.value else _all_measured()
    failures = [] if _PRINT_ONLY.value else _run_all(flagfiles, seeds, given)
    if _WRITE_HEADERS.value:
        for flagfile in flagfiles:
            flagfile.write_header()
    if written:
        text = page(_all_measured(), region_comparison.sections()).encode()
        write_atomically(written, lambda file: file.write(text))
    print(table(flagfiles), end="")
    if failures:
        sys.exit("\n".join([f"{len(failures)} of {len(seeds) * len(flagfiles)} runs failed:", *failures]))


if __name__ == "__main__":
    # A terminated table takes the run that it waits for with it, instead of leaving it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped. Give the same command again to resume."))
    flag_definitions.run_binary(main)
