"""One update: weight decay, clipping, rule, moving average, in that order; and what survives it."""

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.supervised import Supervised
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.step import Training
from metassl_tf.learner.update_rules import Adam, Lars, Sgd, UpdateRule
from tests.learner import tiny

PLAIN = Sgd(momentum=0.0, nesterov=False)


def dense_learner(**settings: Any) -> Learner:
    return Learner(tiny.dense_float64(), tiny.optimization(learning_rate=0.125, **settings), seed=0)


def values_of(learner: Learner) -> list[np.ndarray]:
    return [variable.numpy() for variable in learner.trainable_variables]


@pytest.mark.parametrize("rule", [PLAIN, Sgd(), Adam(), Lars()])
@pytest.mark.parametrize("coverage", ["kernels", "all"])
def test_l2_decay_is_the_gradient_of_half_the_squared_weights(rule: UpdateRule, coverage: str) -> None:
    decay = 0.25
    learner = dense_learner(rule=rule, l2_weight_decay=decay, weight_decay_coverage=coverage)
    reference = dense_learner(rule=rule)
    covered = slice(None) if coverage == "all" else slice(0, 1)
    for step, gradients in enumerate(tiny.random_gradients(learner.model)):
        with tf.GradientTape() as tape:
            penalty = tf.add_n([tf.nn.l2_loss(variable) for variable in reference.trainable_variables[covered]])
            penalty *= decay
        extra = tape.gradient(penalty, reference.trainable_variables, unconnected_gradients="zero")
        norm = learner.update(gradients, [], step=tf.constant(step, tf.int64))
        expected_norm = reference.update(
            [one + other for one, other in zip(gradients, extra, strict=True)], [], step=tf.constant(step, tf.int64)
        )
        assert float(norm) == pytest.approx(float(expected_norm), rel=1e-12)
        for value, expected in zip(values_of(learner), values_of(reference), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_decoupled_decay_shrinks_covered_weights_beside_the_update() -> None:
    learner, reference = dense_learner(rule=Sgd(decoupled_weight_decay=0.5)), dense_learner(rule=Sgd())
    kernel = values_of(learner)[0]
    gradients = tiny.random_gradients(learner.model)[0]
    for one in (learner, reference):
        one.update(gradients, [], step=tf.constant(0, tf.int64))
    np.testing.assert_allclose(values_of(learner)[0], values_of(reference)[0] - 0.125 * 0.5 * kernel, rtol=1e-12)
    np.testing.assert_array_equal(values_of(learner)[1], values_of(reference)[1])
    np.testing.assert_array_equal(learner.slots[0][0].numpy(), reference.slots[0][0].numpy())


@pytest.mark.parametrize(("clip_norm", "clips"), [(0.0, False), (0.5, True), (1000.0, False)])
def test_clipping_bounds_the_global_norm_of_gradient_and_decay(clip_norm: float, clips: bool) -> None:
    learner = dense_learner(rule=PLAIN, gradient_clip_norm=clip_norm, l2_weight_decay=0.25)
    kernel, bias = values_of(learner)
    gradients = tiny.random_gradients(learner.model)[0]
    kernel_gradient, bias_gradient = gradients[0].numpy() + 0.25 * kernel, gradients[1].numpy()
    norm = np.sqrt((kernel_gradient**2).sum() + (bias_gradient**2).sum())
    factor = clip_norm / norm if clips else 1.0
    assert factor < 0.5 or not clips

    reported = learner.update(gradients, [], step=tf.constant(0, tf.int64))
    assert float(reported) == pytest.approx(norm, rel=1e-12)  # before clipping
    new_kernel, new_bias = values_of(learner)
    np.testing.assert_allclose(new_kernel, kernel - 0.125 * factor * kernel_gradient, rtol=1e-6)
    np.testing.assert_allclose(new_bias, bias - 0.125 * factor * bias_gradient, rtol=1e-6)


@pytest.mark.parametrize("ramp", [False, True])
@pytest.mark.parametrize("with_statistics", [False, True])
def test_moving_average_follows_the_updated_values(ramp: bool, with_statistics: bool) -> None:
    options = tiny.optimization(ema_decay=0.6, ema_ramp=ramp, ema_statistics=with_statistics)
    learner = Learner(tiny.network(batch_norm=True), options, seed=0)
    count = len(learner.trainable_variables)
    expected = [variable.numpy() for variable in learner.state_variables["model"]]
    generator = np.random.default_rng(1)
    for step, gradients in enumerate(tiny.random_gradients(learner.model, steps=20)):
        statistics = [tf.constant(generator.uniform(size=tiny.HIDDEN), tf.float32) for _ in range(2)]
        learner.update(gradients, statistics, step=tf.constant(step, tf.int64))
        decay = min(0.6, (1 + step) / (10 + step)) if ramp else 0.6
        new = [variable.numpy() for variable in learner.state_variables["model"]]
        np.testing.assert_array_equal(new[count], statistics[0])
        expected = [decay * old + (1 - decay) * value for old, value in zip(expected, new, strict=True)]
        if not with_statistics:
            expected[count:] = new[count:]
        for average, value in zip(learner.ema, expected, strict=True):
            np.testing.assert_allclose(average.numpy(), value, rtol=1e-5, atol=1e-6)


def test_moving_average_starts_at_the_weights_and_slots_at_zero() -> None:
    learner = Learner(tiny.network(batch_norm=True), tiny.optimization(rule=Adam()), seed=0)
    state = learner.state_variables
    assert len(state["slots"]) == 2 * len(learner.trainable_variables)
    assert not any(slot.numpy().any() for slot in state["slots"])
    for average, variable in zip(state["ema"], state["model"], strict=True):
        np.testing.assert_array_equal(average.numpy(), variable.numpy())


def noisy_network() -> keras.Model:
    """With batch norm and dropout: every kind of state."""
    body = tiny.network(batch_norm=True)
    return keras.Sequential([body.input, *body.layers[1:-1], keras.layers.Dropout(0.5), body.layers[-1]])


def test_state_variables_are_all_that_survives_a_step() -> None:
    def take_step(learner: Learner, step: int) -> None:
        batch = tiny.batch_for(Supervised(), seed=step)
        Training(learner, Supervised()).begin_step(batch, tiny.context(step), tf.ones([])).apply()

    options = tiny.optimization(rule=Adam(), l2_weight_decay=0.1, gradient_clip_norm=1.0)
    uninterrupted = Learner(noisy_network(), options, seed=5)
    for step in range(2):
        take_step(uninterrupted, step)
    keras.utils.set_random_seed(99)
    resumed = Learner(noisy_network(), options, seed=5)
    for role, variables in resumed.state_variables.items():
        for variable, saved in zip(variables, uninterrupted.state_variables[role], strict=True):
            variable.assign(saved)
    for learner in (uninterrupted, resumed):
        take_step(learner, step=2)
    for role, variables in resumed.state_variables.items():
        for variable, saved in zip(variables, uninterrupted.state_variables[role], strict=True):
            np.testing.assert_array_equal(variable.numpy(), saved.numpy())


def test_predict_uses_the_chosen_parameters_in_inference_mode_and_leaves_no_trace() -> None:
    learner = Learner(noisy_network(), tiny.optimization(), seed=0)
    for position, variable in enumerate(itertools.chain(*learner.state_variables.values())):
        variable.assign(variable + 0.1 * (position + 1))  # averages that differ from the weights
    state = [variable.numpy() for variable in learner.model.variables + learner.ema]
    inputs = tf.constant(np.random.default_rng(0).normal(size=(6, tiny.FEATURES)), tf.float32)

    predictions = {name: learner.predict(inputs, parameters=name).numpy() for name in ("raw", "ema")}
    for before, variable in zip(state, learner.model.variables + learner.ema, strict=True):
        np.testing.assert_array_equal(variable.numpy(), before)

    np.testing.assert_array_equal(predictions["raw"], learner.model(inputs, training=False))
    for variable, average in zip(learner.state_variables["model"], learner.ema, strict=True):
        variable.assign(average.value)
    np.testing.assert_allclose(predictions["ema"], learner.model(inputs, training=False), rtol=1e-6)
    assert np.abs(predictions["ema"] - predictions["raw"]).max() > 0.01
    # A batch of one sees no others, so nothing of the batch is in the prediction.
    np.testing.assert_allclose(learner.predict(inputs[:1], parameters="ema"), predictions["ema"][:1], rtol=1e-5)
