"""Runs a program of the package as a user does: in a process of its own, or (seconds faster) in this one."""

import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tensorflow as tf
from absl.testing import flagsaver

from metassl_tf.engine.trainer import Trainer
from metassl_tf.flag_definitions import FLAGS

ROOT = Path(__file__).parent.parent
_PROGRAMS = ("metassl_tf.train", "metassl_tf.evaluate", "metassl_tf.export")


def arguments(settings: Mapping[str, Any]) -> list[str]:
    """`{"steps": 3}` -> `["--steps=3"]`; what is None is left out."""
    return [f"--{name}={value}" for name, value in settings.items() if value is not None]


@contextmanager
def _untouched_process() -> Iterator[None]:
    """Undoes what a program does to its process: flags, and the level and the handlers of the log."""
    root, defined = logging.getLogger(), FLAGS.flags_by_module_dict()
    level, handlers = root.level, list(root.handlers)
    # Flags of another program that a test has imported may have the same names.
    others = [flag for program in _PROGRAMS for flag in defined.get(program, [])]
    for flag in others:
        delattr(FLAGS, flag.name)
    try:
        with flagsaver.flagsaver():  # forgets the program's own flags as well
            yield
    finally:
        FLAGS.unparse_flags()
        for flag in others:
            FLAGS[flag.name] = flag
        root.setLevel(level)
        root.handlers[:] = handlers


def ending_of(call: Callable[[], object], argv: Sequence[str]) -> str | int | None:
    """Calls what ends with SystemExit under a command line of its own.

    Returns:
      None for success, else the message that it ends with; 1 where it has written one to stderr itself.
    """
    with _untouched_process(), mock.patch.object(sys, "argv", list(argv)):
        try:
            call()
        except SystemExit as ended:
            return ended.code
    raise AssertionError("a program of absl ends with SystemExit")


def run_here(program: str, given: Sequence[str]) -> str | int | None:
    """Does in this process what `python -m metassl_tf.<program>` does; returns what `ending_of` returns."""
    path = str(ROOT / "metassl_tf" / f"{program}.py")
    return ending_of(lambda: runpy.run_path(path, run_name="__main__"), [path, *given])


def start(program: str, given: Sequence[str], *, folder: Path = ROOT) -> subprocess.Popen[str]:
    """Starts `python -m metassl_tf.<program>` in a folder, its output piped."""
    return subprocess.Popen(
        [sys.executable, "-m", f"metassl_tf.{program}", *given],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class ReachedTraining(BaseException):
    """The first training step would begin here; nothing in the package catches it."""


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the first training step raise `ReachedTraining`."""
    train = Trainer.train

    def refuse(self: Trainer, num_steps: tf.Tensor) -> Any:
        if int(num_steps):
            raise ReachedTraining
        return train(self, num_steps)

    monkeypatch.setattr(Trainer, "train", refuse)


def error_of(given: Sequence[str]) -> str:
    """Runs a training command that must end with an error that a user can read, and returns it."""
    message = run_here("train", given)
    assert isinstance(message, str), message
    assert message.startswith("error: ")
    assert "Traceback" not in message
    assert "in user code" not in message
    return message
