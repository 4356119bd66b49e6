"""A run in a process of its own, and which commit it is of."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import runs


def test_launch_appends_the_output_and_returns_the_status(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    for status in (0, 3):
        program = f"import sys; print('to stdout {status}'); print('to stderr', file=sys.stderr); sys.exit({status})"
        assert runs.launch([sys.executable, "-c", program], log) == status
    lines = log.read_text().splitlines()
    assert sorted(lines) == ["to stderr", "to stderr", "to stdout 0", "to stdout 3"]


def test_commit_says_whether_the_package_differs_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert runs.current_commit() == "unknown"

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    for folder in ("metassl_tf", "flags/toy"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "metassl_tf/code.py").write_text("")
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    commit = git("rev-parse", "--short", "HEAD")
    (tmp_path / "flags/toy/measured.json").write_text("{}")  # what the table itself writes is no change
    assert runs.current_commit() == commit
    (tmp_path / "metassl_tf/code.py").write_text("changed")
    assert runs.current_commit() == f"{commit}+changes"
