"""Toy runs equal those of the package, the ground truth is the density's, and the lowest weights are counted right."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import ive
from scipy.stats import multivariate_normal

from metassl_tf import flag_definitions
from metassl_tf.data.toy import Circles, Linear, TwoMoons
from metassl_tf.engine import run
from metassl_tf.engine.learned_weights import LearnedWeights
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from tests.tools.small_flagfiles import SUPERVISED, WEIGHTS
from tools import toys
from tools.measurements import Flagfile, Measurement

FROZEN_TEACHER = SUPERVISED + (
    "--unlabeled_ratio=2\n--meta=meta_pseudo_labels\n--freeze_teacher=true\n--student_labels=argmax\n"
    "--init_teacher_from=runs/none\n"
)


def flagfile(folder: Path, flags: str, name: str = "some") -> Flagfile:
    path = folder / f"{name}.flags"
    path.write_text(flags)
    return Flagfile(path)


def on(source: Any) -> Any:
    """What `true_margin` looks at."""
    return SimpleNamespace(config=SimpleNamespace(source=source))


def test_truth_of_linear_points_is_the_ratio_of_two_gaussians() -> None:
    points = np.array([[0.0, 0.0], [1.0, -1.0], [0.3, -0.1], [-2.0, 0.5]])
    negative, positive = (multivariate_normal(center, 0.4**2) for center in ([-1, -1], [1, 1]))
    expected = positive.logpdf(points) - negative.logpdf(points)
    np.testing.assert_allclose(toys.true_margin(on(Linear()), points), expected, rtol=1e-6, atol=1e-9)


def test_truth_of_circles_is_that_of_noisy_rings() -> None:
    """A ring of radius R with noise s has, at distance r, a density like exp(-(r-R)^2 / 2s^2) ive(0, rR/s^2)."""
    radius, noise = np.array([0.1, 0.5, 0.7, 0.75, 0.8, 1.2]), 0.15
    inner, outer = (
        -((radius - ring) ** 2) / (2 * noise**2) + np.log(ive(0, radius * ring / noise**2)) for ring in (0.5, 1.0)
    )
    angle = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    np.testing.assert_allclose(toys.true_margin(on(Circles(noise=noise)), points), inner - outer, rtol=1e-3, atol=1e-3)


def test_truth_of_moons_has_each_moon_on_its_side() -> None:
    points = np.array([[0.0, 1.0], [-1.0, 0.1], [1.0, -0.5], [2.0, 0.4]])
    assert list(toys.true_margin(on(TwoMoons()), points) > 0) == [False, False, True, True]


@pytest.mark.parametrize("flags", [SUPERVISED, WEIGHTS])
def test_a_measured_run_is_that_of_the_training_program(flags: str, tmp_path: Path) -> None:
    experiment = flagfile(tmp_path, flags)
    measured = toys.measure(experiment, 3, [1, 100])
    found = Measurement(**measured["measurement"])
    given = [f"--flagfile={experiment.path}", "--seed=3", "--split_seed=3"]
    result = run.train(flag_definitions.parse(given), Workdir(tmp_path / "run"))
    assert found.test_accuracy == result["test_accuracy"]
    assert found.median_of_last_20 == result["median_of_last_20"]["ema"]["test_accuracy"]
    assert (found.seed, found.steps, found.versions) == (3, 5, result["versions"])
    looks = measured["weights"]
    assert [look["step"] for look in looks] == ([1, 5] if "meta" in flags else [])
    if looks:
        assert looks[-1]["auroc"] == pytest.approx(result["weight_auroc"], abs=1e-6)


def test_a_student_learns_from_the_stored_network_of_another_run(tmp_path: Path) -> None:
    """As it does when the training program trains one after the other: to the last bit."""
    teacher, student = flagfile(tmp_path, SUPERVISED), flagfile(tmp_path, FROZEN_TEACHER, "student")
    networks = [tmp_path / name for name in ("teacher.keras", "student.keras")]
    toys.measure(teacher, 3, [], network=networks[0])
    measured = toys.measure(student, 3, [], teacher=networks[0], network=networks[1])
    seeds = ["--seed=3", "--split_seed=3"]
    folders = [Workdir(tmp_path / name) for name in ("teacher", "student")]
    run.train(flag_definitions.parse([f"--flagfile={teacher.path}", *seeds]), folders[0])
    given = [f"--flagfile={student.path}", f"--init_teacher_from={folders[0].root}", *seeds]
    result = run.train(flag_definitions.parse(given), folders[1])
    assert measured["measurement"]["test_accuracy"] == result["test_accuracy"]
    assert measured["measurement"]["beside"] == {"teacher": result["teacher"]["test"]["ema"]["accuracy"]}
    for path, folder in zip(networks, folders, strict=True):
        ours, theirs = (keras.models.load_model(name, compile=False) for name in (path, folder.model))
        for variable, expected in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
            np.testing.assert_array_equal(variable, expected)
    with pytest.raises(UserError, match="--init_teacher_from=runs/none holds no weights"):
        toys.build(student, 3)
    points = np.array([[0.5, -1.0], [2.0, 0.25]])
    experiment = toys.build(student, 3, networks[0])
    assert any(toys.margin(experiment, points) != toys.stored_margin(networks[1])(points))
    *_, _ = toys.train(experiment, ())
    np.testing.assert_allclose(toys.stored_margin(networks[1])(points), toys.margin(experiment, points), rtol=1e-6)
    assert sorted(path.name for path in tmp_path.glob("*.keras")) == ["student.keras", "teacher.keras"]


def test_a_run_pauses_where_it_is_looked_at(tmp_path: Path) -> None:
    experiment = toys.build(flagfile(tmp_path, WEIGHTS), 0)
    values = []
    steps = []
    for step in toys.train(experiment, [3, 1, 3, 5, 99]):
        steps.append(step)
        values.append(toys.weights_of(experiment))
    assert steps == [1, 3, 5]
    assert all(np.any(before != after) for before, after in itertools.pairwise(values))
    points = experiment.test.inputs
    logits = experiment.learner.predict(tf.constant(points), parameters="ema").numpy()
    np.testing.assert_allclose(toys.margin(experiment, points), logits[:, 1] - logits[:, 0], rtol=1e-6)
    assert toys.accuracy_of(experiment) == np.mean(logits.argmax(axis=1) == experiment.test.labels)


def test_without_learned_weights_there_are_none_to_draw(tmp_path: Path) -> None:
    experiment = toys.build(flagfile(tmp_path, SUPERVISED), 0)
    with pytest.raises(UserError, match="learned weights"):
        toys.weights_of(experiment)


def test_the_lowest_weights_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 points, so that two are the lowest: one wrong and on its side, one right and across the true boundary."""
    weight = np.linspace(2.0, 1.0, 40, dtype=np.float32)
    weight[[5, 30]] = 0.1, 0.0
    truth = np.zeros(40, np.int64)
    predicted = truth.copy()
    predicted[[5, 7]] = 1
    found = LearnedWeights(
        weight=weight,
        updates=np.ones(40, np.int64),
        influence=np.zeros(40, np.float32),
        given_label=None,
        truth=truth,
        predicted=predicted,
        confidence=np.ones(40),
        agreement=np.ones(40),
        trustworthy=predicted == truth,
        measure="pseudo_label",
        measured=np.ones(40, bool),
    )
    monkeypatch.setattr(toys, "learned_weights", lambda _: found)
    side = np.zeros(40, bool)
    side[30] = True
    assert toys.down_weighted(on(None), side) == {
        "wrong_of_lowest": 0.5,
        "wrong_of_all": 0.05,
        "astray_of_lowest": 0.5,
        "astray_of_all": 0.025,
        # Of the 38 right points, 37 weigh more than one of the two wrong ones, and 6 more than the other.
        "auroc": pytest.approx((37 + 6) / (38 * 2), abs=1e-6),
    }
