"""The benchmark compares what it says it compares, and stores and shows it; nothing heavy is measured here."""

import functools
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.engine import run
from metassl_tf.errors import UserError
from tests.command_line import run_here
from tools.benchmarks import experiments, memory, pytorch, suite
from tools.benchmarks.compare import NotMeasurableError, Side, rate_ratios, summary, time_ratios
from tools.benchmarks.engine_loop import bare_loop
from tools.benchmarks.suite import BENCHMARKS, Benchmark

TINY = ["--image_size=8", "--filters=2", "--batch_size=4", "--unlabeled_ratio=2", "--threshold=0.1"]
TINY += ["--l2_weight_decay=0.5", "--steps=10"]


class Machine:
    """A clock, and work that makes it go on.

    Attributes:
      seconds: what the clock shows.
      log: everything that was done.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.log: list[str] = []

    def side(self, name: str, durations: list[float], *, amount: float = 1.0) -> Side:
        """Work that takes so long each time it is done, and a preparation that takes very long."""
        left = iter(durations)

        def work() -> float:
            self.log.append(name)
            self.seconds += next(left)
            return amount

        def prepare() -> None:
            self.log.append(f"prepare {name}")
            self.seconds += 1000.0

        return Side(work=work, prepare=prepare)

    def sides(self) -> tuple[Side, Side]:
        """Two warm-ups and three pairs; theirs does ten times as much work."""
        return (
            self.side("ours", [90.0, 90.0, 1.0, 2.0, 4.0]),
            self.side("theirs", [90.0, 90.0, 10.0, 10.0, 20.0], amount=10.0),
        )


def fake(ratios: list[float], *, goal: float = 1.0, better: Any = "higher") -> Benchmark:
    return Benchmark(lambda runs: iter(ratios[:runs]), goal, better)


def failing(error: Exception) -> Benchmark:
    return Benchmark(mock.Mock(side_effect=error), 1.0, "higher")


def test_sides_take_turns_and_each_pair_gives_a_ratio_of_rates() -> None:
    machine = Machine()
    ratios = list(rate_ratios(*machine.sides(), 3, clock=lambda: machine.seconds))
    assert ratios == pytest.approx([1.0, 0.5, 0.5])  # (1 / 1) / (10 / 10), (1 / 2) / (10 / 10), (1 / 4) / (10 / 20)
    assert machine.log == ["prepare ours", "ours", "prepare theirs", "theirs"] * 5


def test_a_ratio_of_times_is_the_inverse() -> None:
    machine = Machine()
    assert list(time_ratios(*machine.sides(), 3, clock=lambda: machine.seconds)) == pytest.approx([1.0, 2.0, 2.0])


def test_a_result_is_the_median_and_the_range() -> None:
    assert summary([3.0, 1.0, 7.123456], goal=2.0, better="lower") == {
        "ratio": 3.0,
        "min": 1.0,
        "max": 7.123,
        "goal": 2.0,
        "better": "lower",
        "runs": 3,
    }
    assert summary([1.0, 2.0, 3.0, 4.0], goal=2.0, better="higher")["ratio"] == 2.5


def test_a_benchmark_gives_a_result_or_says_why_not() -> None:
    assert suite.measure("fast", fake([2.0, 4.0, 3.0, 9.0]), 3) == summary([2.0, 4.0, 3.0], goal=1.0, better="higher")

    assert suite.measure("none", failing(NotMeasurableError("no such device")), 3) == {"skipped": "no such device"}


@pytest.mark.parametrize(
    ("better", "ratio", "expected"),
    [
        ("higher", 1.0, "reached"),
        ("higher", 0.99, "missed"),
        ("lower", 1.0, "reached"),
        ("lower", 1.01, "missed"),
    ],
)
def test_the_table_says_which_goals_were_reached(better: str, ratio: float, expected: str) -> None:
    result = summary([ratio], goal=1.0, better=better)
    other = {"skipped": "no such device"}
    lines = suite.table({"some_name": result, "other": other}, {"some_name": 12.0, "other": 3.0}).splitlines()
    sign = {"higher": ">=", "lower": "<="}[better]
    assert lines[1].split() == ["some_name", *([f"{ratio:.3g}"] * 3), sign, "1", expected, "12", "s"]
    assert lines[2].split(maxsplit=1) == ["other", "skipped: no such device"]
    assert lines[-1].split() == ["in", "all", "15", "s"]


def test_results_are_kept_when_a_later_benchmark_fails(tmp_path: Path) -> None:
    def fails(name: str, benchmark: Benchmark, runs: int) -> suite.Result:
        if name == "second":
            raise RuntimeError("out of memory")
        return suite.measure(name, benchmark, runs)

    output = tmp_path / "benchmark.json"
    with pytest.raises(RuntimeError, match="out of memory"):
        suite.run_all({"first": fake([2.0]), "second": fake([3.0])}, output, runs=1, measure=fails)
    assert json.loads(output.read_text()) == {"first": summary([2.0], goal=1.0, better="higher")}


def test_the_table_of_benchmarks_is_well_formed() -> None:
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.better in ("higher", "lower")
        assert benchmark.goal > 0
        assert benchmark.ratios.__name__ == name
        assert benchmark.ratios.__doc__


def test_a_benchmark_has_a_process_of_its_own() -> None:
    # A function of a module, so that the other process can find it.
    result = suite.measure_apart("process", Benchmark(process_number, 1.0, "higher"), 1)
    assert result["ratio"] != float(f"{os.getpid():.4g}")


def process_number(runs: int) -> Iterator[float]:
    return iter([float(os.getpid())] * runs)


class TestCommandLine:
    """`python -m tools.benchmark`, with fakes in place of what it measures."""

    @pytest.fixture(autouse=True)
    def fakes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        benchmarks = {name: fake([2.0] * 100, goal=goal) for name, goal in (("fast_enough", 1.0), ("too_slow", 5.0))}
        monkeypatch.setattr(suite, "BENCHMARKS", benchmarks)
        monkeypatch.setattr(suite, "measure_apart", suite.measure)

    @pytest.mark.parametrize(("flag", "runs"), [(None, 15), ("--quick", 5)])
    def test_measures_everything_and_is_content_with_any_ratio(
        self, flag: str | None, runs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "ratios.json"
        assert run_here("../tools/benchmark", [f"--output={output}", *filter(None, [flag])]) is None
        results = json.loads(output.read_text())
        assert list(results) == ["fast_enough", "too_slow"]
        assert set(results["too_slow"]) == {"ratio", "min", "max", "goal", "better", "runs"}
        assert {result["runs"] for result in results.values()} == {runs}
        shown = capsys.readouterr().out
        assert "reached" in shown
        assert "missed" in shown

    def test_measures_some(self, tmp_path: Path) -> None:
        output = tmp_path / "ratios.json"
        assert run_here("../tools/benchmark", [f"--output={output}", "--only=too_slow"]) is None
        assert list(json.loads(output.read_text())) == ["too_slow"]

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("--only=fast_enough,to_slow", "--only=to_slow is not a benchmark.*Did you mean 'too_slow'?"),
            ("--output=nowhere/ratios.json", "no folder nowhere"),
            ("--steps=3", "--steps has no effect on a benchmark"),
        ],
    )
    def test_refuses(self, given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        message = run_here("../tools/benchmark", [given])
        with pytest.raises(UserError, match=expected):
            raise UserError(message)
        assert not list(tmp_path.iterdir())

    def test_an_error_is_no_success(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(suite.BENCHMARKS, "too_slow", failing(RuntimeError("out of memory")))
        with pytest.raises(RuntimeError, match="out of memory"):
            run_here("../tools/benchmark", [f"--output={tmp_path / 'ratios.json'}"])


def test_the_bare_loop_does_the_arithmetic_of_the_engine() -> None:
    flagfile = "flags/digits/quickstart.flags"
    trainer = run.make_trainer(ours := experiments.build(flagfile, TINY))
    loop, averages = bare_loop(theirs := experiments.build(flagfile, TINY))
    initial = [variable.numpy() for variable in theirs.learner.model.variables]
    trainer.train(tf.constant(3))
    loop(tf.constant(3))
    variables = [experiment.learner.model.variables for experiment in (ours, theirs)]
    for before, expected, received in zip(initial, *variables, strict=True):
        assert np.any(received.numpy() != before), received.path
        np.testing.assert_allclose(received.numpy(), expected.numpy(), rtol=1e-3, atol=1e-5, err_msg=received.path)
    for expected, received in zip(ours.learner.state_variables["ema"], averages, strict=True):
        np.testing.assert_allclose(received.numpy(), expected.numpy(), rtol=1e-3, atol=1e-5)


def test_a_trainer_without_input_sees_one_batch_again_and_again() -> None:
    experiment = experiments.build("flags/digits/quickstart.flags", [*TINY, "--learning_rate=0"])
    trainer = experiments.trainer_without_input(experiment)
    losses = []
    for _ in range(2):
        assert experiments.steps(trainer, 2)() == 2.0
        losses.append(trainer.read_metrics()["loss"])
    assert losses[0] == pytest.approx(losses[1])


def test_without_pytorch_its_benchmark_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = suite.measure("step_vs_pytorch", BENCHMARKS["step_vs_pytorch"], 1)
    assert set(result) == {"skipped"}
    assert "PyTorch is not installed" in result["skipped"]


def test_peak_memory_is_that_of_the_work_alone() -> None:
    megabytes = 400
    held = np.ones(megabytes * 2**17)  # by this process, which is not what is measured
    small, large = (memory.peak_of(functools.partial(np.ones, size)) for size in (1, megabytes * 2**17))
    assert (large - small) / 2**20 == pytest.approx(megabytes, rel=0.1)
    assert len(held) * 8 == megabytes * 2**20


def test_the_network_in_pytorch_is_the_same() -> None:
    pytest.importorskip("torch", reason="PyTorch is optional")
    torch = importlib.import_module("torch")
    model, logits = pytorch.wide_resnet(torch)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_469_642
    assert logits(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
