"""Same variants share their runs, and tables and plots show what was measured."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from metassl_tf import flag_definitions
from metassl_tf.config import Config
from metassl_tf.engine import run
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from metassl_tf.meta.per_example_weights import PerExampleWeights
from tests.command_line import run_here
from tools import ablation_groups, runs
from tools.ablation_data import Case, Outcome, Store, cases, table
from tools.ablation_groups import BASES, GROUPS
from tools.variants import Group, Variant

ROOT = Path(__file__).parent.parent.parent
STORED = Path("flags/digits/ablations.json")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with copies of the flagfiles that are varied."""
    for base in BASES.values():
        (tmp_path / base.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / base.path, tmp_path / base.path)
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, handler)


class FakeTraining:
    """Stands for `launch`: leaves what a run leaves; accuracy depends on the learning rate of the weights and the seed.

    Attributes:
      configs: what was trained.
      fail: numbers of validation examples whose runs fail.
    """

    def __init__(self) -> None:
        self.configs: list[Config] = []
        self.fail: set[int] = set()

    def __call__(self, command: Sequence[str], log: Path) -> int:
        *settings, workdir = command[3:]
        config = flag_definitions.parse(settings)
        self.configs.append(config)
        assert config.run.seed == config.data.split_seed
        if config.data.num_meta_validation in self.fail:
            log.write_text("error: too few.\n")
            return 1
        rule = config.meta_rule(PerExampleWeights)
        accuracy = 0.9 + 0.01 * config.run.seed - (0.5 * rule.weight_learning_rate if rule else 0.4)
        result = {
            "test_accuracy": accuracy,
            "seconds": 10.0,
            "peak_memory_mb": 1000.0,
            "versions": {"metassl_tf": "1"},
            **({"weight_auroc": 0.75} if rule and not rule.single_weight else {}),
        }
        paths = Workdir(workdir.removeprefix("--workdir="))
        rows = [{"step": step, "test": {"ema": {"accuracy": accuracy - 0.1 / step}}} for step in (100, 200)]
        paths.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths.result.write_text(json.dumps(result))
        return 0


@pytest.fixture
def fake() -> FakeTraining:
    return FakeTraining()


def ablations(*given: str) -> str | int | None:
    return run_here("../tools/ablations", given)


def test_same_variants_share_their_runs(training: FakeTraining) -> None:
    assert ablations("--base=flipped", "--only=optimizer,updates", "--seeds=0..1") is None
    both = [case.digest for group in ("optimizer", "updates") for case in cases(BASES["flipped"], GROUPS[group])]
    assert len(training.configs) == 2 * len(set(both)) < 2 * len(both)
    assert [config.run.seed for config in training.configs] == [0] * len(set(both)) + [1] * len(set(both))
    stored = json.loads(STORED.read_text())
    assert set(stored) == set(both)
    adam = next(case for case in cases(BASES["flipped"], GROUPS["optimizer"]) if case.name == "adam")
    assert "--weight_optimizer=adam" in stored[adam.digest]["flags"]
    assert stored[adam.digest]["runs"][1] | {"date": ""} == {
        "seed": 1,
        "test_accuracy": 0.905,
        "weight_auroc": 0.75,
        "seconds": 10.0,
        "peak_memory_mb": 1000.0,
        "accuracies": pytest.approx({"100": 0.904, "200": 0.9045}),
        "date": "",
        "commit": "abc1234",
        "versions": {"metassl_tf": "1"},
        "teacher_accuracy": None,
        "fine_tuned_accuracy": None,
    }
    training.configs.clear()
    ablations("--base=flipped", "--only=optimizer", "--seeds=0..2")
    assert {config.run.seed for config in training.configs} == {2}


