"""The figure is drawn from real runs; the comparison repeats none, and stores and shows what it measured."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from metassl_tf.engine.results import versions
from metassl_tf.errors import UserError
from tests.command_line import ROOT, run_here
from tests.tools.small_flagfiles import HEADER, SUPERVISED, WEIGHTS
from tools import toy_comparison, toy_figure, toys
from tools.measurements import Flagfile
from tools.toy_comparison import DATASETS, METHODS, OURS, PSEUDO_LABEL, flagfile

ACCURACY = {method: 0.9 - 0.1 * number for number, method in enumerate(METHODS)}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tiny experiments under the names of the real ones."""
    for dataset in DATASETS:
        folder = tmp_path / "flags" / dataset
        folder.mkdir(parents=True)
        for method in METHODS:
            flags = (WEIGHTS if method == OURS else SUPERVISED).replace("linear", dataset)
            (folder / f"{method}.flags").write_text(HEADER.format(name=method, expected="none: tiny") + flags)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Stands for `toys.measure`; tells what it was asked for. Accuracies depend on method and seed."""
    asked: list[tuple[str, int]] = []

    def measure(experiment: Flagfile, seed: int, _: Any) -> dict[str, Any]:
        asked.append((experiment.name, seed))
        method = experiment.path.stem
        accuracy = ACCURACY[method] + 0.01 * seed * (2 if method == OURS else 1)
        look = {"wrong_of_lowest": 0.5, "wrong_of_all": 0.1 * seed, "astray_of_lowest": 0.0, "astray_of_all": 0.0}
        return {
            "measurement": {
                "seed": seed,
                "test_accuracy": accuracy,
                "median_of_last_20": accuracy,
                "steps": 5,
                "seconds": 1.0,
                "date": "2026-01-02",
                "commit": "abc1234",
                "note": "",
                "versions": versions(),
            },
            "weights": [{"step": 5, **look, "auroc": None if seed else 0.75}] if method == OURS else [],
        }

    monkeypatch.setattr(toys, "measure", measure)
    return asked


def figures(*given: str) -> str | int | None:
    return run_here("../tools/figures", given)


@pytest.mark.slow
def test_figure_is_drawn_from_real_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(toy_comparison, "STEPS", (1, 3))
    drawn: list[toy_figure.Row] = []
    draw = toy_figure.draw
    monkeypatch.setattr(toy_figure, "draw", lambda rows, path: (drawn.extend(rows), draw(rows, path)))
    assert figures("--output=plots/new", "--only=linear", "--seed=2") is None
    assert capsys.readouterr().out == "plots/new/toy_weights.png\n"
    picture = imread("plots/new/toy_weights.png")
    assert picture.shape[1] > picture.shape[0] > 100
    (row,) = drawn
    assert (row.name, len(row.unlabeled), len(row.labeled)) == ("linear", 50, 6)
    assert [panel.step for panel in row.panels] == [1, 3, 5]
    ours = toys.build(flagfile("linear", OURS), 2)
    np.testing.assert_array_equal(row.labeled, ours.labeled.inputs)
    *_, _ = toys.train(ours, [])
    last = row.panels[-1]
    np.testing.assert_array_equal(last.weight, toys.weights_of(ours))
    np.testing.assert_allclose(last.ours, row.grid.shaped(toys.margin(ours, row.grid.points)), rtol=1e-6)
    assert last.accuracies[0] == toys.accuracy_of(ours)
    assert not np.array_equal(last.ours, last.supervised)
    assert np.any(row.panels[0].weight != last.weight)


def test_grid_covers_the_points_in_order() -> None:
    points = np.array([[0.0, 1.0], [4.0, 3.0]])
    grid = toy_figure.grid_of(points)
    assert grid.horizontal[0] < 0.0 < 4.0 < grid.horizontal[-1]
    assert grid.vertical[0] < 1.0 < 3.0 < grid.vertical[-1]
    values = grid.shaped(grid.points[:, 0] + 10 * grid.points[:, 1])
    assert values[2, 5] == grid.horizontal[5] + 10 * grid.vertical[2]


def test_weights_are_shaded_from_black_to_pink() -> None:
    black, pink = (np.array(toy_figure.SHADES(value)[:3]) for value in (0.0, 1.0))
    assert black.max() < 0.1
    assert pink[0] > 0.9
    assert 0.5 < pink[1] < pink[2] < 0.9


def test_comparison_stores_what_it_measured(measured: list[tuple[str, int]]) -> None:
    assert figures("--seeds=0..2", "--only=circles", "--write_headers") is None
    assert sorted(measured) == sorted((f"circles/{method}", seed) for method in METHODS for seed in range(3))
    found = flagfile("circles", OURS).measurements()
    assert [run.seed for run in found] == [0, 1, 2]
    assert [run.test_accuracy for run in found] == pytest.approx([0.9, 0.92, 0.94])
    assert "# Measured:  92.00 ± 2.00 % (n = 3: seeds 0, 1, 2)" in flagfile("circles", OURS).path.read_text()
    data = json.loads(Path("flags/circles/figures.json").read_text())
    assert data["seeds"] == [0, 1, 2]
    assert data["flags_sha256"] == {method: flagfile("circles", method).digest() for method in METHODS}
    assert data["test_accuracy"][OURS] == {"mean": 0.92, "std": 0.02, "n": 3}
    # 0.90, 0.92, 0.94 less 0.80, 0.81, 0.82: differences of the same seed.
    assert data["differences"][PSEUDO_LABEL] == {"mean": 0.11, "std": 0.01, "n": 3, "positive": 3}
    assert set(data["differences"]) == set(METHODS) - {OURS}
    assert data["weights"]["5"]["wrong_of_all"] == {"mean": 0.1, "std": 0.1, "n": 3}
    assert data["weights"]["5"]["auroc"] == {"mean": 0.75, "std": None, "n": 1}
    assert not Path("flags/linear/figures.json").exists()


def test_comparison_repeats_nothing(measured: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]) -> None:
    figures("--seeds=0,1", "--only=linear")
    first = capsys.readouterr().out
    measured.clear()
    figures("--seeds=0,1", "--only=linear")
    assert measured == []
    assert capsys.readouterr().out == first
    flagfile("linear", OURS).path.write_text(WEIGHTS.replace("--steps=5", "--steps=6"))
    figures("--seeds=0,1,2", "--only=linear")
    again = [(f"linear/{OURS}", seed) for seed in range(2)]
    assert sorted(measured) == sorted([*again, *((f"linear/{method}", 2) for method in METHODS)])


@pytest.mark.usefixtures("measured")
def test_comparison_is_shown_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    figures("--seeds=0..2", "--only=two_moons,linear")
    lines = capsys.readouterr().out.splitlines()
    assert "| linear | 3 | 92.00 ± 2.00 | 81.00 ± 1.00 | 71.00 ± 1.00 | 61.00 ± 1.00 |" in lines
    assert "| two_moons | pseudo labels | 11.00 ± 1.00 | 3 of 3 |" in lines
    assert "| linear | 5 | 50.00 ± 0.00 | 10.00 ± 10.00 | 0.00 ± 0.00 | 0.00 ± 0.00 | 0.750 |" in lines


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "Nothing to do.*--output=DIR.*--seeds"),
        (["--seeds=0", "--only=circle"], "--only=circle is not a set of points.*Did you mean 'circles'"),
        (["--seeds=some"], "--seeds=some is not a list of integers"),
        (["--seeds=0", "--seed=1"], "--seed has no effect without --output"),
        (["--output=x", "--steps=3"], "--steps has no effect on the figure.*--seed"),
    ],
)
def test_refuses(given: list[str], expected: str, project: Path) -> None:
    message = figures(*given)
    with pytest.raises(UserError, match=expected):
        raise UserError(message)
    assert [path.name for path in project.iterdir()] == ["flags"]


def test_help_says_what_it_is_for() -> None:
    command = [sys.executable, "-m", "tools.figures", "--help"]
    text = " ".join(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split())
    assert "Learned weights on points of the plane" in text
    assert all(
        flag in text for flag in ("--output", "--seeds", "--only", "--runs_dir", "--[no]write_headers", "--seed:")
    )
