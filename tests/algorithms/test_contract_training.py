"""What every algorithm promises about training: one trace, and the same result compiled, and on two replicas."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms import ALGORITHMS
from metassl_tf.algorithms.base import Algorithm
from metassl_tf.algorithms.supervised import Supervised
from tests.algorithms.cases import CASES
from tests.learner import tiny

# The clipping norm is below the gradient's, so that clipping counts too.
OPTIMIZATION = {"gradient_clip_norm": 0.5, "l2_weight_decay": 0.01}


def unusual(name: str) -> Algorithm:
    """Every hyperparameter at its first alternative, so that no part of the algorithm is switched off."""
    return ALGORITHMS[name](**{field: values[0] for field, values in CASES[name].alternatives.items()})


@functools.cache
def on_one_device(name: str) -> tiny.Run:
    return tiny.train(tf.distribute.get_strategy(), unusual(name), **OPTIMIZATION)


def assert_same(run: tiny.Run, other: tiny.Run) -> None:
    for metrics, other_metrics in zip(run.metrics, other.metrics, strict=True):
        assert metrics == pytest.approx(other_metrics, rel=1e-5, abs=1e-6)
    state, other_state = run.state(), other.state()
    for role in ("model", "slots", "ema"):
        assert state[role]
        for value, other_value in zip(state[role], other_state[role], strict=True):
            np.testing.assert_allclose(value, other_value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_step_is_traced_once_and_changes_all_that_it_trains(name: str) -> None:
    run = on_one_device(name)
    assert run.traces == 1
    assert run.metrics[0]["gradient_norm"] > OPTIMIZATION["gradient_clip_norm"]
    fresh = tiny.network(batch_norm=True)
    for variable, trained in zip(fresh.trainable_variables, run.learner.trainable_variables, strict=True):
        assert np.abs(variable.numpy() - trained.numpy()).max() > 1e-5
    moved = run.learner.state_variables["model"][len(fresh.trainable_variables) :]
    for variable, trained in zip(fresh.non_trainable_variables, moved, strict=True):
        assert np.abs(variable.numpy() - trained.numpy()).max() > 1e-5


@pytest.mark.parametrize("name", ALGORITHMS)
def test_compiled_by_xla_it_is_the_same(name: str) -> None:
    compiled = tiny.train(tf.distribute.get_strategy(), unusual(name), jit=True, **OPTIMIZATION)
    assert compiled.traces == 1
    assert_same(on_one_device(name), compiled)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_two_replicas_equal_one_device(name: str, mirrored: tf.distribute.Strategy) -> None:
    both = tiny.train(mirrored, unusual(name), **OPTIMIZATION)
    assert both.traces == 1
    assert_same(on_one_device(name), both)
    for variables in both.learner.state_variables.values():
        for variable in variables:
            first, second = mirrored.experimental_local_results(variable)
            np.testing.assert_array_equal(first.numpy(), second.numpy())


@pytest.mark.parametrize("name", [name for name, cls in ALGORITHMS.items() if cls().needs().unlabeled_views])
def test_unlabeled_weight_0_is_supervised_learning(name: str) -> None:
    # Without batch norm, through which unlabeled examples act on labeled ones in the joint pass.
    algorithm = ALGORITHMS[name]()
    (labeled_view,) = algorithm.needs().labeled_views
    runs = [
        tiny.train(tf.distribute.get_strategy(), own, steps=3, batch_norm=False, unlabeled_weight=0.0)
        for own in (algorithm, Supervised(labeled_view=labeled_view))
    ]
    assert [metrics["loss"] for metrics in runs[0].metrics] == pytest.approx(
        [metrics["loss"] for metrics in runs[1].metrics], rel=1e-6
    )
    for value, supervised in zip(runs[0].state()["model"], runs[1].state()["model"], strict=True):
        np.testing.assert_allclose(value, supervised, rtol=1e-6, atol=1e-7)
