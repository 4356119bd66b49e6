"""Runs a program of the package as a user does: in a process of its own, or (in seconds less) in this one."""

import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from absl import flags
from absl.testing import flagsaver

ROOT = Path(__file__).parent.parent


def arguments(settings: dict[str, str | int | float | None]) -> list[str]:
    """`{"steps": 3}` -> `["--steps=3"]`; what is None is left out."""
    return [f"--{name}={value}" for name, value in settings.items() if value is not None]


@contextmanager
def _own_state() -> Iterator[None]:
    """Undoes what a program does to the process: flags, the level and the handlers of the log."""
    root, flag_values = logging.getLogger(), flags.FLAGS
    level, handlers = root.level, list(root.handlers)
    programs = [name for name in flag_values.flags_by_module_dict() if name in _PROGRAMS]
    others = {flag.name: flag for name in programs for flag in flag_values.get_flags_for_module(name)}
    for name in others:
        delattr(flag_values, name)
    try:
        with flagsaver.flagsaver():
            yield
    finally:
        flag_values.unparse_flags()
        for name, flag in others.items():
            flag_values[name] = flag
        root.setLevel(level)
        root.handlers[:] = handlers


_PROGRAMS = [f"metassl_tf.{path.stem}" for path in (ROOT / "metassl_tf").glob("*.py") if "run_binary(main)" in path.read_text()]


def run_here(program: str, given: Sequence[str]) -> str | None:
    """What `python -m metassl_tf.<program>` does, in this process.

    Returns:
      None where the program succeeds, or the message that it ends with.
    """
    path = ROOT / "metassl_tf" / f"{program}.py"
    with _own_state(), mock.patch.object(sys, "argv", [str(path), *given]):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as ended:
            return ended.code
    raise AssertionError("absl always ends with SystemExit")


def start(program: str, given: Sequence[str], *, folder: Path = ROOT) -> subprocess.Popen[str]:
    """Starts `python -m metassl_tf.<program>`, its output piped."""
    return subprocess.Popen(
        [sys.executable, "-m", f"metassl_tf.{program}", *given],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
