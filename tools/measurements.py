"""Flagfiles and what was measured with them: headers, `measured.json`, and the table of ours beside the papers'.

The header of a flagfile, comment lines of the form `# Field:  text`, says what a paper reports. What was measured is
data in the `measured.json` of the flagfile's folder; `# Measured:` in the header and the page of results are
written from there and never by hand. A number belongs to the flags that it was measured with: once these change it no
longer counts.
"""

import dataclasses
import glob
import hashlib
import itertools
import json
import os
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from metassl_tf.engine.workdir import write_atomically
from metassl_tf.errors import UserError
from tools.comparisons import better_of, differences, with_spread

FIELDS = ("Paper", "Command", "Hardware", "Time", "Expected", "Measured")
"""What every header has. Optional are `Data` and `Departs` (from the paper), and two that name another flagfile of the
folder, without its suffix: `Compared`, whose runs these are compared with seed by seed, and `Teacher`, whose run of the
same seed makes the labels that these learn from; `Before` says how, for whoever does it by hand."""
AUROCS = ("weight", "confidence", "agreement")
BESIDE = {"fine_tuned": "after fine-tuning", "teacher": "of the teacher"}
NOT_YET = "not yet"
_PAGE = """# Results

Measured by the commands in the flagfiles and written here by `tools/paper_table.py`; a number that was not measured is
not here. What was varied, settings of learned weights and forms of feedback to teachers, is in [tables of its
own](flags/digits/ablations/tables.md).

"""

