"""Eq. 6 against really retrained optima, for every way to apply the inverse Hessian (float64 logistic regression)."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.hypergrad import last_layer, solvers
from metassl_tf.hypergrad.products import (
    Vector,
    forward_mode_product,
    gradient,
    hessian_vector_product,
    jacobian_vector_product,
)
from tests.hypergrad import retraining
from tests.hypergrad.retraining import L2, TRAINING, contributions, data, trained, training_loss, validation_loss


def right() -> Vector:
    return gradient(validation_loss, [trained()])


def product(vector: Vector) -> Vector:
    return hessian_vector_product(training_loss(data()["weights"]), [trained()], vector)


def derivatives(direction: Vector) -> np.ndarray:
    return -jacobian_vector_product(contributions, [trained()], direction).numpy()


def softmax_blocks(logits: tf.Tensor, coefficients: tf.Tensor) -> tf.Tensor:
    """c_i (diag p_i - p_i p_i^T), the Hessian of cross-entropy with any target, [N, K, K]."""
    probability = tf.nn.softmax(logits)
    blocks = tf.linalg.diag(probability) - probability[:, :, tf.newaxis] * probability[:, tf.newaxis, :]
    return coefficients[:, tf.newaxis, tf.newaxis] * blocks


def exact() -> Vector:
    features, logits = data()["features"], data()["features"] @ trained()
    blocks = softmax_blocks(logits, data()["weights"] / TRAINING)
    diagonal = tf.fill(trained().shape, tf.constant(L2, tf.float64))
    return [last_layer.solve(last_layer.hessian(features, blocks), right()[0], diagonal=diagonal)]


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(
    "direction",
    [exact, lambda: solvers.conjugate_gradient(product, right(), iterations=300).vector],
    ids=["exact", "conjugate_gradient"],
)
def test_derivative_is_that_of_retraining(direction: Callable[[], Vector]) -> None:
    expected = retraining.retrained_derivatives()
    found = derivatives(direction())[: len(expected)]
    assert np.corrcoef(found, expected)[0, 1] >= 0.9999
    assert relative_error(found, expected) <= 1e-3


def test_sign_an_example_that_helps_gets_a_negative_derivative() -> None:
    """A training example that is a validation example: more weight on it lowers the validation loss."""
    with_copy = contributions_of(data()["validation_features"], data()["validation_target"])
    scores = -jacobian_vector_product(with_copy, [trained()], exact()).numpy()
    assert scores.mean() < 0
    wrong = contributions_of(data()["validation_features"], tf.roll(data()["validation_target"], 1, axis=1))
    assert (-jacobian_vector_product(wrong, [trained()], exact()).numpy()).mean() > 0


def contributions_of(features: tf.Tensor, target: tf.Tensor) -> Callable[[Vector], tf.Tensor]:
    return lambda at: retraining.cross_entropies(at[0], features, target) / TRAINING


def test_exact_hessian_is_the_dense_one() -> None:
    with tf.GradientTape() as outer:
        outer.watch(trained())
        slope = gradient(training_loss(data()["weights"]), [trained()])[0]
    size = int(tf.size(trained()))
    dense = tf.reshape(outer.jacobian(slope, trained()), [size, size])
    blocks = softmax_blocks(data()["features"] @ trained(), data()["weights"] / TRAINING)
    found = last_layer.hessian(data()["features"], blocks) + L2 * tf.eye(size, dtype=tf.float64)
    np.testing.assert_allclose(found, dense, atol=1e-14)


def test_blocks_by_autodiff_are_the_closed_form() -> None:
    logits = data()["features"] @ trained()
    coefficients = data()["weights"] / TRAINING

    def loss(logits: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(coefficients * -tf.reduce_sum(data()["target"] * tf.nn.log_softmax(logits), axis=1))

    found = last_layer.curvature_blocks(loss, logits)
    np.testing.assert_allclose(found, softmax_blocks(logits, coefficients), atol=1e-16)


@pytest.mark.parametrize("unroll", [False, True], ids=["neumann", "unrolled"])
def test_series_converge_to_the_exact_answer(unroll: bool) -> None:
    expected = derivatives(exact())
    step_size = 1.0
    errors = []
    for terms in (3, 30, 300, 1000):
        if unroll:
            # Gradient descent stands still at the optimum, so that each of its steps has the same Hessian.
            solve = functools.partial(solvers.unrolled, [product] * (terms - 1), step_size=step_size)
        else:
            solve = functools.partial(solvers.neumann, product, terms=terms, step_size=step_size)
        solution = tf.function(solve, autograph=False)(right())
        assert not solution.grew
        errors.append(relative_error(derivatives(solution.vector), expected))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6


def test_two_terms_of_the_unrolled_sum_are_what_two_steps_of_gradient_descent_differentiate_to() -> None:
    """Away from the optimum, where every step has a Hessian of its own."""
    step_size, start = 0.5, 0.3 * trained()
    weights = data()["weights"]

    def after_three(weights: tf.Tensor) -> list[tf.Tensor]:
        points = [start]
        for _ in range(3):
            slope = gradient(training_loss(weights), [points[-1]])[0]
            points.append(points[-1] - step_size * slope)
        return points

    points = after_three(weights)
    products = [
        lambda vector, at=at: hessian_vector_product(training_loss(weights), [at], vector)
        for at in (points[2], points[1])
    ]
    last = gradient(validation_loss, [points[3]])
    # d = s sum_j prod (I - s H) v, where each term meets the g_u of its own step; here they meet one g_u each.
    terms = [last]
    for one in products:
        terms.append([terms[-1][0] - step_size * one(terms[-1])[0]])
    total = [step_size * tf.add_n([term[0] for term in terms])]
    np.testing.assert_allclose(solvers.unrolled(products, last, step_size=step_size).vector[0], total[0], rtol=1e-12)
    # Full differentiation of the three steps, with each step's own g_u.
    with tf.GradientTape() as tape:
        tape.watch(weights)
        value = validation_loss([after_three(weights)[-1]])
    expected = tape.gradient(value, weights).numpy()
    found = sum(
        -step_size * jacobian_vector_product(contributions, [points[2 - place]], term).numpy()
        for place, term in enumerate(terms)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


def test_identity_is_the_plain_inner_product() -> None:
    validation_gradient = right()[0].numpy()
    features, probability = data()["features"].numpy(), tf.nn.softmax(data()["features"] @ trained()).numpy()
    residual = (probability - data()["target"].numpy()) / TRAINING
    expected = -np.einsum("nd,nk,dk->n", features, residual, validation_gradient)
    np.testing.assert_allclose(derivatives(right()), expected, rtol=1e-10)


def test_stochastic_estimate_lies_within_its_error_bars() -> None:
    weights, terms, step_size, samples = data()["weights"], 40, 0.5, 64
    expected = solvers.neumann(product, right(), terms=terms, step_size=step_size).vector[0].numpy()

    def sampled(vector: Vector, seed: tf.Tensor) -> Vector:
        kept = 2.0 * tf.floor(2.0 * tf.random.stateless_uniform([TRAINING], seed, alg="philox", dtype=tf.float64))
        return hessian_vector_product(training_loss(weights * kept), [trained()], vector)

    @tf.function(autograph=False)
    def sample(seed: tf.Tensor) -> tf.Tensor:
        return solvers.stochastic(sampled, right(), terms=terms, step_size=step_size, seed=seed).vector[0]

    drawn = np.stack([sample(tf.constant([number, 7])).numpy() for number in range(samples)])
    deviation = drawn.std(axis=0, ddof=1)
    informative = deviation > 1e-9 * deviation.max()  # a pixel that is never inked has no curvature to estimate
    error = ((drawn.mean(axis=0) - expected) / np.where(informative, deviation / np.sqrt(samples), 1.0))[informative]
    # z-scores of 650 entries that share their draws: their mean square is near 1, and far above if there were a bias.
    assert 0.2 < np.mean(error**2) < 3.0
    assert not np.allclose(drawn[0], drawn[1])


@pytest.mark.parametrize("solver", ["neumann", "unrolled", "stochastic"])
def test_series_that_grows_says_so(solver: str) -> None:
    if solver == "neumann":
        solution = solvers.neumann(product, right(), terms=60, step_size=1e3)
    elif solver == "unrolled":
        solution = solvers.unrolled([product, lambda vector: product(vector)] * 30, right(), step_size=1e3)
    else:
        solution = solvers.stochastic(
            lambda vector, _: product(vector), right(), terms=60, step_size=1e3, seed=tf.constant([0, 0])
        )
    assert solution.grew


def test_conjugate_gradients_stop_where_the_matrix_is_not_positive() -> None:
    def indefinite(vector: Vector) -> Vector:
        return [tf.constant([2.0, -1.0], tf.float64) * vector[0]]

    solution = solvers.conjugate_gradient(indefinite, [tf.constant([1.0, 3.0], tf.float64)], iterations=10).vector[0]
    np.testing.assert_array_equal(solution, [0.0, 0.0])  # the first direction already bends down


def test_loops_in_the_graph_are_the_eager_ones_and_compile() -> None:
    for solve in (
        lambda: solvers.conjugate_gradient(product, right(), iterations=7).vector[0],
        lambda: solvers.neumann(product, right(), terms=7, step_size=0.5).vector[0],
    ):
        expected = solve()
        for compiled in (False, True):
            np.testing.assert_allclose(tf.function(solve, jit_compile=compiled, autograph=False)(), expected, rtol=1e-9)


def test_scores_by_forward_mode_and_by_double_backward_are_the_inner_products() -> None:
    direction = exact()
    with tf.GradientTape() as tape:
        tape.watch(trained())
        values = contributions([trained()])
    expected = tf.reduce_sum(tape.jacobian(values, trained()) * direction[0], axis=[1, 2])
    for along in (forward_mode_product, jacobian_vector_product):
        np.testing.assert_allclose(along(contributions, [trained()], direction), expected, rtol=1e-10, atol=1e-18)


def test_small_damping_gives_the_pseudo_inverse() -> None:
    """Without L2 the Hessian is singular in as many directions as there are features; no gradient lies in them."""
    blocks = softmax_blocks(data()["features"] @ trained(), data()["weights"] / TRAINING)
    matrix = last_layer.hessian(data()["features"], blocks)
    informative = np.linalg.matrix_rank(data()["features"].numpy())
    values, vectors = np.linalg.eigh(matrix.numpy())
    assert np.sum(values > 1e-12 * values[-1]) <= informative * (retraining.CLASSES - 1)
    # Right sides in the span of the training gradients, damping below the smallest real eigenvalue.
    target = right()[0] * 0 + gradient(contributions_sum, [trained()])[0]
    flat = target.numpy().reshape(-1)
    real = values > 1e-9 * values[-1]
    expected = vectors[:, real] @ ((vectors[:, real].T @ flat) / values[real])
    found = last_layer.solve(matrix, target, diagonal=tf.fill(target.shape, tf.constant(1e-13, tf.float64)))
    assert relative_error(found.numpy().reshape(-1), expected) < 1e-3


def contributions_sum(at: Vector) -> tf.Tensor:
    return tf.reduce_sum(contributions(at))
