"""Varies what learns the weights (arXiv:2007.01293, section 4.3), and teachers (arXiv:2003.10580v1), and compares.

    python -m tools.ablations --only=optimizer,updates --seeds=0..4
    python -m tools.ablations --print_only --output=runs/ablations/plots

Every run is a process of its own, one after the other, in a folder below `--runs_dir`; variants that are the same
share their runs. The same command again goes on where it was stopped. Results go to `ablations.json` beside the
flagfiles, and `--missing` runs only what is not there yet; one run that fails is reported at the end and keeps none of
the others from running.
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from tqdm import tqdm

from metassl_tf import flag_definitions
from metassl_tf.engine.workdir import write_atomically
from metassl_tf.errors import UserError
from tools import runs
from tools.ablation_data import Case, Results, Store, cases, measure, table
from tools.ablation_groups import BASES, GROUPS
from tools.ablation_plots import draw_over_steps, draw_variants
from tools.comparisons import choose, parse_seeds

_BASE = flags.DEFINE_list("base", [], f"Experiments to vary, of {', '.join(BASES)}; default: all.")
_ONLY = flags.DEFINE_list("only", [], f"Groups of variants, of {', '.join(GROUPS)}; default: all.")
_SEEDS = flags.DEFINE_list(
    "seeds", ["0", "1", "2"], "Seeds, or ranges such as 0..4, each given to a run as --seed and --split_seed."
)
_RUNS_DIR = flags.DEFINE_string("runs_dir", "runs/ablations", "Folder of the runs.")
TABLES = "tables.md"
_OUTPUT = flags.DEFINE_string("output", None, f"Folder for plots, PNG, and {TABLES}; it is made where there is none.")
_MISSING = flags.DEFINE_bool("missing", False, "Run only what was not measured before, in whatever folder.")
_PRINT_ONLY = flags.DEFINE_bool("print_only", False, "Run nothing: show what was measured before.")


class Question(NamedTuple):
    """A group of variants of a base.

    Attributes:
      base: name of the base.
      group: name of the group.
      cases: its variants.
      store: what was measured of them.
    """

    base: str
    group: str
    cases: Sequence[Case]
    store: Store

    @property
    def is_answered(self) -> bool:
        """Whether at least two of its cases were measured, perhaps for another question."""
        return len({case.digest for case, outcomes in self.results() if outcomes}) > 1

    @property
    def title(self) -> str:
        """What is asked of what."""
        group = GROUPS[self.group]
        source = f" ({group.source})" if group.source else ""
        return f"{BASES[self.base].title}: {group.title}{source}"

    @property
    def plots(self) -> list[str]:
        """Names of the files that show it: of the variants, and over steps where that is asked for."""
        stem = f"{self.base}_{self.group}"
        return [f"{stem}.png", *([f"{stem}_over_steps.png"] if GROUPS[self.group].over_steps else [])]

    def results(self) -> Results:
        """The cases with what was measured of them."""
        return [(case, self.store.outcomes(case)) for case in self.cases]


def questions(bases: Sequence[str], groups: Sequence[str]) -> list[Question]:
    """These groups of these bases, where a base is asked about them; flagfiles are looked for in the present folder."""
    return [
        Question(
            base=base,
            group=group,
            cases=cases(BASES[base], GROUPS[group]),
            store=Store(Path(BASES[base].path).with_name("ablations.json")),
        )
        for base in bases
        for group in BASES[base].groups
        if group in groups
    ]


class Job(NamedTuple):
    """A run to be made: a case of a question with a seed."""

    seed: int
    question: Question
    case: Case

    @property
    def is_measured(self) -> bool:
        """Whether its outcome is stored."""
        return any(outcome.seed == self.seed for outcome in self.question.store.outcomes(self.case))


def jobs_of(asked: Sequence[Question], seeds: Sequence[int], *, missing: bool) -> list[Job]:
    """Every case of every question, the first seed of all before the second; of `missing`, what is not stored."""
    jobs = [Job(seed, question, case) for seed in seeds for question in asked for case in question.cases]
    return [job for job in jobs if not (missing and job.is_measured)]


def run_all(jobs: Sequence[Job], runs_dir: Path) -> list[str]:
    """Runs everything; returns what went wrong."""
    failures = []
    with tqdm(jobs, unit="run", disable=None) as progress:
        for seed, question, case in progress:
            progress.set_description(f"{question.base}, {question.group}: {case.name}, seed {seed}")
            try:
                outcome = measure(question.base, question.group, case, seed, runs_dir=runs_dir)
            except runs.RunFailedError as failure:
                failures.append(str(failure))
            else:
                question.store.record(case, outcome)
    return failures


def draw(question: Question, folder: Path) -> None:
    """Draws a question's plots into a folder, which is made where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for plot, draw_into in zip(question.plots, (draw_variants, draw_over_steps), strict=False):
        draw_into(question.title, question.results(), folder / plot)


def section(question: Question) -> str:
    """A question's table, Markdown, and links to the plots that `draw` puts beside it."""
    links = "".join(f"\n![{question.title}]({plot})\n" for plot in question.plots)
    return table(question.title, question.results()) + links


def main() -> None:
    """Runs the command line."""
    flag_definitions.given(set(), why="an ablation")
    if _PRINT_ONLY.value:
        for name in ("seeds", "runs_dir", "missing"):
            if flags.FLAGS[name].present:
                raise UserError(f"--{name} has no effect with --print_only, which runs nothing. Leave one of them out.")
    seeds = parse_seeds(_SEEDS.value)
    asked = questions(
        choose(_BASE.value, list(BASES), flag="base", what="an experiment to vary"),
        choose(_ONLY.value, list(GROUPS), flag="only", what="a group of variants"),
    )
    jobs = [] if _PRINT_ONLY.value else jobs_of(asked, seeds, missing=_MISSING.value)
    failures = run_all(jobs, Path(_RUNS_DIR.value))
    answered = [question for question in asked if question.is_answered]
    tables = "\n".join(map(section, answered))
    print(tables, end="")
    if _OUTPUT.value and answered:
        folder = Path(_OUTPUT.value)
        for question in answered:
            draw(question, folder)
        write_atomically(folder / TABLES, lambda file: file.write(tables.encode()))
    if failures:
        sys.exit("\n".join([f"{len(failures)} of {len(jobs)} runs failed:", *failures]))


if __name__ == "__main__":
    # A terminated program takes the run that it waits for with it, instead of leaving it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped. Give the same command again to resume."))
    flag_definitions.run_binary(main)
