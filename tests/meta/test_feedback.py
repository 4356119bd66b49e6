"""Every form of feedback against brute force, in float64: differences of the look-ahead loss, all vectors of labels."""

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf import losses
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.update_rules import Adam, AdamW, Lars, RmsProp, Sgd
from metassl_tf.meta import feedback
from metassl_tf.meta.feedback import FORMS, StudentStep, follow, reinforce
from tests.learner import tiny

FEATURES, CLASSES, UNLABELED, LABELED = 3, 3, 3, 4
STEP = tf.constant(4, tf.int64)
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"rule": Sgd(momentum=0.0, nesterov=False)},
    "momentum": {"rule": Sgd(nesterov=False)},
    "nesterov": {"rule": Sgd()},
    "rmsprop": {"rule": RmsProp()},
    "adam": {"rule": Adam()},
    "adamw": {"rule": AdamW()},
    "lars": {"rule": Lars(trust_coefficient=0.5)},
    "clipped": {"rule": Sgd(), "gradient_clip_norm": 0.05},
    "decayed": {"rule": RmsProp(), "l2_weight_decay": 0.1, "gradient_clip_norm": 0.3},
}


class Problem:
    """A student of two layers on three unlabeled examples, and a linear teacher."""

    def __init__(self, *, used: bool = True, **optimization: Any) -> None:
        """Builds both; `used` lets the student's optimizer have taken steps before."""
        keras.utils.set_random_seed(1)
        inputs = keras.Input((FEATURES,), dtype="float64")
        hidden = keras.layers.Dense(4, activation="tanh", dtype="float64")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(CLASSES, dtype="float64")(hidden))
        self.student = Learner(model, tiny.optimization(**optimization), seed=0)
        if used:
            for number, gradients in enumerate(tiny.random_gradients(model, steps=int(STEP))):
                self.student.update([0.1 * part for part in gradients], [], step=tf.constant(number, tf.int64))
        generator = np.random.default_rng(0)
        self.unlabeled, self.labeled = (
            tf.constant(generator.normal(size=(size, FEATURES))) for size in (UNLABELED, LABELED)
        )
        self.label = tf.one_hot([0, 2, 1, 1], CLASSES, dtype=tf.float64)
        self.teacher = tf.constant(generator.normal(size=(FEATURES, CLASSES)))
        self.parameters = [tf.convert_to_tensor(parameter.value) for parameter in self.student.parameters]

    def logits(self, inputs: tf.Tensor, at: list[tf.Tensor]) -> tf.Tensor:
        with keras.StatelessScope(state_mapping=list(zip(self.student.parameters, at, strict=True))):
            return self.student.model(inputs, training=True)

    def labeled_loss(self, at: list[tf.Tensor]) -> tf.Tensor:
        return tf.reduce_mean(losses.cross_entropy(self.label, self.logits(self.labeled, at)))

    def update(self, gradient: list[tf.Tensor]) -> list[tf.Tensor]:
        return self.student.pure_update(gradient, step=STEP).values

    def step(self, target: tf.Tensor) -> StudentStep:
        """The student's step on these labels, differentiable by them."""
        with tf.GradientTape() as tape:
            tape.watch(self.parameters)
            loss = tf.reduce_mean(losses.cross_entropy(target, self.logits(self.unlabeled, self.parameters)))
        gradient = tape.gradient(loss, self.parameters)
        return StudentStep(
            parameters=self.parameters,
            gradient=gradient,
            moved=self.update(gradient),
            update=self.update,
            labeled_loss=self.labeled_loss,
            log_probability=lambda at: tf.nn.log_softmax(self.logits(self.unlabeled, at)),
            coefficients=tf.fill([UNLABELED], tf.constant(1 / UNLABELED, tf.float64)),
        )

    def teacher_log_probability(self, teacher: tf.Tensor) -> tf.Tensor:
        return tf.nn.log_softmax(self.unlabeled @ teacher)

    def lookahead(self, teacher: tf.Tensor) -> tf.Tensor:
        """L_l at the expected update, Eq. 5.4."""
        return self.labeled_loss(self.step(tf.exp(self.teacher_log_probability(teacher))).moved)

    def by_differences(self, width: float = 1e-5) -> np.ndarray:
        found = np.zeros([FEATURES, CLASSES])
        for place in np.ndindex(*found.shape):
            change = np.zeros_like(found)
            change[place] = width
            found[place] = self.lookahead(self.teacher + change) - self.lookahead(self.teacher - change)
        return found / (2 * width)

    def by(self, form: str) -> np.ndarray:
        """The gradient by the teacher that a soft form says."""
        with tf.GradientTape() as tape:
            tape.watch(self.teacher)
            target = tf.exp(self.teacher_log_probability(self.teacher))
            verdict = FORMS[form](self.step(target))
            signal = verdict.loss if verdict.loss is not None else follow(verdict.derivative, target)
        return tape.gradient(signal, self.teacher).numpy()

    def vectors(self) -> list[tf.Tensor]:
        """All vectors of labels, one-hot."""
        return [
            tf.one_hot(labels, CLASSES, dtype=tf.float64)
            for labels in itertools.product(range(CLASSES), repeat=UNLABELED)
        ]

    def expected(self, gradient_of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> np.ndarray:
        """The mean over all vectors of labels of the gradient of a loss of (target, log-probability of each label)."""
        total = np.zeros([FEATURES, CLASSES])
        for target in self.vectors():
            with tf.GradientTape() as tape:
                tape.watch(self.teacher)
                log_probability = tf.reduce_sum(target * self.teacher_log_probability(self.teacher), axis=1)
                loss = gradient_of(target, log_probability)
            total += np.exp(log_probability.numpy().sum()) * tape.gradient(loss, self.teacher).numpy()
        return total

    def enumerated(self) -> np.ndarray:
        """The gradient of E[L_l(theta'_S)]."""
        with tf.GradientTape() as tape:
            tape.watch(self.teacher)
            log_probability = self.teacher_log_probability(self.teacher)
            value = tf.add_n(
                [
                    tf.exp(tf.reduce_sum(target * log_probability))
                    * tf.stop_gradient(self.labeled_loss(self.step(target).moved))
                    for target in self.vectors()
                ]
            )
        return tape.gradient(value, self.teacher).numpy()


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("form", ["soft", "soft_jvp"])
def test_soft_forms_are_the_derivative_of_the_lookahead_loss(form: str, optimizer: str) -> None:
    problem = Problem(**OPTIMIZERS[optimizer])
    expected = problem.by_differences()
    assert np.linalg.norm(expected) > 1e-6
    assert relative_error(problem.by(form), expected) < 1e-6


@pytest.mark.parametrize("optimizer", ["nesterov", "rmsprop", "adam", "clipped"])
def test_labeled_gradient_has_to_be_pulled_back(optimizer: str) -> None:
    """Taken as it is, times the learning rate, it is right for gradient descent and momentum only."""
    problem = Problem(**OPTIMIZERS[optimizer])
    plain = Problem(**OPTIMIZERS["momentum"])
    rate = 0.1

    def by_labeled_gradient(own: Problem) -> np.ndarray:
        step = own.step(tf.exp(own.teacher_log_probability(own.teacher)))
        naive = step._replace(update=lambda gradient: [-rate * part for part in gradient])
        with tf.GradientTape() as tape:
            tape.watch(own.teacher)
            target = tf.exp(own.teacher_log_probability(own.teacher))
            signal = follow(feedback.soft_jvp(naive).derivative, target)
        return tape.gradient(signal, own.teacher).numpy()

    assert relative_error(by_labeled_gradient(plain), plain.by_differences()) < 1e-6
    assert relative_error(by_labeled_gradient(problem), problem.by_differences()) > 0.3


@pytest.mark.parametrize("baseline", [0.0, -3.7])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "decayed"])
def test_difference_is_unbiased(optimizer: str, baseline: float) -> None:
    problem = Problem(**OPTIMIZERS[optimizer])

    def loss(target: tf.Tensor, log_probability: tf.Tensor) -> tf.Tensor:
        usefulness = feedback.hard_difference(problem.step(target)).usefulness
        return reinforce(usefulness - baseline, log_probability, mean=False)

    assert relative_error(problem.expected(loss), problem.enumerated()) < 1e-10


