"""The picture is drawn from real runs; the comparison repeats none, and says how often the moons were separated."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from metassl_tf import flag_definitions
from metassl_tf.config import Config
from metassl_tf.engine import setup
from metassl_tf.engine.results import versions
from metassl_tf.errors import UserError
from metassl_tf.meta.meta_pseudo_labels import MetaPseudoLabels
from tests.command_line import ROOT, run_here
from tests.tools.small_flagfiles import HEADER, SUPERVISED
from tools import region_comparison, region_figure, toys
from tools.laplacian_svm import LaplacianSVM
from tools.measurements import Flagfile
from tools.region_comparison import LAPLACIAN_SVM, METHODS, NAMES, OURS, SUCCESS, flagfile
from tools.toy_figure import grid_of

MOONS = SUPERVISED.replace("linear", "two_moons") + "--labeled_in_unlabeled=false\n"
ALONE = MOONS.replace("--labeled_in_unlabeled=false\n", "")
TAUGHT = MOONS + "--meta=meta_pseudo_labels\n--unlabeled_ratio=2\n"
FROZEN = TAUGHT + "--freeze_teacher=true\n--init_teacher_from=runs/none\n"
TINY = {
    "thesis_supervised_6": ALONE,
    "thesis_pseudo_label_6": FROZEN + "--student_labels=argmax\n",
    OURS: TAUGHT,
    "supervised_6": ALONE.replace("--learning_rate=0.1", "--learning_rate=1"),
    "pseudo_label_6": FROZEN + "--student_labels=soft\n",
    "mpl_6": MOONS.replace("supervised", "uda") + "--meta=meta_pseudo_labels\n--feedback=soft\n--unlabeled_ratio=2\n",
    "mpl_without_feedback_6": TAUGHT + "--feedback=none\n",
    "uda_6": MOONS.replace("supervised", "uda") + "--unlabeled_ratio=2\n",
}
TEACHERS = {"thesis_pseudo_label_6": "thesis_supervised_6", "pseudo_label_6": "supervised_6"}
RUNS = Path("runs/regions")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tiny experiments under the names of the real ones."""
    folder = tmp_path / "flags/two_moons"
    folder.mkdir(parents=True)
    for method, flags in TINY.items():
        header = HEADER.format(name=method, expected="none: tiny")
        if method in TEACHERS:
            header = header.replace("# Command:", f"# Teacher:   {TEACHERS[method]}\n# Command:")
        (folder / f"{method}.flags").write_text(header + flags)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Stands for `toys.measure`; tells what it was asked for. Ours gets better with the seed."""
    asked: list[tuple[str, int]] = []

    def measure(experiment: Flagfile, seed: int, _: Any, *, teacher: Path | None, network: Path) -> dict[str, Any]:
        asked.append((experiment.path.stem, seed))
        assert (experiment.path.stem in TEACHERS) == (teacher is not None and teacher.exists())
        network.write_bytes(b"")
        accuracy = 0.98 + 0.005 * seed if experiment.path.stem == OURS else 0.8
        run = {"seed": seed, "test_accuracy": accuracy, "median_of_last_20": accuracy, "steps": 5, "seconds": 1.0}
        run |= {"date": "2026-01-02", "commit": "abc1234", "note": "", "versions": versions()}
        return {"measurement": run, "weights": []}

    monkeypatch.setattr(toys, "measure", measure)
    return asked


def regions(*given: str) -> str | int | None:
    return run_here("../tools/regions", given)


def config_of(method: str) -> Config:
    return flag_definitions.parse([f"--flagfile={ROOT / flagfile(method).path}"])


def test_picture_is_drawn_from_real_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    drawn: list[Any] = []
    draw: Callable[..., None] = region_figure.draw
    monkeypatch.setattr(region_figure, "draw", lambda *given: (drawn.extend(given), draw(*given)))
    assert regions("--output=plots/new", "--seed=2") is None
    assert capsys.readouterr().out == "plots/new/two_moons_regions.png\n"
    picture = imread("plots/new/two_moons_regions.png")
    assert 1200 > picture.shape[0] > picture.shape[1] > 900  # three rows of three
    panels, points, grid, _ = drawn
    assert [panel.name for panel in panels] == list(NAMES.values())
    for method, panel in zip(METHODS, panels, strict=False):
        teacher = region_comparison.network(flagfile(TEACHERS[method]), 2, RUNS) if method in TEACHERS else None
        experiment = toys.build(flagfile(method), 2, teacher)
        np.testing.assert_array_equal(points.labeled, experiment.labeled.inputs)
        np.testing.assert_array_equal(points.labels, experiment.labeled.labels)
        *_, _ = toys.train(experiment, ())
        np.testing.assert_allclose(panel.margin, grid.shaped(toys.margin(experiment, grid.points)), rtol=1e-6)
        assert panel.accuracy == toys.accuracy_of(experiment)
    np.testing.assert_array_equal(points.unlabeled, experiment.unlabeled.inputs)
    monkeypatch.setattr(toys, "measure", None)  # neither the comparison nor another figure trains any of them again
    assert regions("--output=plots/new", "--seed=2", "--seeds=2") is None
    reference = LaplacianSVM().fit(points.labeled, np.where(points.labels, 1, -1), points.unlabeled)
    np.testing.assert_allclose(panels[-1].margin, grid.shaped(reference(grid.points)), rtol=1e-6, atol=1e-9)
    assert panels[-1].accuracy == np.mean((reference(experiment.test.inputs) > 0) == experiment.test.labels)


@pytest.mark.parametrize("side", [-1.0, 0.0, 1.0])
def test_regions_have_the_colors_of_their_classes(side: float, tmp_path: Path) -> None:
    """The left half is of class 0 and the right one of class 1, unless all is of one class."""
    corners = np.array([[-1.0, -1.0], [1.0, 1.0]])
    grid = grid_of(corners)
    margin = grid.shaped(grid.points[:, 0] + 3.0 * side)
    points = region_figure.Points(corners, corners, np.array([0, 1]))
    region_figure.draw([region_figure.Panel("one", margin, 0.5)], points, grid, tmp_path / "one.png")
    picture = (255 * imread(tmp_path / "one.png")[..., :3]).round().astype(int)

    def places(color: str) -> np.ndarray:
        return np.argwhere((picture == [int(color[at : at + 2], 16) for at in (1, 3, 5)]).all(axis=-1))

    first, second = map(places, region_figure.REGIONS)
    assert (len(first) > 5000, len(second) > 5000) == (side <= 0, side >= 0)
    if side == 0:
        assert first[:, 1].max() < second[:, 1].min()


def test_comparison_stores_how_often_the_moons_are_separated(measured: list[tuple[str, int]]) -> None:
    assert region_comparison.sections() == []
    assert regions("--seeds=1..3", "--write_headers") is None
    assert sorted(measured) == sorted((method, seed) for method in METHODS for seed in range(1, 4))
    found = flagfile(OURS).measurements()
    assert [run.test_accuracy for run in found] == pytest.approx([0.985, 0.99, 0.995])
    assert "# Measured:  99.00 ± 0.50 % (n = 3: seeds 1, 2, 3)" in flagfile(OURS).path.read_text()
    stored = json.loads(Path("flags/two_moons/regions.json").read_text())
    assert (stored["seeds"], stored["success_above"]) == ([1, 2, 3], 0.99)
    assert stored["flags_sha256"] == {method: flagfile(method).digest() for method in METHODS}
    # 0.985, 0.99, 0.995: one is above 0.99.
    assert [stored["successes"][method] for method in METHODS] == [int(method == OURS) for method in METHODS]
    assert stored["test_accuracies"][OURS] == pytest.approx([0.985, 0.99, 0.995])
    (section,) = region_comparison.sections()
    assert "| Meta Pseudo Labels, thesis | 33 % | 1 of 3 | 99.00 ± 0.50 |" in section
    reference = []
    for seed in range(1, 4):
        experiment = toys.build(flagfile(OURS), seed)
        labels = np.where(experiment.labeled.labels, 1, -1)
        margin = LaplacianSVM().fit(experiment.labeled.inputs, labels, experiment.unlabeled.inputs)
        reference.append(float(np.mean((margin(experiment.test.inputs) > 0) == experiment.test.labels)))
    assert stored["test_accuracies"][LAPLACIAN_SVM] == reference


def test_comparison_repeats_nothing(measured: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]) -> None:
    regions("--seeds=0,1")
    first = capsys.readouterr().out
    measured.clear()
    regions("--seeds=0,1")
    assert measured == []
    assert capsys.readouterr().out == first
    regions("--seeds=0..2", "--runs_dir=elsewhere", "--missing")
    assert sorted(measured) == sorted((method, 2) for method in METHODS)
    measured.clear()
    flagfile(OURS).path.write_text(TINY[OURS].replace("--steps=5", "--steps=6"))
    regions("--seeds=0,1")
    assert measured == [(OURS, 0), (OURS, 1)]


@pytest.mark.usefixtures("measured")
def test_comparison_is_shown_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    regions("--seeds=0..3")
    lines = capsys.readouterr().out.splitlines()
    assert "more than 99 %" in lines[0]
    assert "| Meta Pseudo Labels, thesis | 25 % | 1 of 4 | 98.75 ± 0.65 |" in lines
    assert "| supervised | 0 % | 0 of 4 | 80.00 ± 0.00 |" in lines
    assert lines[-1].startswith("| Laplacian SVM | ")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "Nothing to do.*--output=DIR.*--seeds"),
        (["--seeds=some"], "--seeds=some is not a list of integers"),
        (["--output=x", "--missing"], "--missing has no effect without --seeds"),
        (["--seeds=0", "--seed=1"], "--seed has no effect without --output"),
        (["--output=x", "--steps=3"], "--steps has no effect on the figure.*--seed"),
    ],
)
def test_refuses(given: list[str], expected: str, project: Path) -> None:
    message = regions(*given)
    with pytest.raises(UserError, match=expected):
        raise UserError(message)
    assert [path.name for path in project.iterdir()] == ["flags"]


def test_help_says_what_it_is_for() -> None:
    command = [sys.executable, "-m", "tools.regions", "--help"]
    text = " ".join(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split())
    assert "Meta Pseudo Labels on two moons" in text
    assert all(flag in text for flag in ("--output", "--seeds", "--runs_dir", "--[no]write_headers", "--seed:"))


def test_teachers_are_those_of_the_flagfiles() -> None:
    named = {method: Flagfile(ROOT / flagfile(method).path).other("Teacher") for method in METHODS}
    assert {method: other.path.stem for method, other in named.items() if other} == TEACHERS


@pytest.mark.parametrize(("method", "teacher"), TEACHERS.items())
def test_frozen_teacher_is_the_supervised_network_of_the_same_seed(method: str, teacher: str) -> None:
    experiment = toys.build(flagfile(method), 2, region_comparison.network(flagfile(teacher), 2, RUNS))
    supervised = toys.build(flagfile(teacher), 2)
    *_, _ = toys.train(supervised, ())
    for _ in toys.train(experiment, [1, 3]):
        for role in ("model", "ema"):
            found = experiment.teaching.teacher.state_variables[role]
            for variable, expected in zip(found, supervised.learner.state_variables["ema"], strict=True):
                np.testing.assert_array_equal(variable, expected)


def test_networks_that_are_missing_are_made_again(measured: list[tuple[str, int]]) -> None:
    """A measurement stays as it was recorded; one that is missing too is made from a teacher that is there."""
    regions("--seeds=0")
    own = flagfile("supervised_6")
    teacher, student = (region_comparison.network(each, 0, RUNS) for each in (own, flagfile("pseudo_label_6")))
    recorded = teacher.with_suffix(".json")
    recorded.write_text(recorded.read_text().replace("abc1234", "an earlier one"))
    for path in (teacher, student, student.with_suffix(".json")):
        path.unlink()
    regions("--seeds=0")
    assert "an earlier one" in recorded.read_text()
    own.path.write_text(own.path.read_text().replace("steps=5", "steps=6"))
    regions("--seeds=0")  # a student whose teacher is another one is another one
    assert measured[len(METHODS) :] == 2 * [("supervised_6", 0), ("pseudo_label_6", 0)]


@pytest.mark.parametrize(("prefix", "student_labels"), [("thesis_", "argmax"), ("", "soft")])
def test_methods_are_compared_under_one_protocol(prefix: str, student_labels: str) -> None:
    """The same points, what is seen of them, models and steps; what differs is what a teacher learns, if it does."""
    supervised, pseudo_label, ours = (config_of(f"{prefix}{name}_6") for name in ("supervised", "pseudo_label", "mpl"))
    (rule,) = pseudo_label.meta
    frozen = MetaPseudoLabels(freeze_teacher=True, student_labels=student_labels)
    assert dataclasses.replace(rule, init_teacher_from="") == frozen
    train = dataclasses.replace(ours.train, algorithm="supervised", unlabeled_weight=1.0)
    of_teacher = {"algorithm": supervised.algorithm, "meta": pseudo_label.meta, "teacher": pseudo_label.teacher}
    assert dataclasses.replace(ours, train=train, **of_teacher) == pseudo_label
    assert pseudo_label.teacher.model == supervised.model
    parts = ("model", "rule", "schedule", "source", "run")
    assert all(getattr(supervised, part) == getattr(ours, part) for part in parts)
    shared = ("batch_size", "learning_rate", "steps", "ema_decay")
    assert all(getattr(supervised.train, name) == getattr(ours.train, name) for name in shared)
    assert supervised.data == dataclasses.replace(ours.data, labeled_in_unlabeled=True)  # which has no effect here


def test_teacher_of_the_thesis_learns_from_the_labels_alone() -> None:
    ours = config_of(OURS)
    assert ours.meta == (MetaPseudoLabels(feedback="hard_cosine"),)
    assert ours.train.algorithm == "supervised"


@pytest.mark.parametrize("method", METHODS)
def test_points_have_noise_only_where_the_settings_are_not_those_of_the_thesis(method: str) -> None:
    experiment = setup.build(config_of(method))
    batch = next(iter(experiment.pipeline().batches(start_step=0, strategy=experiment.strategy)))
    sides = ((experiment.labeled, batch.labeled.views), (experiment.unlabeled, batch.unlabeled.views))
    exact = [
        bool((view.numpy()[:, np.newaxis] == examples.inputs).all(axis=-1).any(axis=1).all())
        for examples, views in sides
        for view in views.values()
    ]
    assert all(exact) == (method.startswith("thesis") or method == "supervised_6")


def test_controls_differ_in_one_thing() -> None:
    ours, control, uda = map(config_of, ("mpl_6", "mpl_without_feedback_6", "uda_6"))
    assert (ours.meta_rule(MetaPseudoLabels).form, control.meta_rule(MetaPseudoLabels).form) == ("soft", "none")
    assert control.meta_rule(MetaPseudoLabels).label_form == ours.meta_rule(MetaPseudoLabels).label_form
    assert dataclasses.replace(control, meta=ours.meta) == ours
    different = {name for name, value in uda.values().items() if ours.values()[name] != value}
    assert different == {"meta", "unlabeled_weight", "learning_rate"}
    assert all(config.data == config_of(OURS).data for config in (ours, uda))


def test_stored_comparison_is_that_of_the_measured_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = Path("flags/two_moons/regions.json")
    if not path.exists():
        pytest.skip("not compared yet")
    stored = json.loads(path.read_text())
    accuracy = {}
    for method in METHODS:
        found = {run.seed: run.test_accuracy for run in flagfile(method).measurements()}
        accuracy[method] = {seed: found[seed] for seed in stored["seeds"]}
    expected = region_comparison.summarize(accuracy | {LAPLACIAN_SVM: dict.fromkeys(stored["seeds"], 1.0)})
    for content in (stored, expected):
        for part in ("successes", "test_accuracies"):
            del content[part][LAPLACIAN_SVM]  # the one that is not measured as a run
    assert stored == expected, "Run `python -m tools.regions --seeds=0..19`."
    assert stored["success_above"] == SUCCESS