_FIELD = re.compile(r"# ([A-Z][a-z]+): +(\S.*)")
_CONTINUATION = re.compile(r"#  +(\S.*)")
_PERCENT = re.compile(r"(\d+\.\d+(?: ± \d+\.\d+)?) %")
_INDENT = 11


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One finished run.

    Attributes:
      seed: value of `--seed` and `--split_seed`.
      test_accuracy: share of the test set, of the averaged weights at the last step.
      median_of_last_20: median of that over the last 20 evaluations (FixMatch, arXiv:2001.07685).
      steps: number of training steps.
      seconds: duration of the training, evaluations included.
      date: day on which it ended, as YYYY-MM-DD.
      commit: of this repository; `unknown` without git, `+changes` where the package differed from the commit.
      note: what distinguishes the data or the machine, such as `a JPEG-compressed copy`; may be empty.
      versions: package -> version.
      beside: test accuracy of the other networks of the run: `teacher`, and the student once it is `fine_tuned`; empty
        for a run of one network.
      aurocs: for telling which unlabeled examples can be trusted, of what was measured: `weight`, `confidence` of the
        model, and its `agreement` with the given label; empty for a run that learns no weights.
    """

    seed: int
    test_accuracy: float
    median_of_last_20: float
    steps: int
    seconds: float
    date: str
    commit: str
    note: str
    versions: dict[str, str]
    aurocs: dict[str, float] = dataclasses.field(default_factory=dict)
    beside: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Flagfile:
    """A flagfile on the disk.

    Attributes:
      path: such as `flags/digits/fixmatch_40.flags`.
    """

    path: Path

    @property
    def name(self) -> str:
        """Folder and name, such as `digits/fixmatch_40`."""
        return f"{self.path.parent.name}/{self.path.stem}"

    def flags(self) -> list[str]:
        """Its lines without comments and blank ones."""
        lines = (line.strip() for line in self.path.read_text().splitlines())
        return [line for line in lines if line and not line.startswith(("#", "//"))]

    def digest(self) -> str:
        """Sha256, in hexadecimal digits, of its flags, and of those of its teacher where it has one."""
        teacher = self.other("Teacher")
        lines = [*self.flags(), *([f"# Teacher: {teacher.digest()}"] if teacher else [])]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def header(self) -> dict[str, str]:
        """Field -> its text, from the comments at the top; a text of several lines is joined."""
        fields: dict[str, str] = {}
        name = ""
        for line in itertools.takewhile(lambda line: line.startswith("#"), self.path.read_text().splitlines()):
            begin, more = _FIELD.fullmatch(line), _CONTINUATION.fullmatch(line)
            if begin:
                name = begin[1]
                fields[name] = begin[2]
            elif more and name:
                fields[name] += f" {more[1]}"
            else:
                name = ""
        return fields

    def other(self, field: str) -> "Flagfile | None":
        """The flagfile that a field of the header names, or None where it has no such field."""
        name = self.header().get(field)
        return Flagfile(self.path.with_name(f"{name}.flags")) if name else None

    def expected(self) -> str:
        """The first percentage of the field `Expected`, such as `94.71 ± 0.25`; empty if there is none."""
        found = _PERCENT.match(self.header().get("Expected", ""))
        return found[1] if found else ""

    def measurements(self) -> list[Measurement]:
        """What was measured with the present flags, by seed."""
        entry = self._folder_data().get(self.path.stem, {})
        if entry.get("flags_sha256") != self.digest():
            return []
        return sorted((Measurement(**run) for run in entry["runs"]), key=lambda run: run.seed)

    def record(self, measurement: Measurement) -> None:
        """Writes a measurement to `measured.json`, in place of an earlier one of its seed or of other flags."""
        others = [run for run in self.measurements() if run.seed != measurement.seed]
        runs = sorted([*others, measurement], key=lambda run: run.seed)
        data = self._folder_data()
        data[self.path.stem] = {"flags_sha256": self.digest(), "runs": [dataclasses.asdict(run) for run in runs]}
        text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        write_atomically(self._data_path, lambda file: file.write(text.encode()))

    def comparisons(self) -> list[str]:
        """What the runs say beside their accuracy: how far they are ahead of those compared with, and what tells."""
        runs, found = self.measurements(), []
        other = self.other("Compared")
        if other:
            ahead = differences(_percent_by_seed(runs), _percent_by_seed(other.measurements()))
            if ahead:
                found.append(
                    f"{with_spread(ahead, sign=True)} points to {other.path.stem}, better in {better_of(ahead)}"
                )
        for name, text in BESIDE.items():
            values = [100 * run.beside[name] for run in runs if name in run.beside]
            if values:
                found.append(f"{with_spread(values)} % {text}")
        for name in AUROCS:
            values = [run.aurocs[name] for run in runs if name in run.aurocs]
            if values:
                found.append(f"AUROC of {name}: {with_spread(values, decimals=3)}")
        return found

    def with_measured(self) -> str:
        """The file's text with the field `Measured` as the data have it.

        Raises:
          UserError: the header has no such field.
        """
        lines = self.path.read_text().splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("# Measured:")]
        if not starts:
            raise UserError(
                f"{self.path} has no line for what was measured. Expected `# Measured:  {NOT_YET}` among the comments "
                "at its top."
            )
        end = starts[0] + 1
        while end < len(lines) and _CONTINUATION.fullmatch(lines[end]):
            end += 1
        first, *rest = measured_lines(self.measurements(), self.comparisons())
        written = [f"# {'Measured:':<{_INDENT}}{first}", *(f"# {'':<{_INDENT}}{line}" for line in rest)]
        return "\n".join([*lines[: starts[0]], *written, *lines[end:]]) + "\n"

    def write_header(self) -> None:
        """Brings the field `Measured` up to date."""
        text = self.with_measured()
        if text != self.path.read_text():
            write_atomically(self.path, lambda file: file.write(text.encode()))

    @property
    def _data_path(self) -> Path:
        return self.path.with_name("measured.json")

    def _folder_data(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self._data_path.read_text()) if self._data_path.exists() else {}
        return data


def find_flagfiles(patterns: Iterable[str]) -> list[Flagfile]:
    """Finds flagfiles.

    Args:
      patterns: paths, or glob patterns such as `flags/digits/*.flags`.

    Returns:
      Each once, in the order of the patterns.

    Raises:
      UserError: a pattern finds no file.
    """
    found: dict[Path, Flagfile] = {}
    for pattern in patterns:
        paths = sorted(filter(os.path.isfile, glob.glob(pattern)))
        if not paths:
            raise UserError(f"--runs={pattern} finds no file. Expected flagfiles, such as flags/digits/*.flags.")
        found |= {Path(path): Flagfile(Path(path)) for path in paths}
    return list(found.values())


def accuracy(runs: Sequence[Measurement]) -> str:
    """Mean test accuracy in percent ± sample standard deviation (divisor n - 1; left out for one run)."""
    return with_spread([100.0 * run.test_accuracy for run in runs])


def measured_lines(runs: Sequence[Measurement], comparisons: Sequence[str] = ()) -> list[str]:
    """What a header says of runs: `not yet`, or accuracy with seeds, comparisons, then time, date, commit and notes."""
    if not runs:
        return [NOT_YET]
    seeds = f"seed{'s' if len(runs) > 1 else ''} {', '.join(str(run.seed) for run in runs)}"
    return [
        f"{accuracy(runs)} % (n = {len(runs)}: {seeds})",
        *comparisons,
        f"{_seconds(runs)} s a run, {_origin(runs)}",
        *_notes(runs),
    ]


def table(flagfiles: Iterable[Flagfile]) -> str:
    """Writes a Markdown table of ours beside the papers', one row per flagfile.

    Args:
      flagfiles: what to list; links go to their paths.

    Returns:
      The table, with a line on its columns; empty for no flagfiles.
    """
    rows = [_row(flagfile) for flagfile in flagfiles]
    if not rows:
        return ""
    head = [
        "Test accuracy in %, mean ± sample standard deviation over n seeds, which also choose who is labeled.",
        "",
        "| Flagfile | Ours | n | Paper's | Beside it | Seconds a run | Measured |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows]) + "\n"


def page(flagfiles: Iterable[Flagfile], sections: Iterable[str] = ()) -> str:
    """Writes the page of results, Markdown: a title, where the numbers come from, the table, and sections behind it."""
    return "\n".join([_PAGE + table(flagfiles), *sections])


def _row(flagfile: Flagfile) -> str:
    runs = flagfile.measurements()
    ours, seconds, origin = (
        (accuracy(runs), _seconds(runs), "; ".join([_origin(runs), *_notes(runs)])) if runs else (NOT_YET, "", "")
    )
    link = f"[{flagfile.name}]({flagfile.path.as_posix()})"
    beside = "; ".join(flagfile.comparisons())
    return f"| {link} | {ours} | {len(runs)} | {flagfile.expected()} | {beside} | {seconds} | {origin} |"


def _percent_by_seed(runs: Iterable[Measurement]) -> dict[int, float]:
    return {run.seed: 100.0 * run.test_accuracy for run in runs}


def _seconds(runs: Sequence[Measurement]) -> str:
    return f"{statistics.fmean(run.seconds for run in runs):.0f}"


def _origin(runs: Sequence[Measurement]) -> str:
    commits = ", ".join(dict.fromkeys(run.commit for run in runs))
    return f"{max(run.date for run in runs)}, commit {commits}"


def _notes(runs: Sequence[Measurement]) -> list[str]:
    return [note for note in dict.fromkeys(run.note for run in runs) if note]