def test_only_what_is_missing_is_run(training: FakeTraining, capsys: pytest.CaptureFixture[str]) -> None:
    ablations("--base=flipped", "--only=optimizer", "--seeds=0,1")
    made = len(training.configs)
    again = ("--base=flipped", "--only=optimizer", "--seeds=0..2", "--runs_dir=runs/elsewhere")
    training.configs.clear()
    ablations(*again, "--missing")
    assert [config.run.seed for config in training.configs] == [2] * (made // 2)
    shown = capsys.readouterr().out
    assert "| masked_adam | 90.50 ± 1.00 |  |  | 0.750 ± 0.000 | 10 ± 0 | 1000 ± 0 | 3 |" in shown
    training.configs.clear()
    ablations(*again)
    assert len(training.configs) == made


def test_numbers_of_other_flags_are_void(training: FakeTraining) -> None:
    ablations("--base=flipped", "--only=optimizer", "--seeds=0")
    path = Path(BASES["flipped"].path)
    path.write_text(path.read_text().replace("--damping=0.1", "--damping=0.2"))
    store = Store(STORED)
    found = cases(BASES["flipped"], GROUPS["optimizer"])
    assert [store.outcomes(case) for case in found] == [[]] * len(found)
    before = len(training.configs)
    ablations("--base=flipped", "--only=optimizer", "--seeds=0")
    assert len(training.configs) == 2 * before


def test_failed_runs_are_reported_and_stop_no_other(training: FakeTraining, capsys: pytest.CaptureFixture[str]) -> None:
    training.fail = {32}
    message = str(ablations("--base=fixmatch", "--only=validation_size", "--seeds=0"))
    assert message.startswith(
        "1 of 5 runs failed:\nfixmatch, validation_size: 32 examples, seed 0: ended with status 1."
    )
    assert "error: too few. (see runs/ablations/" in message
    shown = capsys.readouterr().out
    assert "| 200 examples | 89.50 |" in shown
    assert "| 32 examples |" not in shown


def outcome(seed: int, accuracy: float, auroc: float | None = None) -> Outcome:
    return Outcome(
        seed=seed,
        test_accuracy=accuracy,
        weight_auroc=auroc,
        seconds=10.0 * seed,
        peak_memory_mb=900.0,
        accuracies={},
        date="2026-01-02",
        commit="abc1234",
        versions={},
    )


def test_table_has_paired_differences() -> None:
    first, second, third = (
        Case(name=name, changes={}, flags=name, reference=reference)
        for name, reference in (("first", "first"), ("second", "first"), ("third", "second"))
    )
    text = table(
        "Title",
        [
            (first, [outcome(0, 0.9, 0.5), outcome(1, 0.8, 0.75), outcome(2, 0.1)]),
            (
                second,
                [
                    dataclasses.replace(outcome(1, 0.81), teacher_accuracy=0.5, fine_tuned_accuracy=0.8),
                    dataclasses.replace(outcome(0, 0.93), teacher_accuracy=0.6),
                ],
            ),
            (third, []),
        ],
    )
    assert text.startswith("### Title\n")
    assert text.splitlines()[-4:] == [
        "| Variant | Test accuracy, % | Difference | Better in | Teacher, % | Weight AUROC | Seconds | Memory, MB "
        "| n |",
        "|" + 9 * " --- |",
        "| first | 60.00 ± 43.59 |  |  |  | 0.625 ± 0.177 | 10 ± 10 | 900 ± 0 | 3 |",
        "| second | 87.00 ± 8.49 | 2.00 ± 1.41 (first) | 2 of 2 | 55.00 ± 7.07 |  | 5 ± 7 | 900 ± 0 | 2 |",
    ]


def test_plots_and_tables_of_what_was_measured(training: FakeTraining, capsys: pytest.CaptureFixture[str]) -> None:
    ablations("--base=flipped", "--only=optimizer,single_weight", "--seeds=0,1")
    shown = capsys.readouterr().out
    assert "### Given labels, 30 % flipped: Update rule of the weights (Figure 4, center)" in shown
    assert "| sgd, rate 1 | 40.50 ± 0.71 | -49.50 ± 0.00 (masked_adam) | 0 of 2 | 0.750 ± 0.000 |" in shown
    assert "| none, 20 labels | 50.50 ± 0.71 | -39.50 ± 0.00 (one for each, 20 labels) | 0 of 2 |  | " in shown
    training.configs.clear()
    assert ablations("--print_only", "--output=some/plots") is None
    assert capsys.readouterr().out == shown
    assert training.configs == []
    assert Path("some/plots/tables.md").read_text() == shown
    plots = sorted(Path("some/plots").glob("*.png"))
    expected = ["optimizer", "optimizer_over_steps", "single_weight"]
    assert [plot.name for plot in plots] == [f"flipped_{name}.png" for name in expected]
    assert sorted(re.findall(r"^!\[Given labels, 30 % flipped: .+\]\((.+)\)$", shown, re.MULTILINE)) == [
        plot.name for plot in plots
    ]
    assert all(plot.read_bytes().startswith(b"\x89PNG") for plot in plots)


def test_everything_stored_is_of_a_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured with settings that are nobody's any more shows in no table."""
    monkeypatch.chdir(ROOT)
    known = {case.digest: case for base in BASES.values() for name in base.groups for case in cases(base, GROUPS[name])}
    for digest, entry in json.loads(STORED.read_text()).items():
        assert known[digest].flags.splitlines() == entry["flags"]


def test_stored_tables_are_those_of_the_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert ablations("--print_only") is None
    stored = Path("flags/digits/ablations/tables.md")
    mend = f"Run `python -m tools.ablations --print_only --output={stored.parent}`."
    assert stored.read_text() == capsys.readouterr().out, mend
    assert set(re.findall(r"\]\((.+\.png)\)", stored.read_text())) == {
        path.name for path in stored.parent.glob("*.png")
    }, mend


def test_real_runs_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """They train in this process, which saves the seconds of starting others."""

    def launch(command: Sequence[str], _: Path) -> int:
        *settings, workdir = command[3:]
        run.train(flag_definitions.parse(settings), Workdir(workdir.removeprefix("--workdir=")))
        return 0

    tiny = {"num_labeled": 20, "image_size": 8, "batch_size": 4, "unlabeled_ratio": 2, "steps": 2}
    base = BASES["flipped"]._replace(title="Tiny", changes=tiny)
    monkeypatch.setitem(BASES, "flipped", base)
    group = Group("Title", "Table 0", {"neumann": Variant({"inverse_hessian": "neumann", "solver_iterations": 2})})
    monkeypatch.setitem(GROUPS, "inverse", group)
    monkeypatch.setattr(runs, "launch", launch)
    assert ablations("--base=flipped", "--only=inverse", "--seeds=1") is None
    for case in cases(base, group):
        (found,) = Store(STORED).outcomes(case)
        assert found.accuracies == {"2": found.test_accuracy}
        assert found.seed == 1
        assert found.weight_auroc is not None
        assert found.peak_memory_mb > 100


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--only=optimiser"], "--only=optimiser is not a group of variants.*Did you mean 'optimizer'"),
        (["--base=fliped"], "--base=fliped is not an experiment to vary.*Did you mean 'flipped'"),
        (["--seeds=x"], "--seeds=x is not a list of integers"),
        (["--steps=3"], "--steps has no effect on an ablation"),
        (["--print_only", "--seeds=1"], "--seeds has no effect with --print_only"),
        (["--print_only", "--missing"], "--missing has no effect with --print_only"),
    ],
)
def test_refuses(given: list[str], expected: str) -> None:
    message = ablations(*given)
    with pytest.raises(UserError, match=expected):
        raise UserError(message)
    assert not Path("runs").exists()


def test_help_names_the_groups() -> None:
    command = [sys.executable, "-m", "tools.ablations", "--help"]
    text = " ".join(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split())
    assert "Varies what learns the weights" in text
    assert ", ".join(ablation_groups.GROUPS) in text
    assert all(flag in text for flag in ("--seeds", "--runs_dir", "--output", "--[no]missing", "--[no]print_only"))