def test_inner_product_is_right_to_first_order_in_the_learning_rate() -> None:
    errors = []
    for rate in (1.0, 0.1, 0.01):
        problem = Problem(learning_rate=rate, used=False, **OPTIMIZERS["sgd"])

        def loss(target: tf.Tensor, log_probability: tf.Tensor, own: Problem = problem) -> tf.Tensor:
            return reinforce(feedback.hard(own.step(target)).usefulness, log_probability, mean=False)

        errors.append(relative_error(problem.expected(loss), problem.enumerated()))
    assert errors[0] > 0.01
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.7)
    assert errors[2] == pytest.approx(errors[1] / 10, rel=0.2)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "decayed"])
def test_inner_product_is_that_of_the_equation(optimizer: str) -> None:
    """eta_S <grad L_l(theta'_S), grad L_u(theta_S)>, Eq. 5.12; momentum and decay do not enter, eta_S does once."""
    problem = Problem(**(OPTIMIZERS[optimizer] | ({"rule": Sgd(momentum=0.5, nesterov=False)})))
    if optimizer == "decayed":
        problem = Problem(rule=Sgd(momentum=0.5, nesterov=False), l2_weight_decay=0.1)
    step = problem.step(tf.one_hot([1, 0, 2], CLASSES, dtype=tf.float64))
    with tf.GradientTape() as tape:
        tape.watch(step.moved)
        loss = problem.labeled_loss(step.moved)
    slope = tape.gradient(loss, step.moved)
    expected = 0.1 * sum(float(tf.reduce_sum(one * other)) for one, other in zip(slope, step.gradient, strict=True))
    verdict = feedback.hard(step)
    np.testing.assert_allclose(verdict.usefulness, expected, rtol=1e-6)  # the learning rate is a float32
    lengths = [np.sqrt(sum(float(tf.reduce_sum(part**2)) for part in parts)) for parts in (slope, step.gradient)]
    cosine = expected / 0.1 / np.prod(lengths)
    np.testing.assert_allclose(verdict.alignment, cosine, rtol=1e-6)
    same = feedback.hard_cosine(step)
    np.testing.assert_allclose(same.usefulness, cosine, rtol=1e-6)
    assert -1 <= cosine <= 1


