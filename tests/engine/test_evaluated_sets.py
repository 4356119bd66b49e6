"""What every network of a run is measured on, evaluation by evaluation."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.config import Config
from metassl_tf.engine import evaluated_sets, run, setup
from metassl_tf.engine.workdir import Workdir
from tests.run_results import evaluations

TAUGHT = {"meta": "meta_pseudo_labels", "algorithm": "uda", "dropout": "0.5"}


def test_accuracy_on_labeled_examples_is_that_of_the_trained_weights(tiny_config: Callable[..., Config]) -> None:
    """Not of their averages, which differ here, and without dropout and augmentation."""
    experiment = setup.build(tiny_config(**TAUGHT, eval_batch_size=16))
    for learner in (experiment.teaching.teacher, experiment.teaching.student):
        for average in learner.ema:
            average.assign(average * 2.0)
        measured = evaluated_sets.labeled(experiment, learner).metrics(1)
        images = experiment.views.plain(tf.constant(experiment.labeled.inputs))
        predicted = learner.model(images, training=False).numpy().argmax(axis=1)
        assert {*measured} == {"raw"}
        assert measured["raw"]["accuracy"] == pytest.approx(np.mean(predicted == experiment.labeled.labels))


def test_of_many_labeled_examples_some_are_spread_over_their_list(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluated_sets, "_MOST_LABELED", 7)
    experiment = setup.build(tiny_config())
    measured = evaluated_sets.labeled(experiment, experiment.learner).examples
    np.testing.assert_array_equal(measured.inputs, experiment.labeled.inputs[[0, 3, 6, 9, 12, 15, 19]])


def test_held_out_sets_are_those_that_there_are(tiny_config: Callable[..., Config]) -> None:
    experiment = setup.build(tiny_config(num_validation=30))
    measured = evaluated_sets.held_out(experiment, experiment.learner)
    assert {name: len(evaluator.examples) for name, evaluator in measured.items()} == {
        "validation": 30,
        "test": len(experiment.test),
    }
    experiment = setup.build(tiny_config(num_validation=0))
    assert {*evaluated_sets.held_out(experiment, experiment.learner)} == {"test"}


@pytest.mark.parametrize(("changes", "networks"), [({}, ("",)), (TAUGHT, ("", "teacher_"))])
def test_a_run_says_how_well_each_network_fits_its_labels(
    tiny_config: Callable[..., Config], tmp_path: Path, changes: dict[str, str], networks: tuple[str, ...]
) -> None:
    workdir = Workdir(tmp_path)
    run.train(tiny_config(**changes), workdir)
    rows, result = evaluations(workdir), json.loads(workdir.result.read_text())
    records = tf.data.TFRecordDataset([str(path) for path in workdir.tensorboard.iterdir()])
    events = [tf.compat.v1.Event.FromString(record) for record in records.as_numpy_iterator()]
    for network in networks:
        written = [
            (event.step, tf.make_ndarray(value.tensor))
            for event in events
            for value in event.summary.value
            if value.tag == f"{network}labeled/raw/accuracy"
        ]
        expected = [(row["step"], pytest.approx(row[f"{network}labeled"]["raw"]["accuracy"])) for row in rows]
        assert written == expected
    assert {name for name in rows[-1] if name.endswith("labeled")} == {f"{network}labeled" for network in networks}
    assert result["last"]["labeled"] == rows[-1]["labeled"]
    assert result.get("teacher", {}).get("labeled") == rows[-1].get("teacher_labeled")
