"""requirements.txt and requirements-dev.txt agree with constraints.txt, which installs anywhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def lines(name: str) -> list[str]:
    """Returns the entries of a requirements file without comments."""
    texts = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [text for text in texts if text]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "constraints.txt"])
def test_every_version_is_exact(name: str) -> None:
    """Nothing else may stand there: no ranges, no addresses of registries, no files of one machine."""
    assert [line for line in lines(name) if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line)] == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_constraints_hold_the_same_versions(name: str) -> None:
    assert set(lines(name)) <= set(lines("constraints.txt"))


def test_one_version_of_each() -> None:
    names = [line.partition("==")[0] for line in lines("constraints.txt")]
    assert len(names) == len(set(names)) > 100
    assert "torch" not in names
