"""Update rules against Keras' optimizers of the same name in float64, and LARS against scalar arithmetic."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.learner.learner import Learner
from metassl_tf.learner.update_rules import OPTIMIZERS, Adam, AdamW, Lars, RmsProp, Sgd, UpdateRule
from metassl_tf.settings import check_settings
from tests.learner import tiny

# Keras rounds rates, momenta and decays to float32 on their way to float64: these are exact in both.
RATE = 0.0625

EQUALS_KERAS: dict[str, tuple[UpdateRule, Callable[[], keras.Optimizer]]] = {
    "sgd": (Sgd(momentum=0.0, nesterov=False), lambda: keras.optimizers.SGD(RATE)),
    "sgd_nesterov_without_momentum": (Sgd(momentum=0.0), lambda: keras.optimizers.SGD(RATE)),
    "sgd_momentum": (Sgd(momentum=0.75, nesterov=False), lambda: keras.optimizers.SGD(RATE, momentum=0.75)),
    "sgd_nesterov": (Sgd(momentum=0.75), lambda: keras.optimizers.SGD(RATE, momentum=0.75, nesterov=True)),
    "sgd_decoupled": (
        Sgd(momentum=0.75, decoupled_weight_decay=0.25),
        lambda: keras.optimizers.SGD(RATE, momentum=0.75, nesterov=True, weight_decay=0.25),
    ),
    "adam": (Adam(), lambda: keras.optimizers.Adam(RATE)),
    "adam_other": (
        Adam(beta_1=0.5, beta_2=0.9, epsilon=0.1),
        lambda: keras.optimizers.Adam(RATE, beta_1=0.5, beta_2=0.9, epsilon=0.1),
    ),
    "adamw": (AdamW(decoupled_weight_decay=0.25), lambda: keras.optimizers.AdamW(RATE, weight_decay=0.25)),
    "rmsprop": (RmsProp(momentum=0.0), lambda: keras.optimizers.RMSprop(RATE)),
    # An epsilon this large tells inside the root from outside.
    "rmsprop_momentum": (
        RmsProp(rho=0.8, momentum=0.7, epsilon=0.5),
        lambda: keras.optimizers.RMSprop(RATE, rho=0.8, momentum=0.7, epsilon=0.5),
    ),
}


@pytest.mark.parametrize("name", EQUALS_KERAS)
def test_rule_equals_the_optimizer_of_keras(name: str) -> None:
    rule, make_optimizer = EQUALS_KERAS[name]
    model, reference, optimizer = tiny.dense_float64(), tiny.dense_float64(), make_optimizer()
    learner = Learner(model, tiny.optimization(rule=rule, learning_rate=RATE), seed=0)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    for step, gradients in enumerate(tiny.random_gradients(model)):
        learner.update(gradients, [], step=tf.constant(step, tf.int64))
        optimizer.apply(gradients, reference.trainable_variables)
        for variable, expected in zip(model.trainable_variables, reference.trainable_variables, strict=True):
            np.testing.assert_allclose(variable.numpy(), expected.numpy(), rtol=1e-13, atol=1e-14)


def test_defaults_are_those_of_keras() -> None:
    adam, rms_prop = keras.optimizers.AdamW(), keras.optimizers.RMSprop()
    rule = AdamW()
    assert (rule.beta_1, rule.beta_2, rule.epsilon, rule.decoupled_weight_decay) == (
        *(adam.beta_1, adam.beta_2, adam.epsilon, adam.weight_decay),
    )
    assert (RmsProp().rho, RmsProp().epsilon) == (rms_prop.rho, rms_prop.epsilon)


def test_every_rule_but_lars_has_been_compared() -> None:
    compared = {type(rule) for rule, _ in EQUALS_KERAS.values()}
    assert compared | {Lars} == set(OPTIMIZERS.values())


@pytest.mark.parametrize("rule", [Lars(), Lars(momentum=0.5, trust_coefficient=0.02, epsilon=0.25)])
def test_lars_equals_scalar_arithmetic(rule: Lars) -> None:
    model = tiny.dense_float64()
    learner = Learner(model, tiny.optimization(rule=rule, learning_rate=RATE), seed=0)
    kernel, bias = ([float(number) for number in variable.numpy().flat] for variable in model.trainable_variables)
    kernel_momentum, bias_momentum = [0.0] * 6, [0.0] * 2
    for step, gradients in enumerate(tiny.random_gradients(model)):
        learner.update(gradients, [], step=tf.constant(step, tf.int64))
        kernel_gradient, bias_gradient = (gradient.numpy().flatten().tolist() for gradient in gradients)
        weight_norm = math.sqrt(sum(number**2 for number in kernel))
        gradient_norm = math.sqrt(sum(number**2 for number in kernel_gradient))
        local = RATE * rule.trust_coefficient * weight_norm / (gradient_norm + rule.epsilon)
        # arXiv:1708.03888, Algorithm 1; the bias, a vector, moves at the global rate.
        for index, number in enumerate(kernel_gradient):
            kernel_momentum[index] = rule.momentum * kernel_momentum[index] + local * number
            kernel[index] -= kernel_momentum[index]
        for index, number in enumerate(bias_gradient):
            bias_momentum[index] = rule.momentum * bias_momentum[index] + RATE * number
            bias[index] -= bias_momentum[index]
        np.testing.assert_allclose(model.trainable_variables[0].numpy().flatten(), kernel, rtol=1e-13)
        np.testing.assert_allclose(model.trainable_variables[1].numpy().flatten(), bias, rtol=1e-13)


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_lars_without_a_scale_of_its_own_takes_the_global_rate(weight: float, slope: float) -> None:
    value, gradient = tf.fill([2, 2], tf.constant(weight, tf.float64)), tf.fill([2, 2], tf.constant(slope, tf.float64))
    zeros = tf.zeros([2, 2], tf.float64)
    rate = tf.constant(RATE, tf.float64)
    change, _ = Lars().update(gradient, value, (zeros,), learning_rate=rate, step=tf.constant(0))
    local = 0.001 * 2 / (2 + 1e-9) if weight and slope else 1.0
    np.testing.assert_allclose(change, -RATE * local * gradient, rtol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rule_can_be_differentiated(name: str) -> None:
    """The derivative of an update with respect to its gradient, which a look-ahead needs, by finite differences."""
    rule = OPTIMIZERS[name]()
    generator = np.random.default_rng(1)
    value, direction, gradient = (tf.constant(generator.normal(size=(3, 2))) for _ in range(3))
    slots = tuple(tf.constant(generator.uniform(0.5, 1.0, size=(3, 2))) for _ in range(rule.num_slots))

    def change(gradient: tf.Tensor) -> Any:
        rate = tf.constant(RATE, tf.float64)
        return rule.update(gradient, value, slots, learning_rate=rate, step=tf.constant(3, tf.int64))[0]

    with tf.GradientTape() as tape:
        tape.watch(gradient)
        projection = tf.reduce_sum(change(gradient) * direction)
    slope = tf.reduce_sum(tape.gradient(projection, gradient) * direction)
    small = 1e-6 * direction
    difference = tf.reduce_sum((change(gradient + small) - change(gradient - small)) * direction) / 2e-6
    assert float(slope) == pytest.approx(float(difference), rel=1e-6)
    assert abs(float(slope)) > 1e-9


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rule_settings_are_keyword_only_frozen_and_in_their_range(name: str) -> None:
    rule = OPTIMIZERS[name]()
    check_settings(rule)
    assert type(rule)(**dataclasses.asdict(rule)) == rule
    for field in dataclasses.fields(rule):
        assert field.kw_only
        assert field.metadata["help"].endswith(".")
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(rule, field.name, field.default)
