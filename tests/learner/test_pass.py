"""The forward passes of a step: joint batches, moving statistics, averaged weights, dropout's seeds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.learner.dropout import make_omittable, omitted
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.passes import Pass
from tests.learner import tiny


@pytest.fixture
def inputs() -> dict[str, tf.Tensor]:
    generator = np.random.default_rng(0)
    return {
        "labeled": tf.constant(generator.normal(size=(3, tiny.FEATURES)), tf.float32),
        "unlabeled": tf.constant(generator.normal(size=(5, tiny.FEATURES)), tf.float32),
    }


@pytest.fixture
def learner() -> Learner:
    return Learner(tiny.network(batch_norm=True), tiny.optimization(), seed=0)


def begin(learner: Learner, step: int = 0) -> Pass:
    return learner.begin(tf.constant(step, tf.int64))


def test_pass_is_keras_training_call_on_the_joint_batch(learner: Learner, inputs: dict[str, tf.Tensor]) -> None:
    forward = begin(learner)
    logits = forward(inputs)
    untouched = [variable.numpy() for variable in learner.model.non_trainable_variables]

    reference = tiny.network(batch_norm=True)
    joint = reference(tf.concat([inputs["labeled"], inputs["unlabeled"]], axis=0), training=True)
    np.testing.assert_allclose(tf.concat([logits["labeled"], logits["unlabeled"]], axis=0), joint, rtol=1e-6)
    for statistic, expected in zip(forward.new_statistics, reference.non_trainable_variables, strict=True):
        np.testing.assert_allclose(statistic, expected.numpy(), rtol=1e-6)
        assert np.abs(expected.numpy() - (expected.name == "moving_variance")).max() > 0.01

    # Only the update writes them, and what it writes is what Keras would have.
    for variable, fresh in zip(learner.model.non_trainable_variables, untouched, strict=True):
        np.testing.assert_array_equal(variable.numpy(), fresh)
    gradients = [tf.zeros(variable.shape) for variable in learner.trainable_variables]
    learner.update(gradients, forward.new_statistics, step=tf.constant(0, tf.int64))
    for variable, expected in zip(
        learner.model.non_trainable_variables, reference.non_trainable_variables, strict=True
    ):
        np.testing.assert_allclose(variable.numpy(), expected.numpy(), rtol=1e-6)


def test_dropout_alone_can_be_left_out(inputs: dict[str, tf.Tensor]) -> None:
    """Batch normalisation trains on; a pass that was asked for it drops as before."""
    learner, plain = (
        Learner(tiny.network(batch_norm=True, dropout=rate), tiny.optimization(), seed=0) for rate in (0.5, 0.0)
    )
    for own, other in zip(plain.trainable_variables, learner.trainable_variables, strict=True):
        own.assign(other)
    step, expected = tf.constant(0, tf.int64), begin(plain)(inputs)["labeled"]
    without = learner.begin(step, with_dropout=False)(inputs)["labeled"]
    np.testing.assert_allclose(without, expected, rtol=1e-6)
    dropped, again = (begin(learner)(inputs)["labeled"].numpy() for _ in range(2))
    assert np.abs(dropped - expected).max() > 0.1
    np.testing.assert_array_equal(dropped, again)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Dropout(0.5),
        keras.layers.SpatialDropout1D(0.5),
        keras.layers.GaussianDropout(0.5),
        keras.layers.AlphaDropout(0.5),
        keras.layers.GaussianNoise(1.0),
    ],
    ids=lambda layer: layer.name,
)
def test_every_kind_of_noise_of_keras_can_be_left_out(layer: keras.layers.Layer) -> None:
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, layer(inputs))
    make_omittable(model)
    images = tf.ones([2, 3, 4])
    with omitted():
        np.testing.assert_array_equal(model(images, training=True), images)
    assert np.abs(model(images, training=True) - images).max() > 0.1
    np.testing.assert_array_equal(model(images, training=False), images)


def test_second_update_of_the_statistics_is_refused(learner: Learner, inputs: dict[str, tf.Tensor]) -> None:
    forward = begin(learner)
    forward(inputs, update_statistics=False)
    forward(inputs)
    forward(inputs, update_statistics=False)
    with pytest.raises(ValueError, match="expected exactly one"):
        forward(inputs)


def test_pass_without_update_leaves_the_statistics(learner: Learner, inputs: dict[str, tf.Tensor]) -> None:
    forward = begin(learner)
    logits = forward(inputs, update_statistics=False)
    for statistic, variable in zip(forward.new_statistics, learner.model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(statistic, variable.numpy())
    np.testing.assert_array_equal(logits["labeled"], forward(inputs)["labeled"])  # the batch's statistics all the same


def test_inputs_may_be_dicts_of_tensors() -> None:
    parts = {name: keras.Input((2,), name=name) for name in ("a", "b")}
    model = keras.Model(parts, keras.layers.Dense(2)(keras.layers.Concatenate()([parts["a"], parts["b"]])))
    given = {name: {"a": tf.random.normal([size, 2]), "b": tf.ones([size, 2])} for name, size in (("x", 2), ("y", 3))}
    logits = begin(Learner(model, tiny.optimization(), seed=0))(given)
    for name, values in given.items():
        np.testing.assert_allclose(logits[name], model(values), rtol=1e-6)


def test_logits_are_float32_under_any_policy(inputs: dict[str, tf.Tensor]) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    logits = begin(Learner(tiny.network(), tiny.optimization(), seed=0))(inputs)
    assert logits["labeled"].dtype == tf.float32


UNITS = 64


def masks_of(learner: Learner, *, step: int = 0, passes: int = 1) -> np.ndarray:
    """Which units the two dropout layers drop in the last of some passes, bool [2 * UNITS]."""
    forward = begin(learner, step)
    for _ in range(passes):
        logits = forward({"ones": tf.ones([1, UNITS])}, update_statistics=False)["ones"]
    return logits[0].numpy() == 0


def dropout_learner(*, seed: int = 0) -> Learner:
    inputs = keras.Input((UNITS,))
    return Learner(
        keras.Model(inputs, keras.layers.Concatenate()([keras.layers.Dropout(0.5)(inputs) for _ in range(2)])),
        tiny.optimization(),
        seed=seed,
    )


def test_dropout_is_a_function_of_seed_and_step() -> None:
    keras.utils.set_random_seed(1)
    first = dropout_learner()
    mask = masks_of(first, step=3)
    keras.utils.set_random_seed(2)
    for learner in (first, dropout_learner()):
        np.testing.assert_array_equal(masks_of(learner, step=3), mask)


def test_dropout_differs_between_seeds_steps_passes_and_layers() -> None:
    learner = dropout_learner()
    masks = [
        masks_of(learner),
        masks_of(learner, step=1),
        masks_of(learner, passes=2),
        masks_of(dropout_learner(seed=1)),
    ]
    layers = [half for mask in masks for half in (mask[:UNITS], mask[UNITS:])]
    assert len({half.tobytes() for half in layers}) == len(layers)
    assert 0.4 < np.mean(layers) < 0.6


def test_dropout_leaves_the_seed_states_of_keras() -> None:
    learner = dropout_learner()
    before = [variable.numpy() for variable in learner.model.non_trainable_variables]
    masks_of(learner, passes=2)
    for variable, value in zip(learner.model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_dropout_differs_between_replicas(mirrored: tf.distribute.Strategy) -> None:
    with mirrored.scope():
        learner = dropout_learner()

    @tf.function
    def masks(step: tf.Tensor) -> list[tf.Tensor]:
        def one() -> tf.Tensor:
            return learner.begin(step)({"ones": tf.ones([1, UNITS])})["ones"]

        return mirrored.experimental_local_results(mirrored.run(one))

    first, second = masks(tf.constant(0, tf.int64))
    assert np.any(first.numpy() != second.numpy())
    np.testing.assert_array_equal(first[0].numpy() == 0, masks_of(dropout_learner()))  # the first is as on one device
