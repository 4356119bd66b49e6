"""The fused layer against Keras' own in float64, whose derivatives of second order are checked by differences."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.hypergrad.products import forward_mode_product
from metassl_tf.models.base import batch_normalization, classifier, inputs_of
from metassl_tf.models.batch_norm import fuse
from metassl_tf.models.keras_hub_backbone import classifier_on

SHAPE = (3, 4, 5, 2)
EPSILON = 1e-2


def keras_layer(shape: tuple[int, ...] = SHAPE, **config: Any) -> Any:
    """Keras' own layer, with weights and moving statistics that are not those of the start."""
    options = {"synchronized": True, "momentum": 0.9, "epsilon": EPSILON, "name": "bn", **config}
    layer = keras.layers.BatchNormalization(**options)
    layer.build(shape)
    generator = np.random.default_rng(3)
    for variable in layer.variables:
        variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    return layer


def fused_layer(shape: tuple[int, ...] = SHAPE, **config: Any) -> Any:
    return fuse(keras_layer(shape, **config))


def noise(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.5, 1.0, size=shape)


def first_order(layer: Any, inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> list[tf.Tensor]:
    """Gradients of a loss that is curved in the layer's outputs, by its inputs, gamma and beta."""
    parts = [inputs, gamma, beta]
    with tf.GradientTape() as tape:
        tape.watch(parts)
        with keras.StatelessScope(state_mapping=[(layer.gamma, gamma), (layer.beta, beta)]):
            outputs = layer(inputs, training=True)
        loss = tf.reduce_sum(tf.tanh(outputs) * tf.constant(noise(1), outputs.dtype))
    return tape.gradient(loss, parts)


def point(layer: Any) -> list[tf.Tensor]:
    weights = [tf.identity(variable.value) for variable in (layer.gamma, layer.beta)]
    return [tf.constant(noise(0), weights[0].dtype), *weights]


def direction(parts: list[tf.Tensor]) -> list[tf.Tensor]:
    return [tf.constant(noise(5 + position, part.shape), part.dtype) for position, part in enumerate(parts)]


def operations(layer: Any, shape: tuple[int, ...] = SHAPE, **arguments: Any) -> set[str]:
    """Types of the operations of a call."""
    graph = tf.function(lambda inputs: layer(inputs, **arguments)).get_concrete_function(
        tf.TensorSpec(shape, layer.variable_dtype)
    )
    return {operation.type for operation in graph.graph.get_operations()}


def assert_close(received: list[Any], expected: list[Any], tolerance: float) -> None:
    """Every tensor, by the largest of its values."""
    assert len(received) == len(expected) > 0
    for one, other in zip(received, expected, strict=True):
        other = np.asarray(other, np.float64)
        np.testing.assert_allclose(np.asarray(one, np.float64), other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 2, 3), (None, 4, 4, 2)])
def test_values_and_moving_statistics(shape: tuple[int | None, ...]) -> None:
    fused, exact = fused_layer(shape), keras_layer(shape, dtype="float64")
    call = tf.function(lambda inputs: fused(inputs, training=True), input_signature=[tf.TensorSpec(shape)])
    for seed in range(3):
        inputs = noise(seed, tuple(size or 6 for size in shape))
        assert_close([call(inputs.astype(np.float32))], [exact(inputs, training=True)], 1e-6)
    assert_close(fused.variables, exact.variables, 1e-6)
    assert "FusedBatchNormV3" in operations(fused, shape, training=True)


def test_a_single_position_has_no_variance() -> None:
    fused, exact = fused_layer((1, 1, 1, 2)), keras_layer((1, 1, 1, 2))
    inputs = np.array([[[[3.0, -1.0]]]], np.float32)
    np.testing.assert_allclose(fused(inputs, training=True), exact(inputs, training=True), atol=1e-6)
    assert_close(fused.variables, exact.variables, 1e-6)


