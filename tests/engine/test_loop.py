"""Things happen at absolute multiples of the step, wherever the loop starts and however many steps a call takes."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.engine import loop, setup
from metassl_tf.engine.fine_tune import fine_tune
from metassl_tf.engine.loop import Grid, run_loop
from metassl_tf.engine.workdir import Workdir
from tests.terminal import Terminal
from tests.trained_runs import config_of


def random_grid(seed: int) -> Grid:
    total, *every = np.random.default_rng(seed).integers(1, [200, 60, 60, 60]).tolist()
    return Grid(total=total, log=every[0], evaluate=every[1], checkpoint=every[2])


@pytest.mark.parametrize("seed", range(50))
def test_next_boundary_is_the_first_step_at_which_anything_is_due(seed: int) -> None:
    grid = random_grid(seed)
    for step in range(grid.total):
        due = [
            later
            for later in range(step + 1, grid.total + 1)
            if any(grid.due(later, every) for every in (grid.log, grid.evaluate, grid.checkpoint))
        ]
        assert grid.next_boundary(step) == due[0]


@pytest.mark.parametrize("seed", range(20))
def test_things_are_due_at_multiples_and_at_the_end(seed: int) -> None:
    grid = random_grid(seed)
    expected = {*range(grid.evaluate, grid.total + 1, grid.evaluate), grid.total}
    assert {step for step in range(1, grid.total + 1) if grid.due(step, grid.evaluate)} == expected


class FakeTrainer:
    """Counts steps; each takes `seconds` on a clock of its own."""

    def __init__(self, clock: list[float], *, step: int = 0, seconds: float = 0.1, bad_step: int = -1) -> None:
        self.step = tf.Variable(step, dtype=tf.int64)
        self.calls: list[int] = []
        self._clock, self._seconds, self._bad_step = clock, seconds, bad_step

    def train(self, count: tf.Tensor) -> None:
        self.calls.append(int(count))
        self.step.assign_add(int(count))
        self._clock[0] += int(count) * self._seconds

    def check_finite(self) -> None:
        if 0 <= self._bad_step < int(self.step):
            raise FloatingPointError

    def read_metrics(self) -> dict[str, float]:
        return {"loss": float(self.step)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the loop sees, in seconds."""
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    return now


def run(
    trainer: Any, grid: Grid, events: list[tuple[str, int]] | None = None, *, title: str = ""
) -> list[tuple[str, int]]:
    """Everything that happens, in order; added to `events`, which keeps it when the run fails."""
    events = [] if events is None else events

    def on_evaluation(step: int, metrics: dict[str, float]) -> str:
        assert metrics == {"loss": step}
        events.append(("evaluate", step))
        return f"evaluated at {step}"

    run_loop(
        trainer,
        grid,
        on_metrics=lambda step, _: events.append(("log", step)),
        on_evaluation=on_evaluation,
        save=lambda step: events.append(("save", step)),
        examples_per_step=1,
        title=title,
    )
    return events


GRID = Grid(total=23, log=4, evaluate=10, checkpoint=6)
EVENTS = [
    *[("log", 4), ("save", 6), ("log", 8), ("log", 10), ("evaluate", 10), ("log", 12), ("save", 12), ("log", 16)],
    *[("save", 18), ("log", 20), ("evaluate", 20), ("log", 23), ("evaluate", 23), ("save", 23)],
]


@pytest.mark.parametrize("seconds", [1e-4, 0.04, 0.3])
def test_everything_happens_when_due_and_evaluation_comes_before_the_checkpoint(
    seconds: float, clock: list[float]
) -> None:
    trainer = FakeTrainer(clock, seconds=seconds)
    assert run(trainer, GRID) == EVENTS
    assert sum(trainer.calls) == GRID.total


@pytest.mark.parametrize("start", [6, 12, 18, 23])
def test_restored_run_goes_on_with_the_same_grid(start: int, clock: list[float]) -> None:
    expected = [event for event in EVENTS if event[1] > start]
    assert run(FakeTrainer(clock, step=start), GRID) == expected


def test_a_slow_run_checkpoints_by_the_clock(clock: list[float]) -> None:
    grid = Grid(total=30, log=100, evaluate=100, checkpoint=100)
    saves = [step for event, step in run(FakeTrainer(clock, seconds=4.0), grid) if event == "save"]
    assert saves == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]


def test_calls_grow_until_one_takes_a_second(clock: list[float]) -> None:
    trainer = FakeTrainer(clock, seconds=0.01)
    run(trainer, Grid(total=1000, log=10_000, evaluate=10_000, checkpoint=10_000))
    assert trainer.calls[:8] == [1, 2, 4, 8, 16, 32, 64, 100]
    assert set(trainer.calls[8:-1]) <= {99, 100}


def test_nothing_is_saved_once_the_loss_is_not_finite(clock: list[float]) -> None:
    events: list[tuple[str, int]] = []
    with pytest.raises(FloatingPointError):
        run(FakeTrainer(clock, bad_step=7), GRID, events)
    assert events == [("log", 4), ("save", 6)]


def test_terminal_shows_rate_and_evaluation(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run(FakeTrainer(clock), GRID)
    last = terminal.getvalue().rstrip("\n").rpartition("\r")[2]
    assert re.search(r"^evaluated at 23: 100%.* 23/23 .*, 10 examples/s", last), last


@pytest.mark.parametrize("title", ["", "fine-tuning"])
def test_terminal_shows_the_title_until_an_evaluation_takes_its_place(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, title: str
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run(FakeTrainer(clock), GRID, title=title)
    shown = terminal.getvalue().split("\r")[1:]  # each begins where the line does
    assert shown[0].startswith(f"{title}: " if title else "  0%|")
    assert shown[-1].startswith("evaluated at 23: ")


def test_fine_tuning_says_what_it_is_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    experiment = setup.build(config_of("taught"))
    monkeypatch.setattr(sys, "stderr", terminal)
    fine_tune(experiment, Workdir(tmp_path))
    shown = terminal.getvalue().split("\r")[1:]
    assert shown[0].startswith("fine-tuning:   0%")
    assert shown[-1].startswith("fine-tuned: 100%")


def test_a_line_for_each_evaluation_when_not_a_terminal(clock: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    run(FakeTrainer(clock), GRID)
    evaluated = [step for event, step in EVENTS if event == "evaluate"]
    assert len(evaluated) > 1
    assert capfd.readouterr() == ("", "".join(f"step {step} of 23: evaluated at {step}\n" for step in evaluated))
