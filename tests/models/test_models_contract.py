"""What every model of the table promises."""

import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.models import MODELS
from metassl_tf.models.base import ModelSettings
from metassl_tf.models.build import build_model
from metassl_tf.settings import check_settings

# For each setting another value than the small model's; keras_hub's models have their own test.
OTHER_VALUES: dict[str, dict[str, Any]] = {
    "mlp": {"hidden_units": (8, 7), "activation": "tanh", "init_range": 0.1, "dropout": 0.5},
    "convnet": {
        "filters": 5,
        "leaky_slope": 0.2,
        "batch_norm_momentum": 0.9,
        "batch_norm_epsilon": 1e-5,
        "dropout": 0.5,
    },
    "wide_resnet": {
        "depth": 16,
        "width": 2,
        "stem_filters": 8,
        "leaky_slope": 0.2,
        "batch_norm_momentum": 0.9,
        "batch_norm_epsilon": 1e-5,
        "conv_bias": False,
        "activated_shortcut": "changing",
        "dropout": 0.5,
        "classifier_init": "uniform",
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_settings_are_declared_for_flags(name: str) -> None:
    assert MODELS[name].__dataclass_params__.frozen
    kinds = typing.get_type_hints(MODELS[name])
    for field in dataclasses.fields(MODELS[name]):
        assert field.kw_only
        assert field.metadata["help"].endswith(".")
        assert kinds[field.name] in (bool, int, float, str, tuple[int, ...])
        assert isinstance(field.default, typing.get_origin(kinds[field.name]) or kinds[field.name])
    check_settings(MODELS[name]())


def test_a_setting_that_models_share_is_one_flag() -> None:
    declared: dict[str, set[str]] = {}
    for settings in MODELS.values():
        kinds = typing.get_type_hints(settings)
        for field in dataclasses.fields(settings):
            declared.setdefault(field.name, set()).add(f"{kinds[field.name]} {dict(field.metadata)}")
    assert len(declared["dropout"]) == 1
    assert {name: kinds for name, kinds in declared.items() if len(kinds) > 1} == {}


@pytest.mark.parametrize("input_shape", [(8, 8, 1), (9, 7, 3), (28, 28, 1), (32, 32, 3)])
def test_maps_inputs_to_logits(
    small_model_name: str,
    small_settings: ModelSettings,
    input_shape: tuple[int, ...],
    images: Callable[..., np.ndarray],
) -> None:
    model = build_model(small_model_name, small_settings, input_shape, 7)
    logits = model(images(3, *input_shape))
    assert logits.shape == (3, 7)
    assert logits.dtype == tf.float32
    assert np.all(np.isfinite(logits))
    assert model.inputs[0].dtype == "float32"


def test_ends_in_the_classifier(small_settings: ModelSettings, images: Callable[..., np.ndarray]) -> None:
    model = small_settings.build((8, 8, 1), 3)
    classifier = model.layers[-1]
    assert isinstance(classifier, keras.layers.Dense)
    assert classifier.name == "classifier"
    features = keras.Model(model.input, classifier.input)(images(5, 8, 8, 1))
    np.testing.assert_allclose(
        features @ classifier.kernel + classifier.bias, model(images(5, 8, 8, 1)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("name", "setting"), [(name, key) for name, keys in OTHER_VALUES.items() for key in keys])
def test_every_setting_changes_the_model(
    name: str,
    setting: str,
    small_models: dict[str, Any],
    fingerprint: Callable[[ModelSettings], list[np.ndarray]],
) -> None:
    settings = small_models[name]
    other = dataclasses.replace(settings, **{setting: OTHER_VALUES[name][setting]})
    expected, again, received = fingerprint(settings), fingerprint(settings), fingerprint(other)
    assert all(map(np.array_equal, expected, again))
    assert len(received) != len(expected) or not all(map(np.array_equal, expected, received))


def test_every_setting_of_the_small_models_has_another_value(small_models: dict[str, Any]) -> None:
    for name, settings in small_models.items():
        assert [field.name for field in dataclasses.fields(settings)] == list(OTHER_VALUES[name])


def test_equal_layers_begin_with_different_values(small_settings: ModelSettings) -> None:
    """A Keras initialiser object that two layers share gives both the same values."""
    kernels = [
        variable.numpy() for variable in small_settings.build((8, 8, 1), 3).variables if "kernel" in variable.path
    ]
    for number, kernel in enumerate(kernels):
        assert not any(np.array_equal(kernel, other) for other in kernels[:number])


@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_variable(
    small_settings: ModelSettings, training: bool, images: Callable[..., np.ndarray]
) -> None:
    model = small_settings.build((8, 8, 1), 3)
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(images(16, 8, 8, 1), training=training) ** 2)
    for variable, gradient in zip(model.trainable_variables, tape.gradient(loss, variables), strict=True):
        assert gradient is not None, variable.path
        assert np.all(np.isfinite(gradient)), variable.path
        # Batch normalisation takes the mean away, so the bias of a convolution before it may have no gradient.
        assert variable.path.endswith("conv/bias") or np.any(gradient != 0), variable.path


def test_logits_are_float32_under_mixed_precision(
    small_settings: ModelSettings, images: Callable[..., np.ndarray]
) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")  # a fixture of the whole test run sets it back
    model = small_settings.build((8, 8, 1), 3)
    assert model.layers[-1].input.dtype == "bfloat16"
    for training in (True, False):
        logits = model(images(4, 8, 8, 1), training=training)
        assert logits.dtype == tf.float32
        # Not computed in bfloat16 and cast: more bits are in use than bfloat16 has.
        assert np.any(logits.numpy() != tf.cast(tf.cast(logits, tf.bfloat16), tf.float32).numpy())
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}


def test_xla_computes_the_same(small_settings: ModelSettings, images: Callable[..., np.ndarray]) -> None:
    model = small_settings.build((8, 8, 1), 3)
    variables = [variable.value for variable in model.trainable_variables]

    def step(inputs: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = tf.reduce_mean(tf.nn.log_softmax(logits)[:, 0])
        return logits, tape.gradient(loss, variables)

    inputs = tf.constant(images(4, 8, 8, 1))
    expected, received = step(inputs), tf.function(step, jit_compile=True)(inputs)
    np.testing.assert_allclose(received[0], expected[0], rtol=1e-4, atol=1e-5)
    for gradient, same in zip(received[1], expected[1], strict=True):
        np.testing.assert_allclose(gradient, same, rtol=1e-3, atol=1e-5)


def test_two_replicas_compute_what_one_device_does(
    small_settings: ModelSettings, images: Callable[..., np.ndarray]
) -> None:
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        pytest.skip("TensorFlow was started with one logical CPU device")
    inputs = images(8, 8, 8, 1)
    alone = small_settings.build((8, 8, 1), 3)
    # Not by collectives, whose keys are the same in every strategy: those of two tests would meet.
    strategy = tf.distribute.MirroredStrategy(
        [device.name for device in devices[:2]], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        mirrored = small_settings.build((8, 8, 1), 3)
        mirrored.set_weights(alone.get_weights())

    @tf.function
    def forward(halves: tf.Tensor) -> tf.Tensor:
        return strategy.run(lambda half: mirrored(half, training=True), args=(halves,))

    halves = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(inputs, 2)[context.replica_id_in_sync_group])
    )
    received = tf.concat(strategy.experimental_local_results(forward(halves)), axis=0)
    np.testing.assert_allclose(received, alone(inputs, training=True), rtol=1e-4, atol=1e-5)
    for variable, same in zip(mirrored.variables, alone.variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), same.numpy(), rtol=1e-5, atol=1e-6, err_msg=same.path)


def test_is_saved_and_loaded(
    small_model_name: str, small_settings: ModelSettings, images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    model = build_model(small_model_name, small_settings, (8, 8, 1), 3)
    model(images(4, 8, 8, 1), training=True)  # moves the statistics of batch normalisation
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images(2, 8, 8, 1)), model(images(2, 8, 8, 1)))
    assert [variable.path for variable in loaded.variables] == [variable.path for variable in model.variables]
    for layer in loaded.layers:
        assert getattr(layer, "synchronized", True), layer.name
