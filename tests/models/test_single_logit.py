"""One logit z reaches the losses as (+z/2, -z/2): the same loss and accuracy as two logits, and plain Keras layers."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf import losses
from metassl_tf.errors import UserError
from metassl_tf.models.build import build_model
from metassl_tf.models.head import find_head

INPUTS = tf.constant(np.random.default_rng(0).normal(size=(6, 2)), tf.float32)
LABEL = tf.constant([0, 1, 1, 0, 1, 0])


def single() -> keras.Model:
    return build_model("mlp", None, (2,), 2, single_logit=True)


def two_logits_like(model: keras.Model) -> keras.Model:
    """The two-logit network that computes the same: its last kernel is (+k/2, -k/2)."""
    network = build_model("mlp", None, (2,), 2)
    *hidden, kernel, bias = (variable.numpy() for variable in model.trainable_variables)
    for variable, value in zip(
        network.trainable_variables,
        [*hidden, np.hstack([kernel / 2, -kernel / 2]), np.hstack([bias / 2, -bias / 2])],
        strict=True,
    ):
        variable.assign(value)
    return network


def test_loss_and_predictions_are_those_of_two_logits() -> None:
    model = single()
    for variable in model.trainable_variables:
        variable.assign_add(0.3 * tf.ones_like(variable))
    other = two_logits_like(model)
    target = tf.one_hot(LABEL, 2)
    found, expected = (losses.cross_entropy(target, network(INPUTS)) for network in (model, other))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(tf.argmax(model(INPUTS), axis=1), tf.argmax(other(INPUTS), axis=1))


def test_cross_entropy_is_that_of_the_sigmoid() -> None:
    model = single()
    head = find_head(model)
    assert head is not None
    assert head.kernel.shape[1] == 1
    features, logits = head.probe(INPUTS)
    z = (features @ head.kernel.value + head.bias.value)[:, 0]
    np.testing.assert_allclose(logits, tf.stack([z / 2, -z / 2], axis=1), rtol=1e-6)
    np.testing.assert_allclose(head.logits_of(features @ head.kernel.value + head.bias.value), logits, rtol=1e-6)
    # Class 0 is the one with +z/2: its probability is the sigmoid of z.
    expected = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.cast(LABEL == 0, tf.float32), logits=z)
    np.testing.assert_allclose(losses.cross_entropy(tf.one_hot(LABEL, 2), logits), expected, rtol=1e-5)


def test_saved_model_is_plain_keras(tmp_path: Path) -> None:
    model = single()
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(restored(INPUTS), model(INPUTS))
    assert {type(layer).__module__.split(".")[0] for layer in restored.layers} == {"keras"}


def test_more_classes_are_refused() -> None:
    with pytest.raises(UserError, match=r"--single_logit tells two classes apart, and there are 3"):
        build_model("mlp", None, (2,), 3, single_logit=True)
