"""Logistic regression on digits that is really retrained: what every influence is compared with."""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from metassl_tf.hypergrad.products import Vector

TRAINING, VALIDATION, CLASSES = 200, 100, 10
L2 = 0.02


@functools.cache
def data() -> dict[str, tf.Tensor]:
    """Features with a trailing 1 and one-hot labels of training and validation digits, weights around 1; float64."""
    features, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(labels))
    features = np.concatenate([features / 16, np.ones([len(labels), 1])], axis=1)[order]
    targets = np.eye(CLASSES)[labels[order]]
    return {
        "features": tf.constant(features[:TRAINING]),
        "target": tf.constant(targets[:TRAINING]),
        "validation_features": tf.constant(features[-VALIDATION:]),
        "validation_target": tf.constant(targets[-VALIDATION:]),
        "weights": tf.constant(np.random.RandomState(1).uniform(0.0, 2.0, TRAINING)),
    }


def cross_entropies(matrix: tf.Tensor, features: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """[examples]."""
    return -tf.reduce_sum(target * tf.nn.log_softmax(features @ matrix), axis=1)


def contributions(at: Vector) -> tf.Tensor:
    """What each training example adds to the loss at a weight of 1, [TRAINING]."""
    return cross_entropies(at[0], data()["features"], data()["target"]) / TRAINING


def training_loss(weights: tf.Tensor) -> Callable[[Vector], tf.Tensor]:
    """The loss that is minimised: a weighted mean and L2."""
    return lambda at: tf.reduce_sum(weights * contributions(at)) + 0.5 * L2 * tf.reduce_sum(at[0] ** 2)


def validation_loss(at: Vector) -> tf.Tensor:
    """The outer loss."""
    return tf.reduce_mean(cross_entropies(at[0], data()["validation_features"], data()["validation_target"]))


def optimum(weights: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """The minimum of the training loss by Newton's method in NumPy, to rounding."""
    features, target = data()["features"].numpy(), data()["target"].numpy()
    shares, matrix = weights.numpy() / TRAINING, start.numpy()
    for _ in range(30):
        logits = features @ matrix
        probability = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        slope = features.T @ (shares[:, None] * (probability - target)) + L2 * matrix
        if np.linalg.norm(slope) < 1e-14:
            return tf.constant(matrix)
        curvature = probability[:, :, None] * (np.eye(CLASSES) - probability[:, None, :])
        weighted = (shares[:, None, None] * curvature).reshape(TRAINING, -1)
        outer = (features[:, :, None] * features[:, None, :]).reshape(TRAINING, -1)
        blocks = (outer.T @ weighted).reshape(*[features.shape[1]] * 2, CLASSES, CLASSES)
        hessian = blocks.transpose(0, 2, 1, 3).reshape(matrix.size, matrix.size) + L2 * np.eye(matrix.size)
        matrix = matrix - np.linalg.solve(hessian, slope.reshape(-1)).reshape(matrix.shape)
    raise AssertionError(f"Newton's method did not converge: {np.linalg.norm(slope)}")


@functools.cache
def trained() -> tf.Tensor:
    """The optimum at the weights of `data`."""
    return optimum(data()["weights"], tf.zeros([data()["features"].shape[1], CLASSES], tf.float64))


@functools.cache
def retrained_derivatives(count: int = 20, change: float = 1e-3) -> np.ndarray:
    """Central differences of the validation loss of retrained optima by the first weights, [count]."""
    derivatives = []
    for example in range(count):
        losses = []
        for sign in (1.0, -1.0):
            weights = tf.tensor_scatter_nd_add(data()["weights"], [[example]], tf.constant([sign * change], tf.float64))
            losses.append(float(validation_loss([optimum(weights, trained())])))
        derivatives.append((losses[0] - losses[1]) / (2 * change))
    return np.array(derivatives)