def test_old_loss_less_new_loss_is_the_inner_product_and_not_the_opposite() -> None:
    """The released code has the opposite sign (google-research/meta_pseudo_labels)."""
    problem = Problem(learning_rate=1e-3, **OPTIMIZERS["sgd"])
    for target in problem.vectors():
        product, difference = (form(problem.step(target)) for form in (feedback.hard, feedback.hard_difference))
        np.testing.assert_allclose(difference.usefulness, product.usefulness, rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("form", ["hard", "hard_difference"])
def test_student_that_does_not_learn_has_nothing_to_say(form: str) -> None:
    problem = Problem(learning_rate=0.0, **OPTIMIZERS["sgd"])
    target = problem.vectors()[5]
    assert float(FORMS[form](problem.step(target)).usefulness) == 0.0


@pytest.mark.parametrize("form", ["soft", "soft_jvp"])
def test_teacher_that_follows_the_feedback_lowers_the_labeled_loss(form: str) -> None:
    problem = Problem(**OPTIMIZERS["adam"])
    slope = problem.by(form)
    assert np.linalg.norm(slope) > 0
    assert float(problem.lookahead(problem.teacher - 0.01 * slope)) < float(problem.lookahead(problem.teacher))


@pytest.mark.parametrize("form", ["hard", "hard_cosine", "hard_difference"])
def test_sampled_feedback_raises_labels_that_helped(form: str) -> None:
    """The released term, the cross-entropy of the teacher with its own stopped distribution, has no gradient at all."""
    problem = Problem(learning_rate=0.5, used=False, **OPTIMIZERS["sgd"])
    moves = []
    for target in problem.vectors():
        with tf.GradientTape() as tape:
            tape.watch(problem.teacher)
            before = tf.reduce_sum(target * problem.teacher_log_probability(problem.teacher), axis=1)
            usefulness = FORMS[form](problem.step(target)).usefulness
            loss = reinforce(usefulness, before, mean=form == "hard_cosine")
        teacher = problem.teacher - 1e-3 * tape.gradient(loss, problem.teacher)
        after = tf.reduce_sum(target * problem.teacher_log_probability(teacher))
        moves.append((float(usefulness), float(after - tf.reduce_sum(before))))
    assert all(np.sign(usefulness) == np.sign(raised) for usefulness, raised in moves)
    assert min(moves)[0] < 0 < max(moves)[0]


def test_cross_entropy_with_the_own_distribution_has_no_gradient() -> None:
    """What the released code multiplies its coefficient with."""
    problem = Problem(**OPTIMIZERS["sgd"])
    with tf.GradientTape() as tape:
        tape.watch(problem.teacher)
        logits = problem.unlabeled @ problem.teacher
        loss = tf.reduce_sum(losses.cross_entropy(tf.stop_gradient(tf.nn.softmax(logits)), logits))
    np.testing.assert_allclose(tape.gradient(loss, problem.teacher), np.zeros([FEATURES, CLASSES]), atol=1e-12)


@pytest.mark.parametrize("optimizer", ["adam", "lars", "clipped"])
def test_weights_without_a_gradient_do_not_spoil_the_others(optimizer: str) -> None:
    """A root of 0 has an infinite slope; compiled, 0 times that is no number."""
    problem = Problem(used=False, **OPTIMIZERS[optimizer])

    @tf.function(jit_compile=True)
    def slope(gradient: list[tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(gradient)
            moved = problem.update(gradient)
        return tape.gradient(moved, gradient)

    for found in slope([tf.zeros_like(part) for part in problem.parameters]):
        assert np.isfinite(found).all()
