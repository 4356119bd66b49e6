"""A training that takes no time, and a project for the table of flagfiles to run it in."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metassl_tf.engine.workdir import Workdir
from tests.command_line import run_here
from tools.measurements import Flagfile

TINY = """--dataset=digits
--num_labeled=20
--algorithm=supervised
--model=mlp
--hidden_units=4
--batch_size=4
--steps=3
"""


class FakeTraining:
    """Stands for `launch`: writes what a run leaves, at once; the accuracy depends on name and seed.

    Attributes:
      commands: every command that was launched, without the program.
      fail: names of flagfiles whose runs fail.
      more: seed -> what else is in the result.
    """

    def __init__(self) -> None:
        self.commands: list[dict[str, str]] = []
        self.fail: set[str] = set()
        self.more: dict[str, dict[str, Any]] = {}

    def __call__(self, command: Sequence[str], log: Path) -> int:
        assert list(command[:2]) == [sys.executable, "-m"]
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in command[3:])
        self.commands.append(flags)
        if command[2] == "metassl_tf.label":
            assert Workdir(flags["teacher"]).result.exists()
            log.write_text("error: no such model.\n")
            return int("label" in self.fail)
        assert command[2] == "metassl_tf.train"
        workdir = Workdir(flags["workdir"])
        name = Path(flags["flagfile"]).stem
        if name in self.fail:
            log.write_text("Traceback\n\rtraining 3%\rerror: --steps=-1 is out of range.\n\n")
            return 1
        accuracy = {"first": 0.9, "second": 0.7, "third": 0.5}[name] + 0.01 * int(flags["seed"])
        result = {
            "test_accuracy": accuracy,
            "median_of_last_20": {"raw": {"test_accuracy": 0.1}, "ema": {"test_accuracy": accuracy - 0.001}},
            "step": 3,
            "seconds": 2.0 + int(flags["seed"]),
            "versions": {"metassl_tf": "1.0"},
            **self.more.get(flags["seed"], {}),
        }
        workdir.result.write_text(json.dumps(result))
        return 0


FIRST = Flagfile(Path("flags/toy/first.flags"))


def paper_table(*given: str) -> str | int | None:
    return run_here("../tools/paper_table", given)
