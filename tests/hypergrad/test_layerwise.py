"""Per-example gradients layer by layer, against one gradient after the other."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.errors import UserError
from metassl_tf.hypergrad.layerwise import layerwise
from metassl_tf.hypergrad.per_example import serial, vectorized
from metassl_tf.models.base import ModelSettings
from metassl_tf.models.convnet import ConvNet
from metassl_tf.models.mlp import MLP
from metassl_tf.models.wide_resnet import WideResNet

EXAMPLES, CLASSES = 4, 3
layers = keras.layers
Losses = Callable[[tf.Tensor], tf.Tensor]


def normal(shape: tuple[int, ...], dtype: str = "float64", seed: int = 1) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def soft_labels(dtype: str = "float64") -> tf.Tensor:
    return tf.constant(np.random.default_rng(2).dirichlet(np.ones(CLASSES), size=EXAMPLES), dtype)


def losses_of_logits(logits: tf.Tensor) -> tf.Tensor:
    """[EXAMPLES]; of logits [EXAMPLES, CLASSES] in float32 or float64."""
    return -tf.reduce_sum(soft_labels(logits.dtype.name) * tf.nn.log_softmax(logits), axis=-1)


def unsettled(model: keras.Model) -> keras.Model:
    """All weights and statistics away from their initial ones and zeros."""
    for number, variable in enumerate(model.variables):
        if variable.dtype.startswith("float"):
            noise = 0.3 * normal(tuple(variable.shape), variable.dtype, seed=number)
            variable.assign(tf.abs(variable + noise) + 0.1 if "variance" in variable.path else variable + noise)
    return model


def by_itself(model: keras.Model, way: Callable[..., list[tf.Tensor]], inputs: Any) -> list[tf.Tensor]:
    """What a way that takes any loss gives, in inference mode."""
    target = soft_labels(model.outputs[0].dtype)

    def loss_of_one(example: tuple[Any, tf.Tensor]) -> tf.Tensor:
        logits = model(tf.nest.map_structure(lambda part: part[tf.newaxis], example[0]), training=False)
        return -tf.reduce_sum(example[1] * tf.nn.log_softmax(logits[0]))

    return way(loss_of_one, model.trainable_variables, (inputs, target))


def assert_close(received: list[tf.Tensor], expected: list[tf.Tensor], tolerance: float) -> None:
    """By the length of the difference, weight for weight and example for example."""
    for ours, theirs in zip(received, expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        difference, length = (
            np.linalg.norm(values.numpy().reshape(EXAMPLES, -1), axis=1) for values in (ours - theirs, theirs)
        )
        assert np.all(length > 0)
        np.testing.assert_array_less(difference, tolerance * length)


@pytest.mark.parametrize(
    "settings", [WideResNet(depth=10, width=1), ConvNet(filters=2), MLP(hidden_units=(6, 5))], ids=lambda s: type(s)
)
def test_the_models_of_the_package(settings: ModelSettings) -> None:
    model = unsettled(settings.build((8, 8, 3), CLASSES))
    inputs = normal((EXAMPLES, 8, 8, 3), "float32")
    received = layerwise(model, losses_of_logits, inputs, training=False)
    assert_close(received, by_itself(model, vectorized, inputs), 1e-5)


IMAGE, GREY_IMAGE = (7, 6, 4), (7, 6, 1)
RULES: dict[str, tuple[tuple[int, ...], Callable[[], keras.layers.Layer]]] = {
    "dense": ((5,), lambda: layers.Dense(6)),
    "dense, no bias, activated": ((5,), lambda: layers.Dense(6, activation="tanh", use_bias=False)),
    "dense at many positions": ((3, 2, 5), lambda: layers.Dense(6, activation="gelu")),
    "dense, softmax": ((5,), lambda: layers.Dense(6, activation="softmax")),
    "same": (IMAGE, lambda: layers.Conv2D(6, 3, padding="same")),
    "valid": (IMAGE, lambda: layers.Conv2D(6, (2, 3), padding="valid", use_bias=False)),
    "1x1": (IMAGE, lambda: layers.Conv2D(6, 1)),
    "1x1, stride": (IMAGE, lambda: layers.Conv2D(6, 1, strides=2, padding="same")),
    "as large as the image": (IMAGE, lambda: layers.Conv2D(6, (7, 6))),
    "larger than the image": (IMAGE, lambda: layers.Conv2D(2, (9, 8), padding="same")),
    "grey": (GREY_IMAGE, lambda: layers.Conv2D(1, 3, padding="same")),
    "same, stride": (IMAGE, lambda: layers.Conv2D(6, 3, strides=2, padding="same")),
    "valid, stride": (IMAGE, lambda: layers.Conv2D(6, 3, strides=2)),
    "same, two strides": (IMAGE, lambda: layers.Conv2D(6, (4, 2), strides=(3, 1), padding="same")),
    "stride beyond the kernel": (IMAGE, lambda: layers.Conv2D(6, 2, strides=3)),
    "dilated": (IMAGE, lambda: layers.Conv2D(6, 3, dilation_rate=(1, 2), padding="same")),
    "dilated, valid": (IMAGE, lambda: layers.Conv2D(6, (3, 2), dilation_rate=2)),
    "grouped": (IMAGE, lambda: layers.Conv2D(6, 3, groups=2, strides=2, padding="same")),
    "grouped, few positions": (IMAGE, lambda: layers.Conv2D(8, (7, 5), groups=2)),
    "few positions": (IMAGE, lambda: layers.Conv2D(8, 3, strides=4, padding="same", use_bias=False)),
    "activated": (IMAGE, lambda: layers.Conv2D(6, 3, activation="swish", padding="same")),
    "depthwise": (IMAGE, lambda: layers.DepthwiseConv2D(3, padding="same", activation="tanh")),
    "depthwise, multiplied": (IMAGE, lambda: layers.DepthwiseConv2D(3, strides=2, depth_multiplier=3)),
    "batch norm": (IMAGE, layers.BatchNormalization),
    "batch norm, no scale": (IMAGE, lambda: layers.BatchNormalization(scale=False)),
    "batch norm, first axis": (IMAGE, lambda: layers.BatchNormalization(axis=1)),
    "batch norm of features": ((5,), lambda: layers.BatchNormalization(center=False)),
}


@pytest.mark.parametrize("name", RULES)
def test_the_rules_in_float64(name: str) -> None:
    shape, make = RULES[name]
    keras.config.set_dtype_policy("float64")
    inputs = keras.Input(shape)
    logits = layers.Dense(CLASSES, trainable=False)(layers.Flatten()(make()(inputs)))
    model = unsettled(keras.Model(inputs, logits))
    examples = normal((EXAMPLES, *shape))
    received = layerwise(model, losses_of_logits, examples, training=False)
    assert len(received) == len(model.trainable_variables) > 0
    assert_close(received, by_itself(model, serial, examples), 1e-10)


def branching() -> keras.Model:
    """Named inputs, a layer used twice, operations without a layer, models within models, frozen and unused layers."""
    keras.config.set_dtype_policy("float64")
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    shared = layers.Dense(4, activation="tanh", name="shared")
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, shared(layers.Dense(4, name="within")(inner_input)), name="inner")
    stack = keras.Sequential([layers.Dense(5, activation="sigmoid"), layers.BatchNormalization()], name="stack")
    frozen = layers.Dense(4, trainable=False, name="frozen")
    features = shared(left) * 2.0 + inner(frozen(right)) - keras.ops.square(inner(shared(left)))
    logits = layers.Dense(CLASSES, name="classifier")(stack(layers.concatenate([features, right])))
    return unsettled(keras.Model({"left": left, "right": right}, logits))


def test_a_network_of_many_parts() -> None:
    model = branching()
    inputs = {"left": normal((EXAMPLES, 4)), "right": normal((EXAMPLES, 4), seed=5)}
    expected = by_itself(model, serial, inputs)
    assert len(expected) == 2 + 2 + 4 + 2
    assert_close(layerwise(model, losses_of_logits, inputs, training=False), expected, 1e-10)


def test_sequential_model() -> None:
    model = unsettled(keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu"), layers.Dense(CLASSES)]))
    inputs = normal((EXAMPLES, 4), "float32")
    received = layerwise(model, losses_of_logits, inputs, training=False)
    assert_close(received, by_itself(model, serial, inputs), 1e-5)


def test_the_model_stays_as_it_was() -> None:
    model = ConvNet(filters=2).build((8, 8, 1), CLASSES)
    outputs = [layer.output for layer in model.layers]
    values = [np.array(variable) for variable in model.variables]
    layerwise(model, losses_of_logits, normal((EXAMPLES, 8, 8, 1), "float32"), training=False)
    # A layer that was called a second time would have no one output.
    assert all(layer.output is output for layer, output in zip(model.layers, outputs, strict=True))
    for variable, value in zip(model.variables, values, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_weights_without_influence_have_zeros() -> None:
    inputs = keras.Input((4,))
    hidden = layers.Dense(2)(inputs)
    model = keras.Model(inputs, [layers.Dense(CLASSES)(hidden), layers.Dense(2, name="other")(hidden)])
    received = layerwise(
        model, lambda outputs: losses_of_logits(outputs[0]), normal((EXAMPLES, 4), "float32"), training=False
    )
    assert [float(tf.reduce_sum(tf.abs(part))) > 0 for part in received] == [True] * 4 + [False] * 2
    assert received[4].shape == (EXAMPLES, 2, 2)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_a_graph(jit_compile: bool) -> None:
    images = keras.Input((8, 8, 1))
    features = layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2, activation="relu", padding="same")(images))
    model = unsettled(keras.Model(images, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(features))))
    inputs = normal((EXAMPLES, 8, 8, 1), "float32")

    @tf.function(jit_compile=jit_compile, input_signature=[tf.TensorSpec([None, 8, 8, 1])])
    def gradients(inputs: tf.Tensor) -> list[tf.Tensor]:
        return layerwise(model, losses_of_logits, inputs, training=False)

    assert_close(gradients(inputs), layerwise(model, losses_of_logits, inputs, training=False), 1e-5)


def test_at_given_parameters() -> None:
    model = unsettled(ConvNet(filters=2).build((8, 8, 1), CLASSES))
    inputs = normal((EXAMPLES, 8, 8, 1), "float32")
    elsewhere = [(variable, 1.1 * variable.value + 0.05) for variable in model.variables]
    with keras.StatelessScope(state_mapping=elsewhere):
        received = layerwise(model, losses_of_logits, inputs, training=False)
    for variable, value in elsewhere:
        variable.assign(value)
    assert_close(received, by_itself(model, serial, inputs), 1e-5)


def test_lower_precision_within_the_network() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = unsettled(ConvNet(filters=2).build((8, 8, 1), CLASSES))
    inputs = normal((EXAMPLES, 8, 8, 1), "float32")
    received = layerwise(model, losses_of_logits, inputs, training=False)
    # bfloat16 has 8 bits; both sides round, and at different places.
    assert_close(received, by_itself(model, serial, inputs), 16 * 2**-8)


def with_dropout() -> tuple[keras.Model, keras.Variable]:
    """A network with dropout in a model within it, and the state of its random numbers."""
    inputs = keras.Input((6,))
    dropout = layers.Dropout(0.5, seed=3)
    hidden = keras.Sequential([layers.Dense(20, activation="relu"), dropout])(inputs)
    return unsettled(keras.Model(inputs, layers.Dense(CLASSES)(hidden))), dropout.seed_generator.state


def test_training_mode_draws_dropout_once() -> None:
    model, state = with_dropout()
    inputs = normal((EXAMPLES, 6), "float32")
    before = tf.identity(state.value)
    received = layerwise(model, losses_of_logits, inputs, training=True)
    state.assign(before)
    with tf.GradientTape() as tape:
        losses = losses_of_logits(model(inputs, training=True))
    expected = tape.jacobian(losses, [variable.value for variable in model.trainable_variables])
    assert_close(received, expected, 1e-5)
    inference = layerwise(model, losses_of_logits, inputs, training=False)
    assert float(tf.reduce_max(tf.abs(received[0] - inference[0]))) > 0.01


def test_training_mode_needs_examples_that_do_not_meet() -> None:
    model = ConvNet(filters=2).build((8, 8, 1), CLASSES)
    inputs = normal((EXAMPLES, 8, 8, 1), "float32")
    with pytest.raises(UserError, match=r"the layer stage1_1_bn makes .* Use training=False"):
        layerwise(model, losses_of_logits, inputs, training=True)
    for layer in model.layers:
        layer.trainable = not isinstance(layer, layers.BatchNormalization)
    assert_close(
        layerwise(model, losses_of_logits, inputs, training=True), by_itself(model, serial, inputs), 1e-5
    )  # frozen batch normalisation uses the moving statistics


def test_layers_without_a_rule() -> None:
    inputs = keras.Input((4,))
    normalized = layers.LayerNormalization(name="norm")
    model = keras.Model(inputs, layers.Dense(CLASSES)(normalized(inputs)))
    with pytest.raises(UserError, match=r"the layer norm \(LayerNormalization\).* Dense, Conv2D, DepthwiseConv2D, Bat"):
        layerwise(model, losses_of_logits, normal((EXAMPLES, 4), "float32"), training=False)
    normalized.trainable = False
    assert len(layerwise(model, losses_of_logits, normal((EXAMPLES, 4), "float32"), training=False)) == 2


def test_channels_have_to_be_last() -> None:
    inputs = keras.Input((2, 6, 6))
    features = layers.Conv2D(3, 3, data_format="channels_first", name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(CLASSES)(layers.Flatten()(features)))
    with pytest.raises(UserError, match=r"the layer first with data_format=channels_first"):
        layerwise(model, losses_of_logits, normal((EXAMPLES, 2, 6, 6), "float32"), training=False)


def test_weights_that_a_layer_of_its_kind_has_not() -> None:
    inputs = keras.Input((4,))
    dense = layers.Dense(CLASSES, name="adapted")
    model = keras.Model(inputs, dense(inputs))
    dense.enable_lora(2)
    with pytest.raises(UserError, match=r"the weight .*lora"):
        layerwise(model, losses_of_logits, normal((EXAMPLES, 4), "float32"), training=False)


def test_models_that_are_not_a_graph() -> None:
    class Written(keras.Model):
        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return inputs

    with pytest.raises(UserError, match=r"Received written \(Written\)"):
        layerwise(Written(), losses_of_logits, normal((EXAMPLES, CLASSES)), training=False)


def test_one_loss_per_example() -> None:
    model = MLP().build((4,), CLASSES)
    with pytest.raises(UserError, match=r"Expected shape \[batch\]. Received \(\)"):
        layerwise(
            model,
            lambda logits: tf.reduce_mean(losses_of_logits(logits)),
            normal((EXAMPLES, 4), "float32"),
            training=False,
        )
