"""Where a paper prints something else than it means: what is printed is wrong, and what is built is right.

v1 is version 1 of arXiv:2003.10580, the thesis is H. Pham's, chapter 5.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms.uda import Uda
from metassl_tf.learner.update_rules import RmsProp, Sgd
from metassl_tf.meta import feedback
from metassl_tf.meta.feedback import reinforce
from tests.learner import tiny
from tests.meta.lookahead import CLASSES, OPTIMIZERS, UNLABELED, Problem, relative_error


def test_label_smoothing_of_v1_is_no_distribution() -> None:
    """It prints 1 - d + 1/C for the true class, where 1 - d + d/C is meant."""
    share, classes = 0.1, 4
    built = losses.smooth_one_hot(tf.constant([2]), classes, smoothing=share, dtype=tf.float64).numpy()[0]
    printed = np.where(np.arange(classes) == 2, 1 - share + 1 / classes, share / classes)
    assert built.sum() == pytest.approx(1.0)
    assert built[2] == pytest.approx(1 - share + share / classes)
    assert printed.sum() > 1.2


def test_rho_of_v1_s_equation_8_weighs_the_new_squared_gradient() -> None:
    """Everywhere else, Keras' optimizer included, rho weighs the old mean; the epsilon inside the root is meant."""
    rate, rho, gradients = 0.1, 0.9, np.array([3.0, 0.5])
    variable = keras.Variable([1.0], dtype="float64")
    optimizer = keras.optimizers.RMSprop(rate, rho=rho, epsilon=1e-7)
    built, slots = 1.0, (tf.zeros([1], tf.float64), tf.zeros([1], tf.float64))
    mean, printed = 0.0, 1.0
    for number, gradient in enumerate(gradients):
        optimizer.apply([tf.constant([gradient], tf.float64)], [variable])
        change, slots = RmsProp(rho=rho, momentum=0.0).update(
            tf.constant([gradient], tf.float64),
            tf.constant([built], tf.float64),
            slots,
            learning_rate=tf.constant(rate, tf.float64),
            step=tf.constant(number),
        )
        built += float(change[0])
        mean = (1 - rho) * mean + rho * gradient**2
        printed -= rate * gradient / np.sqrt(mean + 1e-7)
    assert built == pytest.approx(float(variable.numpy()[0]), rel=1e-6)
    assert abs(built - printed) > 0.1


def test_the_log_probability_of_equations_5_10_to_5_12_is_the_teacher_s() -> None:
    """They print S(x_u; theta_T): the student's network, which need not take the teacher's parameters at all.

    That the product takes the teacher's is tested where the teacher hears the advantage.
    """
    problem = Problem(**OPTIMIZERS["sgd"])

    def loss(target: tf.Tensor, log_probability: tf.Tensor) -> tf.Tensor:
        return reinforce(feedback.hard_difference(problem.step(target)).usefulness, log_probability, mean=False)

    # With T(x_u; theta_T), what is sampled is what is learned of.
    assert relative_error(problem.expected(loss), problem.enumerated()) < 1e-10


def test_cross_entropy_of_equation_5_12_is_summed_and_not_averaged() -> None:
    """The thesis' CE of a batch is a mean; the log-probability of all labels together is a sum."""
    problem = Problem(**OPTIMIZERS["sgd"])

    def loss(target: tf.Tensor, log_probability: tf.Tensor) -> tf.Tensor:
        return reinforce(feedback.hard_difference(problem.step(target)).usefulness, log_probability, mean=True)

    np.testing.assert_allclose(UNLABELED * problem.expected(loss), problem.enumerated(), rtol=1e-8, atol=1e-12)


def test_the_learning_rate_of_algorithm_3_counts_once() -> None:
    """Its box has eta_S in h and again where h is used; at twice the rate, h is twice as large and not four times."""
    target = tf.one_hot([1, 0, 2], CLASSES, dtype=tf.float64)
    once, twice = (
        float(
            feedback.hard(Problem(rule=Sgd(momentum=0.0, nesterov=False), learning_rate=rate).step(target)).usefulness
        )
        for rate in (1e-4, 2e-4)
    )
    assert twice / once == pytest.approx(2.0, rel=1e-3)


def test_the_consistency_of_algorithm_3_is_that_of_unlabeled_examples() -> None:
    """Its UDA line prints x_l, where x_u is meant."""
    algorithm = Uda(threshold=0.0)
    network, batch = tiny.network(), tiny.batch_for(algorithm)
    generator = np.random.default_rng(3)

    def consistency(side: str | None) -> np.ndarray:
        changed = batch
        if side:
            own = getattr(batch, side)
            views = {
                name: tf.constant(generator.normal(size=view.shape), tf.float32) for name, view in own.views.items()
            }
            changed = batch._replace(**{side: own._replace(views=views)})

        def forward(inputs: dict[str, tf.Tensor], **_: object) -> dict[str, tf.Tensor]:
            return {name: network(value) for name, value in inputs.items()}

        return algorithm.losses(forward, changed, tiny.context()).unlabeled["consistency"].values.numpy()

    plain = consistency(None)
    np.testing.assert_array_equal(consistency("labeled"), plain)
    assert np.abs(consistency("unlabeled") - plain).max() > 0.1
