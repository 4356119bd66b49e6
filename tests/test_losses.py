"""Losses against NumPy, their gradients against finite differences, and gradients of gradients through soft labels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf import losses

BATCH, CLASSES = 5, 4
LOSSES = (losses.cross_entropy, losses.kl_divergence, losses.squared_error)


@pytest.fixture
def logits() -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(scale=2.0, size=(BATCH, CLASSES)))


@pytest.fixture
def target() -> tf.Tensor:
    return tf.constant(np.random.default_rng(1).dirichlet(np.ones(CLASSES), size=BATCH))


def log_probabilities(logits: tf.Tensor) -> np.ndarray:
    values = logits.numpy()
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def probabilities_of(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values)
    return powers / powers.sum(axis=1, keepdims=True)


def test_cross_entropy_is_minus_the_expected_log_probability(logits: tf.Tensor, target: tf.Tensor) -> None:
    expected = [
        -sum(q * log_p for q, log_p in zip(row, log_row, strict=True))
        for row, log_row in zip(target.numpy(), log_probabilities(logits), strict=True)
    ]
    np.testing.assert_allclose(losses.cross_entropy(target, logits), expected, rtol=1e-12)


def test_kl_divergence_is_the_expected_log_ratio(logits: tf.Tensor, target: tf.Tensor) -> None:
    expected = [
        sum(q * (np.log(q) - log_p) for q, log_p in zip(row, log_row, strict=True))
        for row, log_row in zip(target.numpy(), log_probabilities(logits), strict=True)
    ]
    np.testing.assert_allclose(losses.kl_divergence(target, logits), expected, rtol=1e-10)


def test_kl_divergence_from_itself_is_zero(logits: tf.Tensor) -> None:
    np.testing.assert_allclose(losses.kl_divergence(tf.nn.softmax(logits), logits), np.zeros(BATCH), atol=1e-14)


def test_squared_error_is_that_of_the_probabilities(logits: tf.Tensor, target: tf.Tensor) -> None:
    expected = np.square(np.exp(log_probabilities(logits)) - target.numpy()).sum(axis=1)
    np.testing.assert_allclose(losses.squared_error(target, logits), expected, rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_equal_finite_differences(
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], logits: tf.Tensor, target: tf.Tensor
) -> None:
    weights = tf.constant(np.random.default_rng(2).normal(size=BATCH))
    given = [target, logits]
    with tf.GradientTape() as tape:
        tape.watch(given)
        total = tf.reduce_sum(weights * loss(*given))
    for position, gradient in enumerate(tape.gradient(total, given)):
        for index in np.ndindex(BATCH, CLASSES):
            step = np.zeros((BATCH, CLASSES))
            step[index] = 1e-6
            ahead, behind = (
                tf.reduce_sum(
                    weights * loss(*(value + sign * step * (at == position) for at, value in enumerate(given)))
                )
                for sign in (1, -1)
            )
            assert float(gradient[index]) == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.kl_divergence])
def test_gradient_of_the_gradient_reaches_the_target(
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], logits: tf.Tensor, target: tf.Tensor
) -> None:
    """d/dq of <dH/dz, v> is -(v - <p, v>) for rows q that sum to 1; TensorFlow's own cross-entropy says it is zero."""
    direction = tf.constant(np.random.default_rng(3).normal(size=(BATCH, CLASSES)))
    with tf.GradientTape() as outer:
        outer.watch(target)
        with tf.GradientTape() as inner:
            inner.watch(logits)
            total = tf.reduce_sum(loss(target, logits))
        projection = tf.reduce_sum(inner.gradient(total, logits) * direction)
    mean = tf.reduce_sum(tf.nn.softmax(logits) * direction, axis=1, keepdims=True)
    np.testing.assert_allclose(outer.gradient(projection, target), mean - direction, rtol=1e-10)


