"""One training run in a process of its own, and what is read from the folder it leaves."""

import datetime
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metassl_tf.engine.workdir import Workdir
from tools.measurements import AUROCS, BESIDE, Flagfile, Measurement


class RunFailedError(Exception):
    """A run ended without a result; the message says why and where its output is."""


def workdir_of(flagfile: Flagfile, seed: int, *, runs_dir: Path) -> Workdir:
    """The folder of a run; another one as soon as the flags change."""
    return Workdir(runs_dir / f"{flagfile.name}-{flagfile.digest()[:8]}" / f"seed_{seed}")


def training_command(flagfile: Flagfile, seed: int, workdir: Workdir, given: Sequence[str]) -> list[str]:
    """The command that trains, or resumes, a run.

    Args:
      flagfile: the experiment.
      seed: `--seed` and `--split_seed`.
      workdir: the folder of the run.
      given: further flags.

    Returns:
      Program and arguments.
    """
    return [
        *(sys.executable, "-m", "metassl_tf.train"),
        f"--flagfile={flagfile.path}",
        *given,
        f"--seed={seed}",
        f"--split_seed={seed}",
        f"--workdir={workdir.root}",
    ]


def launch(command: Sequence[str], log: Path) -> int:
    """Runs a command to its end, its output appended to a file, and returns its status."""
    with log.open("ab") as output:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode


class Ended(NamedTuple):
    """What a run has left.

    Attributes:
      result: the content of its `result.json`.
      date: day on which it ended, as YYYY-MM-DD.
      commit: of this repository when it was started; see `Measurement`.
    """

    result: dict[str, Any]
    date: str
    commit: str


def finish(workdir: Workdir, command: Sequence[str], *, name: str) -> Ended:
    """Runs a training command, unless its run has ended already, and reads what it left.

    Args:
      workdir: the folder of the run.
      command: trains, or resumes, the run.
      name: of the run, for the message.

    Raises:
      RunFailedError: the process failed, or measured no test accuracy.
    """
    commit, log = workdir.root / "commit.txt", workdir.root / "log.txt"
    if not workdir.result.exists():
        workdir.root.mkdir(parents=True, exist_ok=True)
        commit.write_text(current_commit())
        status = launch(command, log)
        if status or not workdir.result.exists():
            raise RunFailedError(f"{name}: ended with status {status}. {_last_line(log)} (see {log})")
    result = json.loads(workdir.result.read_text())
    if result["test_accuracy"] is None:
        raise RunFailedError(f"{name}: measured no test accuracy, since there is no test set")
    return Ended(
        result=result,
        date=datetime.date.fromtimestamp(workdir.result.stat().st_mtime).isoformat(),
        commit=commit.read_text() if commit.exists() else "unknown",
    )


def measure(flagfile: Flagfile, seed: int, *, runs_dir: Path, given: Sequence[str], note: str) -> Measurement:
    """Trains one run, unless it has ended already, and reads what it measured.

    Args:
      flagfile: the experiment.
      seed: `--seed` and `--split_seed`.
      runs_dir: folder of all runs.
      given: further flags that do not change the experiment, such as `--data_dir`.
      note: stored with the measurement.

    Returns:
      The measurement.

    Raises:
      RunFailedError: the process failed, or measured no test accuracy.
    """
    workdir = workdir_of(flagfile, seed, runs_dir=runs_dir)
    if not workdir.result.exists():
        given = [*given, *_from_teacher(flagfile, seed, runs_dir=runs_dir, given=given)]
    command = training_command(flagfile, seed, workdir, given)
    result, date, commit = finish(workdir, command, name=f"{flagfile.name}, seed {seed}")
    return Measurement(
        seed=seed,
        test_accuracy=result["test_accuracy"],
        median_of_last_20=result["median_of_last_20"]["ema"]["test_accuracy"],
        steps=result["step"],
        seconds=result["seconds"],
        date=date,
        commit=commit,
        note=note,
        versions=result["versions"],
        beside={name: own for name in BESIDE if (own := accuracy_of(result, name)) is not None},
        aurocs={name: result[f"{name}_auroc"] for name in AUROCS if result.get(f"{name}_auroc") is not None},
    )


def accuracy_of(result: dict[str, Any], name: str) -> float | None:
    """Test accuracy of another network of a run: its `teacher`, or the `fine_tuned` student; None without one."""
    accuracy: float | None = result[name]["test"]["ema"]["accuracy"] if "test" in result.get(name, {}) else None
    return accuracy


def _from_teacher(flagfile: Flagfile, seed: int, *, runs_dir: Path, given: Sequence[str]) -> list[str]:
    """Trains the run's teacher, if it has one, behind that one's own, and lets it label where labels are stored.

    Returns:
      The flag that says where the labels, or the teacher's weights, are.
    """
    teacher = flagfile.other("Teacher")
    if teacher is None:
        return []
    workdir = workdir_of(teacher, seed, runs_dir=runs_dir)
    if not workdir.result.exists():  # a student that becomes a teacher has one itself
        of_teacher = [*given, *_from_teacher(teacher, seed, runs_dir=runs_dir, given=given)]
        finish(workdir, training_command(teacher, seed, workdir, of_teacher), name=f"{teacher.name}, seed {seed}")
    names = {flag.partition("=")[0] for flag in flagfile.flags()}
    if "--init_teacher_from" in names:
        return [f"--init_teacher_from={workdir.root}"]
    if "--stored_labels" not in names:
        return [f"--given_labels={workdir.root}"]
    own = workdir_of(flagfile, seed, runs_dir=runs_dir).root
    labels, log = own.with_name(f"labels_{seed}"), own.with_name(f"labels_{seed}.txt")
    own.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "metassl_tf.label"),
        f"--flagfile={flagfile.path}",
        *given,
        f"--seed={seed}",
        f"--split_seed={seed}",
        f"--teacher={workdir.root}",
        f"--stored_labels={labels}",
    ]
    if status := launch(command, log):
        raise RunFailedError(f"{flagfile.name}, seed {seed}: labeling ended with status {status}. {_last_line(log)}")
    return [f"--stored_labels={labels}"]


def current_commit() -> str:
    """Short hash of the present commit, with `+changes` where the package differs from it; `unknown` without git."""
    try:
        commit, changes = (
            subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "metassl_tf"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+changes" if changes else commit


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    # A progress bar redraws its line behind carriage returns.
    return next((line.rpartition("\r")[2] for line in reversed(lines) if line.strip()), "It wrote nothing.")
