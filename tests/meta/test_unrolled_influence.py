"""Differentiating through steps of gradient descent on the last layer, against the steps themselves."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from metassl_tf.hypergrad.products import gradient
from metassl_tf.learner.learner import Learner
from metassl_tf.meta.scopes import LastLayer, Objective
from tests.learner import tiny
from tests.meta import reference
from tests.meta.influences import DAMPING, found, inverse
from tests.meta.reference import ALGORITHMS, WEIGHTS, relative_error


@functools.cache
def last_layer() -> tuple[Learner, Objective, LastLayer]:
    own = reference.learner()
    return own, *reference.objective(
        own, "last_layer", reference.step_losses(ALGORITHMS["fixmatch"]), reference.validation()
    )


def after(steps: int, step_size: float, weights: np.ndarray) -> tuple[list[np.ndarray], float]:
    """Points of gradient descent on the last layer in NumPy float64, and the validation loss at the last."""
    own, _, layer = last_layer()
    weighted = dataclasses.replace(layer.step, example_weights=tf.constant(weights, tf.float32))
    objective = dataclasses.replace(layer, step=weighted).objective(own)
    start = objective.parameters[0].numpy().astype(np.float64)
    points = [start]
    for _ in range(steps):
        at = points[-1]
        slope = gradient(objective.training, [tf.constant(at, tf.float32)])[0].numpy().astype(np.float64)
        points.append(at - step_size * (slope + objective.decay[0].numpy() * at + DAMPING * (at - start)))
    return points, float(objective.validation([tf.constant(points[-1], tf.float32)]))


def test_one_unrolled_step_is_differentiated_exactly() -> None:
    step_size, change = 0.5, 0.05
    derivative, _, _ = found("fixmatch", inverse("unrolled", iterations=1, step_size=step_size))
    expected = []
    for example in range(tiny.UNLABELED):
        ends = []
        for sign in (1, -1):
            weights = WEIGHTS.astype(np.float64)
            weights[example] += sign * change
            ends.append(after(1, step_size, weights)[1])
        expected.append((ends[0] - ends[1]) / (2 * change))
    assert relative_error(derivative, expected) < 1e-3


def test_unrolled_takes_the_curvature_of_every_step() -> None:
    step_size, steps = 1.0, 3
    points, _ = after(steps, step_size, WEIGHTS)
    _, objective, _ = last_layer()
    size = points[0].size

    def dense(at: np.ndarray) -> np.ndarray:
        point = tf.constant(at, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(point)
            slope = gradient(objective.training, [point])[0]
        decay = np.repeat(objective.decay[0].numpy()[:, 0], tiny.CLASSES) + DAMPING
        return np.reshape(tape.jacobian(slope, point), [size, size]) + np.diag(decay)

    last = gradient(objective.validation, [tf.constant(points[-1], tf.float32)])[0].numpy().reshape(-1)
    near = (np.eye(size) - step_size * dense(points[2])) @ last
    direction = step_size * (last + near + (np.eye(size) - step_size * dense(points[1])) @ near)
    problem = reference.last_layer_problem(reference.learner().model, ALGORITHMS["fixmatch"])
    expected = -problem.unlabeled @ direction
    derivative, _, _ = found("fixmatch", inverse("unrolled", iterations=steps, step_size=step_size))
    assert relative_error(derivative, expected) < 1e-4
