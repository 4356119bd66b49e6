"""What is recorded of a teacher and its student at every evaluation."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.config import Config
from metassl_tf.engine import run, setup
from metassl_tf.engine.lessons import Lessons, lessons_of, plain_targets
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.summaries import target_map
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from metassl_tf.learner.learner import Learner
from tests.engine.report_content import titles
from tests.run_results import evaluations

TAUGHT = {"meta": "meta_pseudo_labels", "algorithm": "uda", "dropout": "0.5"}


@pytest.fixture(scope="module")
def experiment(tiny_config: Callable[..., Config]) -> Experiment:
    """Nothing is trained yet; the averages differ from the weights, and dropout would be seen."""
    experiment = setup.build(tiny_config(**TAUGHT, distillation_temperature=0.5, eval_batch_size=16))
    for average in experiment.teaching.teacher.ema + experiment.teaching.student.ema:
        average.assign(average * 2.0)
    return experiment


def logits(learner: Learner, images: np.ndarray, experiment: Experiment) -> np.ndarray:
    return learner.model(experiment.views.plain(tf.constant(images)), training=False).numpy()


def test_targets_are_the_teacher_s_distributions_of_spread_examples(experiment: Experiment) -> None:
    lessons = lessons_of(experiment)
    assert lessons is not None
    record = lessons.record(1, [])
    examples = [target["example"] for target in record["targets"]]
    assert len(examples) == 8
    assert (examples[0], examples[-1]) == (0, len(experiment.unlabeled) - 1)
    assert np.ptp(np.diff(examples)) <= 1
    found = logits(experiment.teaching.teacher, experiment.unlabeled.inputs[examples], experiment)
    expected = np.exp(found / 0.5) / np.exp(found / 0.5).sum(axis=1, keepdims=True)
    for target, distribution in zip(record["targets"], expected, strict=True):
        assert sorted(target["classes"]) == list(range(10))
        assert target["probabilities"] == sorted(target["probabilities"], reverse=True)
        np.testing.assert_allclose(target["probabilities"], distribution[target["classes"]], atol=2e-5)
    entropy = -np.sum(expected * np.log(expected), axis=1).mean()
    assert record["target_entropy"] == pytest.approx(entropy, rel=1e-5)
    assert record["changed_targets"] == 0.0


def test_without_a_teacher_nothing_is_recorded(tiny_config: Callable[..., Config]) -> None:
    assert lessons_of(setup.build(tiny_config())) is None


def recorder(*distributions: Any) -> Lessons:
    """Of any function that gives distributions: here one after the other."""
    given: Iterator[Any] = iter(distributions)
    return Lessons(np.arange(len(distributions[0])) + 5, lambda: np.array(next(given)))


def test_change_is_measured_against_the_first_record() -> None:
    uniform, sharp, other = [0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0], [0.0, 0.2, 0.8, 0.0]
    lessons, rows = recorder([uniform, sharp], [sharp, sharp], [sharp, other], [uniform, sharp]), [{"step": 0}]
    for step in range(1, 5):
        rows.append({"step": step, "lessons": lessons.record(step, json.loads(json.dumps(rows)))})
    records = [row["lessons"] for row in rows[1:]]
    assert [record["changed_targets"] for record in records] == [0.0, 0.5, 1.0, 0.0]
    assert records[0]["target_entropy"] == pytest.approx(np.log(4) / 2)
    assert records[2]["targets"][1] == {
        "example": 6,
        "classes": [2, 1, 0, 3],
        "probabilities": [0.8, 0.2, 0.0, 0.0],
    }


def test_change_of_stored_labels_is_measured_against_these() -> None:
    stored, kept, other = [[0.1, 0.9], [0.6, 0.4]], [[0.4, 0.6], [0.9, 0.1]], [[0.6, 0.4], [0.9, 0.1]]
    given = iter([other, kept])
    lessons = Lessons(np.arange(2), lambda: np.array(next(given)), np.array(stored, np.float32))
    first = lessons.record(1, [])
    assert first["changed_targets"] == 0.5
    assert lessons.record(2, [{"step": 1, "lessons": first}])["changed_targets"] == 0.0


def test_distributions_are_drawn_as_rows_of_cells() -> None:
    targets = np.random.RandomState(0).dirichlet(np.ones(6), size=5)
    (picture,) = target_map(plain_targets(np.arange(5), targets), 6)
    assert picture.shape == (160, 480, 1)
    np.testing.assert_allclose(picture[16::32, 40::80, 0], targets, atol=1e-5)
    (wide,) = target_map(plain_targets(np.arange(2), np.full((2, 1000), 1e-3)), 1000)
    assert wide.shape == (160, 1000, 1)
    assert np.count_nonzero(wide[0]) == 10


def test_of_many_classes_the_ten_most_probable_are_kept() -> None:
    target = np.random.RandomState(0).dirichlet(np.ones(30))
    (kept,) = recorder([target]).record(1, [])["targets"]
    assert kept["classes"] == np.argsort(-target)[:10].tolist()
    np.testing.assert_allclose(kept["probabilities"], np.sort(target)[::-1][:10], atol=1e-5)


def test_targets_that_are_no_numbers_are_told_of() -> None:
    with pytest.raises(UserError, match=r"target distributions became infinite or NaN before step 12\."):
        recorder([[0.5, np.nan]]).record(12, [])


def test_a_run_of_points_leaves_the_record(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    changes = {"dataset": "two_moons", "num_labeled": 6, "model": "mlp", "hidden_units": 8, "filters": None}
    workdir = Workdir(tmp_path)
    run.train(tiny_config(**{**TAUGHT, **changes, "dropout": None, "threshold": None}), workdir)
    rows = evaluations(workdir)
    assert [row["step"] for row in rows] == [5, 10, 12]
    examples = [[target["example"] for target in row["lessons"]["targets"]] for row in rows]
    assert examples == [examples[0]] * 3
    records = tf.data.TFRecordDataset([str(path) for path in workdir.tensorboard.iterdir()])
    events = [tf.compat.v1.Event.FromString(record) for record in records.as_numpy_iterator()]
    for metric in ("target_entropy", "changed_targets"):
        written = [
            (event.step, tf.make_ndarray(value.tensor))
            for event in events
            for value in event.summary.value
            if value.tag == f"lessons/{metric}"
        ]
        assert written == [(row["step"], pytest.approx(row["lessons"][metric])) for row in rows]
    pictures = [event.step for event in events for value in event.summary.value if value.tag == "lessons/targets"]
    assert pictures == [row["step"] for row in rows]
    page = (workdir.report / "index.html").read_text()
    assert {"Teacher and student", "Targets over the training"} <= {*titles(page)}
