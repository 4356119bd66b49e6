"""Per-example gradients of any loss, against softmax regression in closed form."""

import logging
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.hypergrad.per_example import serial, vectorized

EXAMPLES, FEATURES, CLASSES = 5, 4, 3
WAYS = pytest.mark.parametrize("way", [vectorized, serial])
Way = Callable[..., list[tf.Tensor]]


def regression(dtype: str) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Parameters, and examples as a nest."""
    generator = np.random.default_rng(0)
    parameters = [generator.normal(size=shape).astype(dtype) for shape in ((FEATURES, CLASSES), (CLASSES,))]
    features = generator.normal(size=(EXAMPLES, FEATURES)).astype(dtype)
    target = generator.dirichlet(np.ones(CLASSES), size=EXAMPLES).astype(dtype)
    return parameters, {"features": features, "target": target}


def loss_by(kernel: Any, bias: Any) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    def loss_of_one(example: dict[str, tf.Tensor]) -> tf.Tensor:
        assert example["features"].shape == (FEATURES,)
        logits = tf.linalg.matvec(kernel, example["features"], transpose_a=True) + bias
        return -tf.reduce_sum(example["target"] * tf.nn.log_softmax(logits))

    return loss_of_one


def expected(parameters: list[np.ndarray], examples: dict[str, np.ndarray]) -> list[np.ndarray]:
    """x (p - q)^T and p - q."""
    exponentials = np.exp(examples["features"] @ parameters[0] + parameters[1])
    residual = exponentials / exponentials.sum(axis=1, keepdims=True) - examples["target"]
    return [examples["features"][:, :, np.newaxis] * residual[:, np.newaxis, :], residual]


@WAYS
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-13)])
@pytest.mark.parametrize("kind", ["TensorFlow", "Keras", "tensors"])
def test_softmax_regression(way: Way, dtype: str, tolerance: float, kind: str) -> None:
    make = {"TensorFlow": tf.Variable, "Keras": keras.Variable, "tensors": tf.constant}[kind]
    values, examples = regression(dtype)
    parameters = [make(value, dtype=dtype) for value in values]
    loss = loss_by(*[part.value if kind == "Keras" else part for part in parameters])
    for run in (way, lambda *arguments: tf.function(lambda: way(*arguments))()):
        received = run(loss, parameters, examples)
        for ours, truth in zip(received, expected(values, examples), strict=True):
            assert ours.dtype == dtype
            np.testing.assert_allclose(ours, truth, rtol=tolerance, atol=tolerance)


@WAYS
def test_any_batch_size_and_tensors_of_the_surrounding_graph(way: Way) -> None:
    values, examples = regression("float64")
    signature = {name: tf.TensorSpec([None, *value.shape[1:]], tf.float64) for name, value in examples.items()}

    @tf.function(input_signature=[signature])
    def gradients(batch: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        parameters = [2.0 * tf.constant(value / 2.0) for value in values]
        return way(loss_by(*parameters), parameters, batch)

    received = gradients({name: tf.constant(value[:3]) for name, value in examples.items()})
    for ours, truth in zip(received, expected(values, examples), strict=True):
        np.testing.assert_allclose(ours, truth[:3], rtol=1e-12)


@WAYS
def test_no_influence_is_zero_and_rows_of_a_table_are_dense(way: Way) -> None:
    table, other = tf.Variable(tf.ones([4, 2])), tf.Variable([1.0, 2.0])
    received = way(lambda row: 3.0 * tf.reduce_sum(tf.gather(table, row)), [table, other], tf.constant([2, 0]))
    one_hot = np.eye(4)[[2, 0]]
    np.testing.assert_array_equal(received[0], 3.0 * one_hot[:, :, np.newaxis] * np.ones(2))
    np.testing.assert_array_equal(received[1], np.zeros([2, 2]))


def test_convolutions_are_vectorized_without_a_word() -> None:
    messages: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Keeper()
    logger = tf.get_logger()
    filters = list(logger.filters)
    kernel = tf.Variable(tf.random.stateless_normal([3, 3, 2, 4], [0, 0], dtype=tf.float64, alg="philox"))
    images = tf.random.stateless_normal([3, 6, 6, 2], [0, 1], dtype=tf.float64, alg="philox")

    def loss_of_one(image: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.nn.conv2d(image[tf.newaxis], kernel, 1, "SAME") ** 2)

    logger.addHandler(handler)
    try:
        received = vectorized(loss_of_one, [kernel], images)
        logger.warning("other news")
    finally:
        logger.removeHandler(handler)
    assert messages == ["other news"]
    assert logger.filters == filters
    np.testing.assert_allclose(received[0], serial(loss_of_one, [kernel], images)[0], rtol=1e-12)
