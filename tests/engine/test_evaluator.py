"""Predictions of whole sets: with which weights, and how many sets there may be."""

import logging
from collections.abc import Callable

import numpy as np
import pytest

from metassl_tf.config import Config
from metassl_tf.engine import setup
from metassl_tf.engine.evaluator import Evaluator
from metassl_tf.engine.setup import Experiment


@pytest.fixture(scope="module")
def experiment(tiny_config: Callable[..., Config]) -> Experiment:
    return setup.build(tiny_config())


def evaluator(experiment: Experiment, *, batch_size: int, **changes: tuple[str, ...]) -> Evaluator:
    return Evaluator(
        experiment.learner,
        experiment.labeled,
        experiment.views,
        batch_size=batch_size,
        strategy=experiment.strategy,
        **changes,
    )


def test_some_kinds_of_weights_can_be_left_out(experiment: Experiment) -> None:
    both, raw = evaluator(experiment, batch_size=20), evaluator(experiment, batch_size=7, kinds=("raw",))
    assert [*both.metrics(1)] == ["raw", "ema"]
    assert [*raw.metrics(1)] == [*raw.logits()] == ["raw"]
    np.testing.assert_allclose(raw.logits()["raw"], both.logits()["raw"], atol=1e-5)


def test_many_sets_are_nothing_to_warn_of(experiment: Experiment, caplog: pytest.LogCaptureFixture) -> None:
    """Each has a graph of its own."""
    logger = logging.getLogger("tensorflow")
    logger.addHandler(caplog.handler)
    try:
        for _ in range(6):
            evaluator(experiment, batch_size=20).logits()
    finally:
        logger.removeHandler(caplog.handler)
    assert "retracing" not in caplog.text
