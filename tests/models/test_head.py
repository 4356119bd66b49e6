"""Which models end in a last layer that closed forms may speak of, and what is split off there."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.models.base import ModelSettings
from metassl_tf.models.head import find_head

layers = keras.layers


def functional(end: Callable[[keras.KerasTensor], keras.KerasTensor], features: int = 4) -> keras.Model:
    inputs = keras.Input((3,))
    return keras.Model(inputs, end(layers.Dense(features, activation="tanh")(inputs)))


def assert_split(model: keras.Model, values: np.ndarray) -> None:
    """Features and head together are the model, in training as well; the head's variables are the model's last."""
    head, inputs = find_head(model), tf.nest.map_structure(tf.constant, values)
    assert head is not None
    features, logits = head.probe(inputs)
    assert features.shape == (5, head.kernel.shape[0])
    outputs = features @ head.kernel.value + (0.0 if head.bias is None else head.bias.value)
    np.testing.assert_allclose(head.logits_of(outputs), logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(logits, model(inputs))
    with keras.StatelessScope():
        in_training = head.probe(inputs, training=True)[1]
    with keras.StatelessScope():
        np.testing.assert_array_equal(in_training, model(inputs, training=True))
    count = len(head.parameters)
    assert [id(own) for own in head.parameters] == [id(last) for last in model.trainable_variables[-count:]]


@pytest.mark.parametrize("small_model_name", ["mlp", "convnet", "wide_resnet"], indirect=True)
def test_own_models(small_settings: ModelSettings, images: Callable[..., np.ndarray]) -> None:
    model = small_settings.build((8, 8, 1), 3)
    assert_split(model, images(5, 8, 8, 1))
    assert [variable.path for variable in find_head(model).parameters] == ["classifier/kernel", "classifier/bias"]


@pytest.mark.parametrize(
    "model",
    [
        lambda: functional(layers.Dense(2, use_bias=False)),
        lambda: functional(lambda x: layers.Dense(2)(layers.BatchNormalization()(x))),
        lambda: functional(lambda x: layers.Rescaling(0.5)(layers.ReLU()(layers.Dense(2)(x)))),
        lambda: functional(lambda x: layers.Concatenate()([(z := layers.Dense(1)(x)), layers.Rescaling(-1.0)(z)])),
        lambda: keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(2)]),
        lambda: keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(2), layers.Activation("tanh")]),
        lambda: keras.Model(**nested()),
    ],
    ids=["no bias", "batch norm", "weightless layers", "one logit", "sequential", "sequential, weightless", "nested"],
)
def test_models_with_a_head(model: Callable[[], keras.Model], images: Callable[..., np.ndarray]) -> None:
    assert_split(model(), images(5, 3))


def nested() -> dict[str, keras.KerasTensor]:
    """A body that is a model of its own."""
    inputs = keras.Input((3,))
    return {"inputs": inputs, "outputs": layers.Dense(2)(functional(layers.BatchNormalization())(inputs))}


def test_sequential_that_was_built_by_its_first_call(images: Callable[..., np.ndarray]) -> None:
    model = keras.Sequential([layers.Dense(4), layers.Dense(2)])
    assert find_head(model) is None
    model(images(5, 3))
    assert_split(model, images(5, 3))


def test_inputs_keep_their_names(images: Callable[..., np.ndarray]) -> None:
    parts = {name: keras.Input((3,), name=name) for name in ("tokens", "mask")}  # not in the order of the alphabet
    model = keras.Model(parts, layers.Dense(2)(layers.Subtract()([parts["tokens"], parts["mask"]])))
    assert_split(model, {"mask": 2 * images(5, 3), "tokens": images(5, 3)})


class Subclassed(keras.Model):
    """A model whose graph is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.dense(inputs)


class Negative(keras.Model):
    """A functional model whose own call is not that of its graph."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return -super().call(inputs, training=training)


class PlainSubclass(keras.Model):
    """A functional model by another name."""


def shared(times: int) -> keras.Model:
    """One Dense layer, applied again and again."""
    dense = layers.Dense(4)

    def end(features: keras.KerasTensor) -> keras.KerasTensor:
        for _ in range(times):
            features = layers.ReLU()(dense(features))
        return features

    return functional(end)


def frozen() -> keras.Model:
    model = functional(layers.Dense(2))
    model.layers[-1].trainable = False
    return model


def over_positions() -> keras.Model:
    inputs = keras.Input((5, 3))
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.Dense(2)(inputs)))


@pytest.mark.parametrize(
    "model",
    [
        lambda: functional(layers.Dense(2, activation="tanh")),
        lambda: functional(lambda x: layers.BatchNormalization()(layers.Dense(2)(x))),
        # Its moving statistics are variables, though nothing of it is trained.
        lambda: functional(lambda x: layers.BatchNormalization(center=False, scale=False)(layers.Dense(2)(x))),
        # It would have to be drawn again.
        lambda: functional(lambda x: layers.Dropout(0.5)(layers.Dense(2)(x))),
        lambda: shared(2),
        lambda: functional(lambda x: layers.Average()([(d := layers.Dense(2))(x), d(layers.ReLU()(x))])),
        lambda: functional(lambda x: layers.Add()([x, layers.Dense(4)(x)])),
        lambda: functional(layers.ReLU()),
        frozen,
        over_positions,
        Subclassed,
        lambda: Negative(**nested()),
    ],
    ids=[
        "activation",
        "batch norm behind",
        "untrained batch norm behind",
        "dropout behind",
        "shared, one after the other",
        "shared, side by side",
        "not alone",
        "activation of an inner layer",
        "frozen",
        "a row per position",
        "subclass",
        "own call",
    ],
)
def test_models_without_a_head(model: Callable[[], keras.Model]) -> None:
    built = model()
    if isinstance(built, Subclassed):
        built(tf.zeros([1, 3]))
    assert find_head(built) is None


def test_layer_used_once_and_functional_subclass_have_a_head(images: Callable[..., np.ndarray]) -> None:
    assert_split(shared(1), images(5, 3))
    assert_split(PlainSubclass(**nested()), images(5, 3))
