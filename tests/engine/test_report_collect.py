"""What the page is told about a run: predictions of the averaged weights, views, decision regions."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.config import Config
from metassl_tf.data.examples import Examples
from metassl_tf.engine import results, setup
from metassl_tf.engine.evaluator import Evaluator
from metassl_tf.engine.report.build import render
from metassl_tf.engine.report.content import Content, collect
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.workdir import Workdir


def evaluators(experiment: Experiment) -> dict[str, Evaluator]:
    return {
        name: Evaluator(experiment.learner, examples, experiment.views, batch_size=64, strategy=experiment.strategy)
        for name, examples in (("validation", experiment.validation), ("test", experiment.test))
    }


def collected(config: Config, folder: Path) -> tuple[Experiment, Content]:
    """The content of a run that has not been trained at all."""
    experiment = setup.build(config)
    workdir = Workdir(folder / "run")
    workdir.claim("--a=b\n")
    measured = evaluators(experiment)
    row = {"step": 1, "seconds": 1.0, "examples_per_second": 1.0, "train": {"loss": 1.0}}
    rows: list[dict[str, Any]] = [{**row, **{name: evaluator.metrics(1) for name, evaluator in measured.items()}}]
    result = results.summarize(rows, experiment)
    return experiment, collect(experiment, measured, workdir=workdir, rows=rows, result=result)


def test_points(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny_config(dataset="two_moons", model="mlp", filters=None, num_train=200, num_test=50)
    experiment, content = collected(config, tmp_path)
    assert content.predictions is not None
    assert content.predictions.name == "test"
    assert content.predictions.wrong.mean() == pytest.approx(1.0 - content.result["test_accuracy"])
    assert content.flagfile == "--a=b\n"
    assert content.views == {}
    assert content.regions is not None
    row, column = 20, 130
    point = np.array([[content.regions.horizontal[column], content.regions.vertical[row]]], np.float32)
    expected = tf.nn.softmax(experiment.learner.predict(point, parameters="ema"))[0]
    np.testing.assert_allclose(content.regions.probabilities[row, column], expected, atol=1e-5)
    points = np.concatenate([experiment.labeled.inputs, experiment.unlabeled.inputs, experiment.test.inputs])
    low, high = points.min(axis=0), points.max(axis=0)
    assert content.regions.horizontal[0] < low[0] < high[0] < content.regions.horizontal[-1]
    assert content.regions.vertical[0] < low[1] < high[1] < content.regions.vertical[-1]
    assert "Decision regions" in render(content)


def test_images(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    _, content = collected(tiny_config(), tmp_path)
    assert content.regions is None
    assert set(content.views) == {"labeled/weak", "unlabeled/weak", "unlabeled/strong"}
    assert "Most confident mistakes" in render(content)


def test_examples_of_unknown_class_are_left_out(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    experiment, content = collected(tiny_config(dataset="two_moons", model="mlp", filters=None), tmp_path)
    workdir = Workdir(tmp_path / "run")

    def predictions_of(**labels: list[int]) -> Any:
        stand_ins: Any = {name: stand_in(np.array(values)) for name, values in labels.items()}
        return collect(experiment, stand_ins, workdir=workdir, rows=content.rows, result=content.result).predictions

    def stand_in(labels: np.ndarray) -> SimpleNamespace:
        examples = Examples(np.zeros((len(labels), 2), np.float32), labels, (2,))
        logits = np.stack([np.arange(len(labels)), np.ones(len(labels))], axis=1)
        return SimpleNamespace(examples=examples, logits=lambda: {"ema": logits, "raw": -logits})

    found = predictions_of(test=[0, -1, 1])
    assert found.examples.labels.tolist() == [0, 1]
    assert found.predicted.tolist() == [1, 0]
    assert predictions_of(test=[-1, -1], validation=[0]).name == "validation"
    assert predictions_of(test=[-1]) is None
    assert predictions_of() is None
