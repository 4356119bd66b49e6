"""The network from a distribution to a better one: how it starts, and what it consists of."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.models.calibrator import Start, build_calibrator

GIVEN = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]], np.float32)


@pytest.mark.parametrize("units", [4, 128])
def test_identity_gives_back_what_it_is_given(units: int) -> None:
    logits = build_calibrator(3, units=units, start="identity")(GIVEN)
    np.testing.assert_allclose(keras.ops.softmax(logits), GIVEN, atol=1e-6)


def test_random_start_does_not() -> None:
    logits = build_calibrator(3, units=128, start="random")(GIVEN)
    assert np.abs(keras.ops.softmax(logits) - GIVEN).max() > 0.1


def test_random_start_is_the_plain_perceptron() -> None:
    network = build_calibrator(3, units=6, start="random")
    generator = np.random.default_rng(0)
    network.set_weights([generator.normal(size=weight.shape) for weight in network.get_weights()])
    *hidden, (kernel, bias) = zip(*[iter(network.get_weights())] * 2, strict=True)
    features = GIVEN
    for own_kernel, own_bias in hidden:
        features = np.maximum(features @ own_kernel + own_bias, 0.0)
    np.testing.assert_allclose(network(GIVEN), features @ kernel + bias, rtol=1e-4, atol=1e-4)


def test_identity_can_learn_to_be_another_map() -> None:
    """Its output starts at zero, and what comes before it does not: else nothing but a bias would ever move."""
    network = build_calibrator(3, units=6, start="identity")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(GIVEN) * [[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    kernel = network.get_layer("logits").kernel
    assert np.abs(tape.gradient(loss, kernel.value)).max() > 1e-4


@pytest.mark.parametrize("start", ["identity", "random"])
def test_what_comes_out_has_full_precision(start: Start) -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build_calibrator(3, units=4, start=start)
    finally:
        keras.config.set_dtype_policy(policy)
    assert network(GIVEN).dtype == "float32"
    if start == "identity":
        np.testing.assert_allclose(keras.ops.softmax(network(GIVEN)), GIVEN, atol=1e-6)


def test_five_layers_of_which_four_are_hidden() -> None:
    for start in ("identity", "random"):
        kernels = [
            weight.shape for weight in build_calibrator(3, units=6, start=start).weights if len(weight.shape) > 1
        ]
        assert kernels == [(3, 6), (6, 6), (6, 6), (6, 6), (6, 3)]
