"""How fast the approximate inverse Hessians come to the exact influence, on a problem that is solved to the end.

Logistic regression on 200 weighted digits with L2, in float64, at its optimum: there the Neumann series is what
differentiating through steps of gradient descent gives, so that one line stands for both (arXiv:2007.01293, Table A1).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.optimize
import tensorflow as tf
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from metassl_tf import losses
from metassl_tf.hypergrad import last_layer, solvers
from metassl_tf.hypergrad.products import Product, Vector, gradient, hessian_vector_product, jacobian_vector_product

TRAINING, VALIDATION, CLASSES, L2 = 200, 100, 10, 0.02
STEP_SIZES = (1.0, 0.1)
_SEEDS = 10
_STOCHASTIC_STEP = 0.1

Curves = Mapping[str, Mapping[int, float]]


class Problem(NamedTuple):
    """The regression, each half with a trailing feature of 1.

    Attributes:
      features: of the training digits, [200, 65].
      target: one-hot, [200, 10].
      weights: of the training digits, [200].
      validation_features: [100, 65].
      validation_target: [100, 10].
    """

    features: tf.Tensor
    target: tf.Tensor
    weights: tf.Tensor
    validation_features: tf.Tensor
    validation_target: tf.Tensor

    def contributions(self, at: Vector) -> tf.Tensor:
        """What each training digit adds to the loss at a weight of 1, [200]."""
        return losses.cross_entropy(self.target, self.features @ at[0]) / TRAINING

    def training(self, at: Vector) -> tf.Tensor:
        """The loss that is minimised."""
        return tf.reduce_sum(self.weights * self.contributions(at)) + 0.5 * L2 * tf.reduce_sum(at[0] ** 2)

    def validation(self, at: Vector) -> tf.Tensor:
        """The outer loss."""
        return tf.reduce_mean(losses.cross_entropy(self.validation_target, self.validation_features @ at[0]))

    def optimum(self) -> tf.Tensor:
        """The matrix that minimises the training loss, [65, 10]."""
        shape = [self.features.shape[1], CLASSES]

        def value_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
            at = [tf.constant(flat.reshape(shape))]
            return float(self.training(at)), gradient(self.training, at)[0].numpy().ravel()

        found = scipy.optimize.minimize(
            value_and_slope, np.zeros(np.prod(shape)), jac=True, options={"gtol": 1e-10, "maxiter": 5000}
        )
        return tf.constant(found.x.reshape(shape))


def digits() -> Problem:
    """Draws the digits and their weights, the same each time."""
    features, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(labels))
    features = np.concatenate([features / 16, np.ones([len(labels), 1])], axis=1)[order]
    target = np.eye(CLASSES)[labels[order]]
    return Problem(
        features=tf.constant(features[:TRAINING]),
        target=tf.constant(target[:TRAINING]),
        weights=tf.constant(np.random.RandomState(1).uniform(0.0, 2.0, TRAINING)),
        validation_features=tf.constant(features[-VALIDATION:]),
        validation_target=tf.constant(target[-VALIDATION:]),
    )


def errors(problem: Problem, terms: Sequence[int]) -> Curves:
    """Relative errors of the influences of all training digits.

    Args:
      problem: the regression.
      terms: numbers of terms of the series, or of steps of conjugate gradients.

    Returns:
      Name of a method -> terms -> error; of stochastic estimation the mean over seeds of the error of one estimate.
    """
    optimum = problem.optimum()
    right = gradient(problem.validation, [optimum])
    blocks = last_layer.curvature_blocks(
        lambda logits: tf.reduce_sum(problem.weights * losses.cross_entropy(problem.target, logits)) / TRAINING,
        problem.features @ optimum,
    )
    matrix = last_layer.hessian(problem.features, blocks)
    exact = _influence(problem, optimum, last_layer.solve(matrix, right[0], diagonal=tf.fill(optimum.shape, L2)))

    def error(direction: tf.Tensor) -> float:
        found = _influence(problem, optimum, direction)
        return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))

    def product(vector: Vector) -> Vector:
        return hessian_vector_product(problem.training, [optimum], vector)

    def sampled(vector: Vector, seed: tf.Tensor) -> Vector:
        """By a random half of the digits, counted twice."""
        kept = 2.0 * tf.cast(tf.random.stateless_uniform([TRAINING], seed, 0, 2, tf.int32), tf.float64)
        half = problem._replace(weights=problem.weights * kept)
        return hessian_vector_product(half.training, [optimum], vector)

    curves: dict[str, dict[int, float]] = {"identity": dict.fromkeys(terms, error(right[0]))}
    curves["conjugate gradients"] = {
        count: error(solvers.conjugate_gradient(product, right, iterations=count).vector[0]) for count in terms
    }
    for step_size in STEP_SIZES:
        curves[f"Neumann, unrolled: step size {step_size:g}"] = {
            count: error(_series(product, right, count, step_size)) for count in terms
        }
    curves[f"stochastic, step size {_STOCHASTIC_STEP:g}"] = {
        count: float(
            np.mean(
                [
                    error(
                        solvers.stochastic(
                            sampled, right, terms=count, step_size=_STOCHASTIC_STEP, seed=tf.constant([seed, 0])
                        ).vector[0]
                    )
                    for seed in range(_SEEDS)
                ]
            )
        )
        for count in terms
    }
    return curves


def _series(product: Product, right: Vector, terms: int, step_size: float) -> tf.Tensor:
    return solvers.neumann(product, right, terms=terms, step_size=step_size).vector[0]


def _influence(problem: Problem, at: tf.Tensor, direction: tf.Tensor) -> np.ndarray:
    """-g_u^T d of every training digit (Eq. 6)."""
    scores: np.ndarray = -jacobian_vector_product(problem.contributions, [at], [direction]).numpy()
    return scores


def draw(curves: Curves, path: Path) -> None:
    """Draws the errors over the number of terms into a PNG file."""
    figure = Figure(figsize=(6.5, 4.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        axes.loglog(list(values), list(values.values()), label=name, linestyle="--" if name == "identity" else "-")
    axes.set_xlabel("terms of the series, or steps of conjugate gradients")
    axes.set_ylabel("relative error of the influences")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path)