def test_gradients() -> None:
    fused, exact = fused_layer(), keras_layer(dtype="float64")
    assert_close(first_order(fused, *point(fused)), first_order(exact, *point(exact)), 1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("mode", ["backward", "forward"])
def test_second_derivatives(mode: str, jit_compile: bool) -> None:
    fused, exact = fused_layer(), keras_layer(dtype="float64")

    @tf.function(jit_compile=jit_compile)
    def product(parts: list[tf.Tensor], vector: list[tf.Tensor]) -> list[tf.Tensor]:
        if mode == "forward":
            with tf.autodiff.ForwardAccumulator(parts, vector) as accumulator:
                gradients = first_order(fused, *parts)
            return accumulator.jvp(gradients)
        with tf.GradientTape() as tape:
            tape.watch(parts)
            along = tf.add_n([tf.reduce_sum(a * b) for a, b in zip(first_order(fused, *parts), vector, strict=True)])
        return tape.gradient(along, parts)

    parts, vector = point(exact), direction(point(exact))
    step = 1e-5
    ahead, behind = (
        first_order(exact, *(part + sign * step * along for part, along in zip(parts, vector, strict=True)))
        for sign in (1, -1)
    )
    expected = [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]
    assert_close(product(point(fused), direction(point(fused))), expected, 2e-6)


def test_forward_mode_that_saves_memory_does_without_the_kernel() -> None:
    layer, exact = fused_layer(), keras_layer()

    def product(of: Any, *, save_memory: bool) -> Any:
        def along(inputs: tf.Tensor) -> tf.Tensor:
            return forward_mode_product(
                lambda at: of(at[0], training=True), [inputs], [inputs], save_memory=save_memory
            )

        return tf.function(along).get_concrete_function(tf.TensorSpec(SHAPE))

    def kinds(function: Any) -> set[str]:
        return {operation.type for operation in function.graph.get_operations()}

    frugal = product(layer, save_memory=True)
    assert "FusedBatchNormV3" not in kinds(frugal)
    assert "FusedBatchNormV3" in kinds(product(layer, save_memory=False))
    inputs = tf.constant(noise(0), tf.float32)
    assert_close([frugal(inputs)], [product(exact, save_memory=True)(inputs)], 1e-6)


def test_xla_computes_the_same() -> None:
    fused, compiled = fused_layer(), fused_layer()
    step = tf.function(lambda inputs: compiled(inputs, training=True), jit_compile=True)
    inputs = noise(0).astype(np.float32)
    assert_close([step(inputs)], [fused(inputs, training=True)], 1e-6)
    assert_close(compiled.variables, fused.variables, 1e-6)
    gradients = tf.function(lambda *parts: first_order(compiled, *parts), jit_compile=True)
    assert_close(gradients(*point(fused)), first_order(fused, *point(fused)), 2e-6)


def test_mixed_precision_keeps_the_statistics_in_float32() -> None:
    fused, expected = fused_layer(dtype="mixed_bfloat16"), keras_layer(dtype="mixed_bfloat16")
    inputs = tf.cast(noise(0) + 100.0, tf.bfloat16)  # with 8 bits there is no variance so far from 0
    outputs = fused(inputs, training=True)
    assert outputs.dtype == tf.bfloat16
    assert_close([outputs], [expected(inputs, training=True)], 2**-7)
    assert_close(fused.variables, expected.variables, 1e-4)
    assert "FusedBatchNormV3" in operations(fused, training=True)


def test_a_stateless_scope_holds_what_is_read_and_written() -> None:
    fused, expected = fused_layer(), keras_layer()
    before = [variable.numpy() for variable in fused.variables]
    values = [tf.constant(noise(position, (2,)) ** 2, tf.float32) for position in range(4)]
    inputs = noise(0).astype(np.float32)
    with keras.StatelessScope(state_mapping=list(zip(fused.variables, values, strict=True))) as scope:
        outputs = fused(inputs, training=True)
    moved = [scope.get_current_value(variable) for variable in fused.variables]
    for variable, value in zip(expected.variables, values, strict=True):
        variable.assign(value)
    assert_close([outputs, *moved], [expected(inputs, training=True), *expected.variables], 1e-6)
    np.testing.assert_array_equal(before, [variable.numpy() for variable in fused.variables])


def test_moving_statistics_are_constants() -> None:
    fused = fused_layer()
    inputs = tf.constant(noise(0), tf.float32)
    with tf.GradientTape() as tape, keras.StatelessScope() as scope:
        tape.watch(inputs)
        fused(inputs, training=True)
        moved = scope.get_current_value(fused.moving_variance)
    assert tape.gradient(moved, inputs) is None


@pytest.mark.parametrize(
    ("shape", "config", "arguments"),
    [
        (SHAPE, {}, {"training": False}),
        (SHAPE, {"trainable": False}, {"training": True}),
        (SHAPE, {"dtype": "float64"}, {"training": True}),
        (SHAPE, {"axis": 1}, {"training": True}),
        (SHAPE, {"scale": False}, {"training": True}),
        (SHAPE, {"center": False}, {"training": True}),
        (SHAPE, {"renorm": True}, {"training": True}),
        (SHAPE, {}, {"training": True, "mask": tf.constant(noise(0, SHAPE[:3]) > 0)}),
        ((6, 2), {}, {"training": True}),
        ((3, 4, 2), {}, {"training": True}),
    ],
)
def test_computes_as_it_did_elsewhere(
    shape: tuple[int, ...], config: dict[str, Any], arguments: dict[str, Any]
) -> None:
    fused, expected = fused_layer(shape, **config), keras_layer(shape, **config)
    assert "FusedBatchNormV3" not in operations(fused, shape, **arguments)
    inputs = noise(0, shape).astype(fused.variable_dtype)
    np.testing.assert_array_equal(fused(inputs, **arguments), expected(inputs, **arguments))
    for variable, same in zip(fused.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(variable, same)


def test_two_replicas_compute_what_one_device_does(mirrored: tf.distribute.Strategy) -> None:
    inputs = noise(0, (8, 3, 3, 2)).astype(np.float32)
    alone = fused_layer()
    with mirrored.scope():
        layer = fused_layer()

    @tf.function
    def forward(halves: tf.Tensor) -> tf.Tensor:
        return mirrored.run(lambda half: layer(half, training=True), args=(halves,))

    halves = mirrored.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(inputs, 2)[context.replica_id_in_sync_group])
    )
    received = tf.concat(mirrored.experimental_local_results(forward(halves)), axis=0)
    assert_close([received], [alone(inputs, training=True)], 1e-6)
    assert_close([variable.numpy() for variable in layer.variables], alone.variables, 1e-6)


