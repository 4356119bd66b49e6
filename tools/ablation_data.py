"""What was measured of the variants of an experiment: runs, `ablations.json` beside the flagfile, and tables of it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metassl_tf.engine.workdir import Workdir, write_atomically
from metassl_tf.flagfile import to_flagfile
from tools import runs
from tools.comparisons import better_of, differences, with_spread
from tools.measurements import Flagfile
from tools.outputs import write_json
from tools.variants import BASE, Base, Group, changed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """One finished run.

    Attributes:
      seed: value of `--seed` and `--split_seed`.
      test_accuracy: share of the test set, of the averaged weights at the last step.
      weight_auroc: of the weights, for telling trustworthy examples; None where examples have no weights of their own.
      seconds: duration of the training, evaluations included.
      peak_memory_mb: largest resident memory of the process, in MB.
      accuracies: step -> test accuracy of the averaged weights there, at every evaluation.
      date: day on which it ended, as YYYY-MM-DD.
      commit: of this repository; see `measurements.Measurement`.
      versions: package -> version.
      teacher_accuracy: share of the test set that the teacher's averaged weights predict right; None without one.
      fine_tuned_accuracy: that of the fine-tuned student; None without that phase.
    """

    seed: int
    test_accuracy: float
    weight_auroc: float | None
    seconds: float
    peak_memory_mb: float
    accuracies: dict[str, float]
    date: str
    commit: str
    versions: dict[str, str]
    teacher_accuracy: float | None = None
    fine_tuned_accuracy: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A variant of a base: all its settings.

    Attributes:
      name: of the variant.
      changes: setting -> value, what distinguishes it from the base.
      flags: text of a flagfile that alone reproduces it.
      reference: name of the case that it is compared with.
    """

    name: str
    changes: Mapping[str, Any]
    flags: str
    reference: str

    @property
    def digest(self) -> str:
        """Sha256 of its flags, in hexadecimal digits: variants of several groups that are the same share runs."""
        return hashlib.sha256(self.flags.encode()).hexdigest()


def cases(base: Base, group: Group) -> list[Case]:
    """The variants of a group, behind the base where one is compared with it and none equals it.

    Args:
      base: what is varied.
      group: how.

    Returns:
      A case for each. A variant that equals the base is the reference in its stead.
    """
    config = base.config()
    found = [
        Case(
            name=name,
            changes=variant.changes,
            flags=to_flagfile(changed(config, variant.changes)),
            reference=variant.reference,
        )
        for name, variant in group.variants.items()
    ]
    if all(case.reference != BASE for case in found):
        return found
    unchanged = Case(name=BASE, changes={}, flags=to_flagfile(config), reference=BASE)
    same = next((case for case in found if case.digest == unchanged.digest), unchanged)
    found = [dataclasses.replace(case, reference=same.name) if case.reference == BASE else case for case in found]
    return found if same is not unchanged else [unchanged, *found]


def measure(base: str, group: str, case: Case, seed: int, *, runs_dir: Path) -> Outcome:
    """Trains one run in a process of its own, unless it has ended already.

    Args:
      base: name of the base.
      group: name of the group.
      case: what to run.
      seed: `--seed` and `--split_seed`.
      runs_dir: folder of all runs.

    Raises:
      runs.RunFailedError: the process failed, or measured no test accuracy.
    """
    folder = runs_dir / case.digest[:8]
    folder.mkdir(parents=True, exist_ok=True)
    flagfile = Flagfile(folder / "variant.flags")
    # The first name that it ran under, for whoever looks into the folder.
    if not flagfile.path.exists():
        write_atomically(
            flagfile.path, lambda file: file.write(f"# {base}, {group}: {case.name}\n{case.flags}".encode())
        )
    workdir = Workdir(folder / f"seed_{seed}")
    command = runs.training_command(flagfile, seed, workdir, [])
    result, date, commit = runs.finish(workdir, command, name=f"{base}, {group}: {case.name}, seed {seed}")
    rows = [json.loads(line) for line in workdir.metrics.read_text().splitlines()]
    return Outcome(
        seed=seed,
        test_accuracy=result["test_accuracy"],
        weight_auroc=result.get("weight_auroc"),
        seconds=result["seconds"],
        peak_memory_mb=result["peak_memory_mb"],
        accuracies={str(row["step"]): row["test"]["ema"]["accuracy"] for row in rows},
        date=date,
        commit=commit,
        versions=result["versions"],
        teacher_accuracy=runs.accuracy_of(result, "teacher"),
        fine_tuned_accuracy=runs.accuracy_of(result, "fine_tuned"),
    )


