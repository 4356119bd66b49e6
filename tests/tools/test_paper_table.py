"""The table runs what is missing, survives what fails, and writes the same numbers everywhere."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from metassl_tf import flag_definitions
from metassl_tf.engine import run
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from tests.tools.fake_training import FIRST, TINY, FakeTraining, paper_table
from tools import runs

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("project")


def seeds_run(training: FakeTraining) -> list[tuple[str, str]]:
    return [(Path(flags["flagfile"]).stem, flags["seed"]) for flags in training.commands]


def test_every_flagfile_runs_with_every_seed(training: FakeTraining) -> None:
    assert paper_table("--runs=flags/toy/*.flags", "--seeds=0,4", "--data_dir=somewhere") is None
    assert seeds_run(training) == [("first", "0"), ("second", "0"), ("first", "4"), ("second", "4")]
    assert all(flags["split_seed"] == flags["seed"] for flags in training.commands)
    assert all(flags["data_dir"] == "somewhere" for flags in training.commands)
    assert len({flags["workdir"] for flags in training.commands}) == 4


@pytest.mark.usefixtures("training")
def test_table_has_mean_and_sample_deviation_beside_the_papers_number(capsys: pytest.CaptureFixture[str]) -> None:
    """0.90, 0.91, 0.92: mean 91, sample standard deviation 1 (divisor 2), not 0.82 (divisor 3)."""
    paper_table("--runs=flags/toy/first.flags,flags/toy/second.flags", "--note=a copy")
    rows = capsys.readouterr().out.splitlines()[-2:]
    date = FIRST.measurements()[0].date
    assert rows == [
        "| [toy/first](flags/toy/first.flags) | 91.00 ± 1.00 | 3 | 91.20 ± 0.30 |  | 3 "
        f"| {date}, commit abc1234; a copy |",
        f"| [toy/second](flags/toy/second.flags) | 71.00 ± 1.00 | 3 |  |  | 3 | {date}, commit abc1234; a copy |",
    ]


@pytest.mark.usefixtures("training")
def test_one_run_has_no_deviation(capsys: pytest.CaptureFixture[str]) -> None:
    paper_table("--runs=flags/toy/first.flags", "--seeds=1")
    assert "| 91.00 | 1 |" in capsys.readouterr().out


def test_ended_runs_are_not_repeated(training: FakeTraining) -> None:
    paper_table("--runs=flags/toy/*.flags", "--seeds=0")
    before = FIRST.measurements()
    training.commands.clear()
    paper_table("--runs=flags/toy/*.flags", "--seeds=0,1")
    assert seeds_run(training) == [("first", "1"), ("second", "1")]
    assert FIRST.measurements()[:1] == before


def test_killed_run_is_resumed_in_its_folder(training: FakeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "launch", killed)
    assert "Stopped" in str(paper_table("--runs=flags/toy/first.flags", "--seeds=0"))
    started = list(Path("runs/paper_table/toy").glob("*/seed_0"))
    monkeypatch.setattr(runs, "launch", training)
    paper_table("--runs=flags/toy/first.flags", "--seeds=0")
    assert [Path(flags["workdir"]) for flags in training.commands] == started


def test_failed_run_is_reported_and_stops_no_other(training: FakeTraining, capsys: pytest.CaptureFixture[str]) -> None:
    training.fail = {"first"}
    message = str(paper_table("--runs=flags/toy/*.flags", "--seeds=0,1"))
    assert seeds_run(training) == [("first", "0"), ("second", "0"), ("first", "1"), ("second", "1")]
    assert message.startswith("2 of 4 runs failed:\ntoy/first, seed 0: ended with status 1. error: --steps=-1 is out")
    assert "seed_0/log.txt" in message
    table = capsys.readouterr().out
    assert "| not yet | 0 | 91.20 ± 0.30 |" in table
    assert "| 70.50 ± 0.71 | 2 |" in table
    assert FIRST.measurements() == []


def test_run_without_a_test_set_is_reported(training: FakeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(command: Sequence[str], log: Path) -> int:
        training(command, log)
        result = Workdir(training.commands[-1]["workdir"]).result
        result.write_text(json.dumps({**json.loads(result.read_text()), "test_accuracy": None}))
        return 0

    monkeypatch.setattr(runs, "launch", launch)
    assert "measured no test accuracy" in str(paper_table("--runs=flags/toy/first.flags", "--seeds=0"))


def test_changed_flags_make_numbers_void(training: FakeTraining) -> None:
    paper_table("--runs=flags/toy/first.flags", "--seeds=0,1")
    FIRST.path.write_text(FIRST.path.read_text().replace("A comment", "Another comment"))
    assert len(FIRST.measurements()) == 2
    FIRST.path.write_text(FIRST.path.read_text().replace("--steps=3", "--steps=4"))
    assert FIRST.measurements() == []
    paper_table("--runs=flags/toy/first.flags", "--seeds=0")
    assert len({flags["workdir"] for flags in training.commands}) == 3
    assert [found.seed for found in FIRST.measurements()] == [0]


def test_headers_and_page_are_written_from_the_data(training: FakeTraining, project: Path) -> None:
    original = FIRST.path.read_text()
    paper_table("--runs=flags/toy/first.flags", "--note=a JPEG copy")
    assert FIRST.path.read_text() == original
    assert paper_table("--print_only", "--write_headers", "--page=RESULTS.md") is None
    assert len(training.commands) == 3
    written = [
        "# Measured:  91.00 ± 1.00 % (n = 3: seeds 0, 1, 2)",
        f"#            3 s a run, {FIRST.measurements()[0].date}, commit abc1234",
        "#            a JPEG copy",
    ]
    assert FIRST.path.read_text() == original.replace("# Measured:  not yet", "\n".join(written))
    assert FIRST.with_measured() == FIRST.path.read_text()
    results = (project / "RESULTS.md").read_text()
    assert results.startswith("# Results\n")
    assert "| [toy/first](flags/toy/first.flags) | 91.00 ± 1.00 | 3 |" in results
    assert "[toy/second]" not in results


def test_stored_page_is_that_of_the_data(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    written = project / "RESULTS.md"
    assert paper_table("--print_only", f"--page={written}") is None
    assert written.read_text() == Path("RESULTS.md").read_text(), (
        "Run `python -m tools.paper_table --print_only --page=RESULTS.md`."
    )


def test_what_is_compared_and_what_tells_is_written_as_well(training: FakeTraining) -> None:
    """First less second of the same seed is 20 points, and seed 3 has no counterpart."""
    FIRST.path.write_text(FIRST.path.read_text().replace("# Measured:", "# Compared:  second\n# Measured:"))
    training.more = {
        "0": {"weight_auroc": 0.9, "confidence_auroc": None, "agreement_auroc": 0.75},
        "1": {"weight_auroc": 0.8, "agreement_auroc": 0.75},
    }
    paper_table("--runs=flags/toy/first.flags", "--seeds=0,1,3")
    assert FIRST.measurements()[0].aurocs == {"weight": 0.9, "agreement": 0.75}
    aurocs = ["AUROC of weight: 0.850 ± 0.071", "AUROC of agreement: 0.750 ± 0.000"]
    assert FIRST.comparisons() == aurocs
    paper_table("--runs=flags/toy/second.flags", "--seeds=0,1")
    assert FIRST.comparisons() == ["+20.00 ± 0.00 points to second, better in 2 of 2", *aurocs]
    paper_table("--print_only", "--write_headers")
    header = FIRST.path.read_text()
    assert "(n = 3: seeds 0, 1, 3)\n#            +20.00 ± 0.00 points to second, better in 2 of 2\n" in header
    assert FIRST.with_measured() == header


def test_other_networks_of_a_run_stand_beside_it(training: FakeTraining) -> None:
    for seed, accuracy in ((0, 0.8), (1, 0.82)):
        others = {
            name: {"test": {"ema": {"accuracy": accuracy + more}}}
            for name, more in (("teacher", 0), ("fine_tuned", 0.1))
        }
        training.more[str(seed)] = others
    paper_table("--runs=flags/toy/first.flags", "--seeds=0,1")
    assert FIRST.comparisons() == ["91.00 ± 1.41 % after fine-tuning", "81.00 ± 1.41 % of the teacher"]


@pytest.mark.usefixtures("training")
def test_void_numbers_leave_the_header_again() -> None:
    original = FIRST.path.read_text().replace("--steps=3", "--steps=4")
    paper_table("--runs=flags/toy/first.flags", "--write_headers")
    FIRST.path.write_text(FIRST.path.read_text().replace("--steps=3", "--steps=4"))
    paper_table("--print_only", "--runs=flags/toy/first.flags", "--write_headers")
    assert FIRST.path.read_text() == original


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "No --runs are given"),
        (["--runs=flags/nowhere/*.flags"], "--runs=flags/nowhere/.* finds no file"),
        (["--runs=flags/toy/first.flags", "--seeds=one"], "--seeds=one is not a list of integers"),
        (["--runs=flags/toy/first.flags", "--steps=3"], "--steps has no effect on a table of runs"),
        (["--print_only", "--seeds=1"], "--seeds has no effect with --print_only"),
        (["--print_only", "--page=nowhere/RESULTS.md"], "--page=nowhere/RESULTS.md cannot .* no folder nowhere"),
        (["--print_only", "--page=flags"], "--page=flags is a folder. Expected the file"),
        (["--print_only", "--data_dir=here"], "--data_dir has no effect on a table of runs"),
    ],
)
def test_mistakes_are_explained(given: list[str], expected: str, training: FakeTraining) -> None:
    with pytest.raises(AssertionError, match=expected):
        raise AssertionError(paper_table(*given))
    assert training.commands == []


def test_header_without_the_line_is_explained() -> None:
    FIRST.path.write_text(TINY)
    with pytest.raises(UserError, match=r"no line for what was measured. Expected `# Measured:"):
        FIRST.with_measured()


def test_real_runs_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """They train in this process, which saves the seconds of starting others."""

    def launch(command: Sequence[str], _: Path) -> int:
        *settings, workdir = command[3:]
        run.train(flag_definitions.parse(settings), Workdir(workdir.removeprefix("--workdir=")))
        return 0

    monkeypatch.setattr(runs, "launch", launch)
    assert paper_table("--runs=flags/toy/first.flags", "--seeds=0,1") is None
    found = FIRST.measurements()
    assert [measurement.seed for measurement in found] == [0, 1]
    for measurement in found:
        workdir = runs.workdir_of(FIRST, measurement.seed, runs_dir=Path("runs/paper_table"))
        result = json.loads(workdir.result.read_text())
        assert (result["seed"], result["config"]["split_seed"]) == (measurement.seed, measurement.seed)
        assert measurement.test_accuracy == result["test_accuracy"]
        assert measurement.steps == 3
        assert "tensorflow" in measurement.versions
