"""Flagfiles in a folder of their own, and runs that do not train: for whatever runs flagfiles."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tools.fake_training import TINY, FakeTraining
from tests.tools.small_flagfiles import HEADER
from tools import runs


@pytest.fixture
def fake() -> Callable[..., int]:
    """What a test's runs are replaced by; a module whose runs are others has its own."""
    return FakeTraining()


@pytest.fixture
def training(fake: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Stands in the place of real runs."""
    monkeypatch.setattr(runs, "launch", fake)
    monkeypatch.setattr(runs, "current_commit", lambda: "abc1234")
    return fake


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with two flagfiles to stand in."""
    folder = tmp_path / "flags/toy"
    folder.mkdir(parents=True)
    for name, expected in (("first", "91.20 ± 0.30 % (somewhere); 90.00 % elsewhere"), ("second", "none: it is new")):
        (folder / f"{name}.flags").write_text(HEADER.format(name=name, expected=expected) + TINY)
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, handler)