def own_layers() -> keras.Model:
    inputs = inputs_of(SHAPE[1:])
    features = batch_normalization(0.9, EPSILON, "bn")(inputs)
    return keras.Model(inputs, classifier(keras.layers.GlobalAveragePooling2D()(features), 3, dropout=0.0))


def copied_backbone() -> keras.Model:
    images = keras.Input(SHAPE[1:])
    backbone = keras.Model(images, keras.layers.BatchNormalization(epsilon=EPSILON, name="bn")(images))
    return classifier_on(backbone, SHAPE[1:], 3, dropout=0.0, batch_norm_momentum=0.9, name="copied")


@pytest.mark.parametrize("build", [own_layers, copied_backbone])
def test_models_train_fused_and_are_saved_as_keras_own(build: Callable[[], keras.Model], tmp_path: Path) -> None:
    model = build()
    assert "FusedBatchNormV3" in operations(model, training=True)
    model(noise(0).astype(np.float32), training=True)
    layer = model.get_layer("bn")
    assert type(layer) is keras.layers.BatchNormalization
    assert layer.get_config() == keras_layer(axis=-1).get_config()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert "FusedBatchNormV3" not in operations(loaded, training=True)  # nothing of this package is in it
    np.testing.assert_array_equal(loaded(noise(1)), model(noise(1)))