@dataclasses.dataclass(frozen=True)
class Store:
    """What was measured, under the settings that it was measured with: variants that are the same share their runs.

    Attributes:
      path: JSON file: sha256 of a case's flags -> `flags`, line by line, and `runs`.
    """

    path: Path

    def outcomes(self, case: Case) -> list[Outcome]:
        """What was measured with the case's flags, by seed."""
        entry = self._read().get(case.digest, {"runs": []})
        return sorted((Outcome(**run) for run in entry["runs"]), key=lambda run: run.seed)

    def record(self, case: Case, outcome: Outcome) -> None:
        """Writes an outcome, in place of an earlier one of its seed."""
        others = [run for run in self.outcomes(case) if run.seed != outcome.seed]
        data = self._read()
        data[case.digest] = {
            "flags": case.flags.splitlines(),
            "runs": [dataclasses.asdict(run) for run in sorted([*others, outcome], key=lambda run: run.seed)],
        }
        write_json(self.path, data)

    def _read(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}
        return data


Results = Sequence[tuple[Case, Sequence[Outcome]]]


def table(title: str, results: Results) -> str:
    """Writes a Markdown table, a row for each case that was measured.

    Args:
      title: stands above it.
      results: the cases of a group with their runs.

    Returns:
      The table, without the columns of what none of them has.
    """
    cells = [_cells(case, outcomes, results) for case, outcomes in results if outcomes]
    kept = [name for name in cells[0] if any(row[name] for row in cells)]
    rows = [[row[name] for name in kept] for row in cells]
    head = [
        f"### {title}",
        "",
        "Mean ± sample standard deviation over n seeds. Difference: of test accuracy with the same seed, in points, to "
        "the row that is named behind it.",
        "",
        *(f"| {' | '.join(row)} |" for row in (kept, ["---"] * len(kept), *rows)),
    ]
    return "\n".join(head) + "\n"


def _cells(case: Case, outcomes: Sequence[Outcome], results: Results) -> dict[str, str]:
    """Column -> what stands in it."""
    theirs = next((runs for other, runs in results if other.name == case.reference), ())
    ahead = differences(_accuracies(outcomes), _accuracies(theirs)) if case.name != case.reference else []
    aurocs = [run.weight_auroc for run in outcomes if run.weight_auroc is not None]
    return {
        "Variant": case.name,
        "Test accuracy, %": with_spread([100.0 * run.test_accuracy for run in outcomes]),
        "Difference": f"{with_spread([100.0 * value for value in ahead])} ({case.reference})" if ahead else "",
        "Better in": better_of(ahead) if ahead else "",
        "Fine-tuned, %": _percent([run.fine_tuned_accuracy for run in outcomes]),
        "Teacher, %": _percent([run.teacher_accuracy for run in outcomes]),
        "Weight AUROC": with_spread(aurocs, decimals=3) if aurocs else "",
        "Seconds": with_spread([run.seconds for run in outcomes], decimals=0),
        "Memory, MB": with_spread([run.peak_memory_mb for run in outcomes], decimals=0),
        "n": str(len(outcomes)),
    }


def _percent(accuracies: Sequence[float | None]) -> str:
    """Mean and spread in percent; empty where one was not measured."""
    known = [100.0 * accuracy for accuracy in accuracies if accuracy is not None]
    return with_spread(known) if len(known) == len(accuracies) else ""


def _accuracies(outcomes: Sequence[Outcome]) -> dict[int, float]:
    return {run.seed: run.test_accuracy for run in outcomes}
