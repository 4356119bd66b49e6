"""M-Adam against Algorithm 2 written out for one example at a time, under random access with gaps."""

import math

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.meta.masked_adam import RULES, Rows

EXAMPLES, UPDATES, LEARNING_RATE = 12, 60, 0.05


class Scalar:
    """Adam on one number, in Python floats."""

    def __init__(self) -> None:
        self.weight, self.first, self.second, self.count = 1.0, 0.0, 0.0, 0

    def take(self, derivative: float, *, time: int) -> None:
        self.first = 0.9 * self.first + 0.1 * derivative
        self.second = 0.999 * self.second + 0.001 * derivative**2
        corrected = self.first / (1 - 0.9**time), self.second / (1 - 0.999**time)
        self.weight -= LEARNING_RATE * corrected[0] / (math.sqrt(corrected[1]) + 1e-8)
        self.count += 1


def accesses() -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows, derivatives) of each update: some rows often, some rarely, some derivatives exactly 0, sizes far apart."""
    generator = np.random.default_rng(3)
    popularity = np.linspace(1.0, 0.05, EXAMPLES)
    found = []
    for _ in range(UPDATES):
        rows = np.flatnonzero(generator.random(EXAMPLES) < popularity)
        derivative = generator.normal(size=len(rows)) * 10.0 ** generator.integers(-4, 3, size=len(rows))
        found.append((rows, np.where(generator.random(len(rows)) < 0.3, 0.0, derivative).astype(np.float32)))
    return found


def fresh(size: int) -> Rows:
    return Rows(tf.ones([size]), tf.zeros([size]), tf.zeros([size]), tf.zeros([size], tf.int64))


def move(rule: str, state: Rows, rows: np.ndarray, derivative: np.ndarray, updates: int) -> Rows:
    """Moves some rows by a rule that sees nothing else."""
    part = Rows(*(tf.gather(column, rows) for column in state))
    moved = RULES[rule](part, tf.constant(derivative), LEARNING_RATE, tf.constant(updates, tf.int64))
    return Rows(
        *(
            tf.tensor_scatter_nd_update(column, rows[:, np.newaxis], values)
            for column, values in zip(state, moved, strict=True)
        )
    )


@pytest.mark.parametrize("rule", ["masked_adam", "masked_adam_global_step"])
def test_every_example_has_an_optimizer_of_its_own(rule: str) -> None:
    state, expected = fresh(EXAMPLES), [Scalar() for _ in range(EXAMPLES)]
    for number, (rows, derivative) in enumerate(accesses()):
        state = move(rule, state, rows, derivative, number)
        for row, value in zip(rows, derivative, strict=True):
            if value:
                time = number + 1 if rule == "masked_adam_global_step" else expected[row].count + 1
                expected[row].take(float(value), time=time)
    assert min(scalar.count for scalar in expected) < 3 < max(scalar.count for scalar in expected)
    np.testing.assert_allclose(state.weight, [scalar.weight for scalar in expected], rtol=1e-5)
    np.testing.assert_allclose(state.first_moment, [scalar.first for scalar in expected], rtol=1e-4)
    np.testing.assert_allclose(state.second_moment, [scalar.second for scalar in expected], rtol=1e-5)
    np.testing.assert_array_equal(state.count, [scalar.count for scalar in expected])


def test_two_conventions_of_t_are_not_the_same() -> None:
    weights = []
    for rule in ("masked_adam", "masked_adam_global_step"):
        state = fresh(EXAMPLES)
        for number, (rows, derivative) in enumerate(accesses()):
            state = move(rule, state, rows, derivative, number)
        weights.append(state.weight.numpy())
    assert np.abs(weights[0] - weights[1]).max() > 0.01


@pytest.mark.parametrize("derivative", [0.03, 1.0, -7.0])
@pytest.mark.parametrize(
    ("rule", "updates", "learning_rates"),
    [
        ("masked_adam", 0, 1.0),
        ("masked_adam", 100_000, 1.0),
        ("masked_adam_global_step", 0, 1.0),
        ("masked_adam_global_step", 100_000, 0.1 / math.sqrt(0.001)),  # 3.16
    ],
)
def test_length_of_an_examples_first_step(rule: str, updates: int, learning_rates: float, derivative: float) -> None:
    moved = RULES[rule](fresh(1), tf.constant([derivative]), LEARNING_RATE, tf.constant(updates, tf.int64))
    expected = 1.0 - math.copysign(learning_rates * LEARNING_RATE, derivative)
    assert float(moved.weight[0]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("rule", ["masked_adam", "masked_adam_global_step", "sgd"])
def test_row_with_a_derivative_of_zero_is_left_alone_bit_for_bit(rule: str, zero: float) -> None:
    state = Rows(
        tf.constant([0.7, 0.7]), tf.constant([0.3, 0.3]), tf.constant([0.2, 0.2]), tf.constant([5, 5], tf.int64)
    )
    moved = RULES[rule](state, tf.constant([zero, 0.1]), LEARNING_RATE, tf.constant(9, tf.int64))
    for before, after in zip(state, moved, strict=True):
        np.testing.assert_array_equal(after[0], before[0])
    assert float(moved.weight[1]) != pytest.approx(0.7)
    np.testing.assert_array_equal(moved.count, [5, 6])


def test_dense_adam_is_adam_with_zeros() -> None:
    """And so an example that nobody looked at goes on moving: what the mask is for."""
    state, expected = fresh(2), [Scalar(), Scalar()]
    derivatives = [[0.5, 0.0], [0.2, 1.0], [0.0, 0.3], [0.0, 0.0]]
    path = []
    for number, derivative in enumerate(derivatives):
        state = RULES["adam"](state, tf.constant(derivative), LEARNING_RATE, tf.constant(number, tf.int64))
        for scalar, value in zip(expected, derivative, strict=True):
            scalar.take(value, time=number + 1)
        np.testing.assert_allclose(state.weight, [scalar.weight for scalar in expected], rtol=1e-6)
        path.append(state.weight.numpy())
    leak = path[1][0] - path[3][0]  # without a derivative
    assert leak > 0.5 * LEARNING_RATE


def test_sgd_is_equation_4() -> None:
    state = fresh(3)
    for number in range(2):
        derivative = tf.constant([0.5, 0.0, -2.0])
        state = RULES["sgd"](state, derivative, LEARNING_RATE, tf.constant(number, tf.int64))
    np.testing.assert_allclose(state.weight, [1 - 2 * 0.05 * 0.5, 1.0, 1 + 2 * 0.05 * 2.0], rtol=1e-6)
    np.testing.assert_array_equal(state.count, [2, 0, 2])
