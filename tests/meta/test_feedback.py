"""Every form of feedback against brute force, in float64: differences of the look-ahead loss, all vectors of labels."""

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf import losses
from metassl_tf.hypergrad.products import gradient
from metassl_tf.learner.update_rules import Sgd
from metassl_tf.meta import feedback
from metassl_tf.meta.feedback import FORMS, follow, reinforce
from tests.meta.lookahead import CLASSES, FEATURES, OPTIMIZERS, Problem, relative_error


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
        naive = step._replace(change=lambda gradient: [-rate * part for part in gradient])
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


@pytest.mark.parametrize("optimizer", ["nesterov", "rmsprop", "adam", "clipped"])
def test_cosine_is_that_of_the_step_that_the_labels_caused(optimizer: str) -> None:
    """With f(gradient) in place of the gradient (Eq. 6.18): for Nesterov the same angle, for RMSProp another."""
    problem = Problem(**OPTIMIZERS[optimizer])
    step = problem.step(tf.one_hot([1, 0, 2], CLASSES, dtype=tf.float64))
    without = problem.update([tf.zeros_like(part) for part in step.gradient])
    slope, caused = (
        np.concatenate([np.ravel(part) for part in parts])
        for parts in (
            gradient(problem.labeled_loss, step.moved),
            [there - here for there, here in zip(step.moved, without, strict=True)],
        )
    )
    expected = -slope @ caused / np.linalg.norm(slope) / np.linalg.norm(caused)
    verdict = feedback.hard_cosine(step)
    np.testing.assert_allclose(verdict.usefulness, expected, rtol=1e-6)
    same_angle = optimizer in ("nesterov", "clipped")
    assert (abs(float(verdict.usefulness - verdict.alignment)) < 1e-6) == same_angle


@pytest.mark.parametrize("form", ["hard", "hard_cosine", "hard_difference"])
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
