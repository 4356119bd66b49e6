"""`metrics.jsonl` holds exactly the evaluations up to the restored step."""

import json
from pathlib import Path

import pytest

from metassl_tf.engine.history import History

ROWS = [
    {"step": step, "train": {"loss": 1 / step}, "test": {"ema": {"accuracy": 0.1, "recall": [0.5, None]}}}
    for step in (5, 10, 15)
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with three rows."""
    path = tmp_path / "metrics.jsonl"
    history = History(path, restored_step=0)
    for row in ROWS:
        history.append(row)
    return path


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_rows_are_read_back(path: Path) -> None:
    history = History(path, restored_step=15)
    assert history.rows == ROWS
    assert path.read_text().count("\n") == 3


@pytest.mark.parametrize(("restored", "kept"), [(0, []), (4, []), (5, [5]), (9, [5]), (12, [5, 10]), (99, [5, 10, 15])])
def test_what_lies_behind_the_restored_step_is_cut(restored: int, kept: list[int], path: Path) -> None:
    history = History(path, restored_step=restored)
    assert [row["step"] for row in history.rows] == kept
    assert steps(path) == kept


def test_half_a_line_is_cut_wherever_it_ends(path: Path) -> None:
    whole = path.read_bytes()
    last = whole.splitlines()[-1]
    for length in range(1, len(last) + 1):
        path.write_bytes(whole.removesuffix(last + b"\n") + last[:length])
        history = History(path, restored_step=12)
        assert [row["step"] for row in history.rows] == [5, 10]
        history.append(ROWS[2])
        assert path.read_bytes() == whole


def test_line_without_its_end_is_not_continued(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    history = History(path, restored_step=15)
    history.append({"step": 20})
    assert steps(path) == [5, 10, 15, 20]


def test_file_that_needs_no_cut_is_left_alone(path: Path) -> None:
    before = path.stat()
    History(path, restored_step=15)
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_no_file_is_made_before_the_first_row(tmp_path: Path) -> None:
    history = History(tmp_path / "metrics.jsonl", restored_step=0)
    assert history.rows == []
    assert not any(tmp_path.iterdir())


def test_a_row_is_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    history = History(tmp_path / "metrics.jsonl", restored_step=0)
    history.append(ROWS[0])
    assert steps(tmp_path / "metrics.jsonl") == [5]
