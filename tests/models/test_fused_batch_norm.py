"""The fused layer is Keras' synchronized one, computed in another way."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.models.base import ModelSettings, batch_normalization
from metassl_tf.models.fused_batch_norm import FusedBatchNormalization, fuse_batch_normalization

SHAPE = (6, 4, 5, 3)


def layers(shape: tuple[int, ...] = SHAPE, **settings: Any) -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """Keras' layer and the fused one, with the same variables."""
    plain = keras.layers.BatchNormalization(momentum=0.9, synchronized=True, **settings)
    fused = FusedBatchNormalization(momentum=0.9, synchronized=True, **settings)
    for layer in (plain, fused):
        layer.build(shape)
        generator = np.random.default_rng(1)
        layer.set_weights([generator.uniform(0.5, 2.0, size=weight.shape) for weight in layer.weights])
    return plain, fused


def inputs_for(shape: tuple[int, ...] = SHAPE, dtype: str = "float32") -> tf.Tensor:
    # A mean as large as the deviation: statistics that forget it are far off.
    return tf.constant(np.random.default_rng(0).normal(3.0, 3.0, size=shape), dtype)


def uses_kernel(layer: keras.layers.Layer, inputs: tf.Tensor, **arguments: Any) -> bool:
    graph = tf.function(lambda: layer(inputs, **arguments)).get_concrete_function().graph
    return any(operation.type == "FusedBatchNormV3" for operation in graph.get_operations())


def test_outputs_statistics_and_gradients_are_those_of_keras() -> None:
    inputs, results = inputs_for(), []
    for layer in layers():
        variables = [variable.value for variable in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(tf.tanh(outputs) * outputs)
        results.append([outputs, *tape.gradient(loss, [inputs, *variables]), *layer.non_trainable_variables])
        assert uses_kernel(layer, inputs, training=True) is isinstance(layer, FusedBatchNormalization)
    for expected, received in zip(*results, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compile_with_xla", [False, True])
def test_second_derivatives_are_those_of_keras(compile_with_xla: bool) -> None:
    """With respect to inputs, scale and per-example weights: what hypergradients are made of."""
    direction = tf.constant(np.random.default_rng(2).normal(size=SHAPE), tf.float32)

    def second(layer: keras.layers.Layer) -> list[tf.Tensor]:
        inputs, weights, gamma = inputs_for(), tf.ones([SHAPE[0]]), layer.gamma.value
        with tf.GradientTape() as outer:
            outer.watch([inputs, weights])
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                outputs = layer(inputs, training=True)
                loss = tf.reduce_sum(weights * tf.reduce_sum(tf.tanh(outputs) * outputs, axis=[1, 2, 3]))
            along = tf.reduce_sum(direction * inner.gradient(loss, inputs))
        return outer.gradient(along, [inputs, gamma, weights])

    plain, fused = layers()
    received = tf.function(lambda: second(fused), jit_compile=compile_with_xla)()
    for expected, result in zip(second(plain), received, strict=True):
        assert np.any(np.abs(expected) > 0.1)
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)


def test_the_same_bits_every_time() -> None:
    inputs = inputs_for((64, 16, 16, 8))

    def results() -> list[np.ndarray]:
        _, fused = layers((64, 16, 16, 8))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(fused(inputs, training=True) ** 3)
        return [tape.gradient(loss, inputs).numpy(), *(weight.numpy() for weight in fused.weights)]

    expected = results()
    for _ in range(5):
        assert all(map(np.array_equal, results(), expected))


def test_computes_in_float32_under_mixed_precision() -> None:
    inputs = inputs_for(dtype="bfloat16")
    expected, received = (layer(inputs, training=True) for layer in layers(dtype="mixed_bfloat16"))
    assert received.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(received, tf.float32), tf.cast(expected, tf.float32), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((6, 3), {}),
        (SHAPE, {"axis": 1}),
        (SHAPE, {"scale": False}),
        (SHAPE, {"center": False}),
        (SHAPE, {"dtype": "float64"}),
        (SHAPE, {"renorm": True}),
    ],
)
def test_leaves_to_keras_what_the_kernel_cannot_do(shape: tuple[int, ...], settings: dict[str, Any]) -> None:
    plain, fused = layers(shape, **settings)
    inputs = inputs_for(shape, settings.get("dtype", "float32"))
    assert not uses_kernel(fused, inputs, training=True)
    fused.set_weights(plain.get_weights())
    np.testing.assert_array_equal(fused(inputs, training=True), plain(inputs, training=True))


def test_inference_is_keras_own() -> None:
    plain, fused = layers()
    np.testing.assert_array_equal(fused(inputs_for()), plain(inputs_for()))
    assert not uses_kernel(fused, inputs_for(), training=False)
    fused.trainable = False  # a frozen layer normalises by its moving statistics, in training mode too
    assert not uses_kernel(fused, inputs_for(), training=True)


def test_given_parameters_are_used_and_state_stays() -> None:
    _, fused = layers()
    before = [weight.numpy() for weight in fused.weights]
    expected = fused(inputs_for(), training=True) * 2.0
    fused.set_weights(before)
    doubled = [(variable, variable.value * 2.0) for variable in fused.trainable_variables]
    with keras.StatelessScope(state_mapping=doubled) as scope:
        received = fused(inputs_for(), training=True)
    np.testing.assert_allclose(received, expected, rtol=1e-5)
    assert scope.get_current_value(fused.moving_mean) is not None
    assert all(map(np.array_equal, before, [weight.numpy() for weight in fused.weights]))


def test_two_replicas_still_share_their_statistics(mirrored: tf.distribute.Strategy) -> None:
    inputs = inputs_for()
    with mirrored.scope():
        layer = batch_normalization(0.9, 1e-3, "bn")
        layer.build(SHAPE)
        model = fuse_batch_normalization(keras.Sequential([layer]))
    halves = mirrored.experimental_distribute_values_from_function(
        lambda context: tf.split(inputs, 2)[context.replica_id_in_sync_group]
    )
    run = tf.function(lambda: mirrored.run(lambda half: model(half, training=True), args=(halves,)))
    received = tf.concat(mirrored.experimental_local_results(run()), axis=0)
    mean, variance = tf.nn.moments(inputs, [0, 1, 2])
    np.testing.assert_allclose(received, (inputs - mean) / tf.sqrt(variance + 1e-3), rtol=1e-3, atol=1e-4)


def test_a_fused_model_has_the_same_variables_and_outputs(
    small_settings: ModelSettings, images: Callable[..., np.ndarray]
) -> None:
    model = small_settings.build((8, 8, 1), 3)
    variables, weights = model.variables, model.get_weights()
    expected = [model(images(8, 8, 8, 1), training=True), *map(tf.identity, model.variables)]
    model.set_weights(weights)
    assert fuse_batch_normalization(model) is model
    assert all(map(lambda one, other: one is other, model.variables, variables))
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(isinstance(layer, FusedBatchNormalization) for layer in layers)
    received = [model(images(8, 8, 8, 1), training=True), *model.variables]
    for one, other in zip(expected, received, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