def test_zero_entries_of_the_target_add_nothing_and_stay_finite(logits: tf.Tensor) -> None:
    target = tf.one_hot([0, 1, 2, 3, 0], CLASSES, dtype=tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([target, logits])
        divergence = losses.kl_divergence(target, logits)
    np.testing.assert_allclose(divergence, losses.cross_entropy(target, logits), rtol=1e-12)
    for given in (target, logits):
        assert np.isfinite(tape.gradient(divergence, given)).all()


def test_curvature_of_the_squared_error_is_that_of_gauss_and_newton(logits: tf.Tensor, target: tf.Tensor) -> None:
    """2 J^T J, and not the Hessian, which has a negative direction here."""
    with tf.GradientTape() as outer:
        outer.watch(logits)
        with tf.GradientTape() as inner:
            inner.watch(logits)
            total = tf.reduce_sum(losses.squared_error(target, logits))
        slope = inner.gradient(total, logits)
    found = outer.batch_jacobian(slope, logits).numpy()
    probabilities = np.exp(log_probabilities(logits))
    for row in range(BATCH):
        jacobian = np.diag(probabilities[row]) - np.outer(probabilities[row], probabilities[row])
        np.testing.assert_allclose(found[row], 2 * jacobian.T @ jacobian, rtol=1e-10, atol=1e-14)

    def slope_at(values: np.ndarray) -> np.ndarray:
        errors = 2 * (probabilities_of(values) - target.numpy())
        inner_products = (probabilities_of(values) * errors).sum(axis=1, keepdims=True)
        return probabilities_of(values) * (errors - inner_products)

    steps = 1e-6 * np.eye(CLASSES)
    hessians = np.stack([(slope_at(logits + step) - slope_at(logits - step)) / 2e-6 for step in steps], axis=1)
    assert min(np.linalg.eigvalsh(hessian)[0] for hessian in hessians) < -1e-2


def test_gradient_of_the_squared_error_s_gradient_reaches_the_target(logits: tf.Tensor, target: tf.Tensor) -> None:
    """d/dq of <dL/dz, v> is -2 J v."""
    direction = tf.constant(np.random.default_rng(3).normal(size=(BATCH, CLASSES)))
    with tf.GradientTape() as outer:
        outer.watch(target)
        with tf.GradientTape() as inner:
            inner.watch(logits)
            total = tf.reduce_sum(losses.squared_error(target, logits))
        projection = tf.reduce_sum(inner.gradient(total, logits) * direction)
    probabilities = np.exp(log_probabilities(logits))
    along = probabilities * (direction - (probabilities * direction).numpy().sum(axis=1, keepdims=True))
    np.testing.assert_allclose(outer.gradient(projection, target), -2 * along, rtol=1e-10)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.kl_divergence])
def test_extreme_logits_stay_finite(loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> None:
    logits = tf.constant([[1e4, -1e4], [-1e4, 1e4]])
    target = tf.constant([[1.0, 0.0], [1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = loss(target, logits)
    np.testing.assert_allclose(values, [0.0, 2e4])
    assert np.isfinite(tape.gradient(values, logits)).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_labels_sum_to_one(smoothing: float) -> None:
    """1 - d + d / C for the class itself; "Meta Pseudo Labels", version 1, prints 1 - d + 1 / C."""
    labels = tf.constant([2, 0], tf.int64)
    rows = losses.smooth_one_hot(labels, CLASSES, smoothing=smoothing, dtype=tf.float64).numpy()
    expected = np.full((2, CLASSES), smoothing / CLASSES)
    expected[[0, 1], [2, 0]] = 1 - smoothing + smoothing / CLASSES
    np.testing.assert_allclose(rows, expected, rtol=1e-12)
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_smoothed_labels_have_the_dtype_asked_for(dtype: tf.DType) -> None:
    assert losses.smooth_one_hot(tf.constant([1]), CLASSES, smoothing=0.1, dtype=dtype).dtype == dtype


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_sharpening_raises_probabilities_to_the_inverse_temperature(logits: tf.Tensor, temperature: float) -> None:
    powers = np.exp(log_probabilities(logits)) ** (1 / temperature)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(losses.sharpen(logits, temperature), expected, rtol=1e-10)


@pytest.mark.parametrize("call", LOSSES)
def test_nothing_is_reduced_over_the_batch(call: Callable[..., Any], logits: tf.Tensor, target: tf.Tensor) -> None:
    whole = call(target, logits)
    assert whole.shape == [BATCH]
    for row in range(BATCH):
        np.testing.assert_allclose(call(target[row : row + 1], logits[row : row + 1]), whole[row : row + 1], rtol=1e-12)
