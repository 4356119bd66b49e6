"""A step of teacher and student against both networks and a step of gradient descent, composed and written out."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms.batch import TEACHER_LABEL, Batch
from metassl_tf.meta.feedback import HARD
from tests.learner import tiny
from tests.meta.taught import RATE, Made, Nothing, batch_of, flat, make, teacher_change, weights_of


def forward(weights: list[tf.Tensor], inputs: tf.Tensor) -> tf.Tensor:
    """The tiny network without batch norm."""
    kernel_1, bias_1, kernel_2, bias_2 = weights
    return tf.tanh(inputs @ kernel_1 + bias_1) @ kernel_2 + bias_2


class WrittenOut:
    """One step of gradient descent of a rule's student, as a composition of both networks' functions.

    Attributes:
      gradient: of the student's loss.
      moved: the student's weights behind the step.
      labeled: its loss on labeled examples there, differentiable by `teacher`.
      before: the same ahead of the step.
      slope: gradient of the first.
    """

    def __init__(self, made: Made, batch: Batch, *, smoothing: float, weights: Any, temperature: float = 1.0) -> None:
        self.teacher, self.student = ([tf.constant(part) for part in weights_of(own)] for own in made.learners)
        self.images, self.batch = batch.unlabeled.views[made.rule.roles.view], batch
        self.temperature, self.smoothing = temperature, smoothing
        self.weights = tf.ones([tiny.UNLABELED]) if weights is None else weights

    def log_probability(self) -> tf.Tensor:
        """Of the teacher, [unlabeled, classes]."""
        return tf.nn.log_softmax(forward(self.teacher, self.images) / self.temperature)

    def take(self, target: tf.Tensor) -> "WrittenOut":
        """Takes the step on these labels."""
        target = (1 - self.smoothing) * target + self.smoothing / tiny.CLASSES
        with tf.GradientTape() as tape:
            tape.watch(self.student)
            loss = tf.reduce_mean(self.weights * losses.cross_entropy(target, forward(self.student, self.images)))
        self.gradient = tape.gradient(loss, self.student)
        self.moved = [part - RATE * slope for part, slope in zip(self.student, self.gradient, strict=True)]
        with tf.GradientTape() as tape:
            tape.watch(self.moved)
            self.labeled = self.labeled_loss(self.moved)
        self.slope = tape.gradient(self.labeled, self.moved)
        self.before = self.labeled_loss(self.student)
        return self

    def labeled_loss(self, at: list[tf.Tensor]) -> tf.Tensor:
        label = tf.one_hot(self.batch.labeled.label, tiny.CLASSES)
        return tf.reduce_mean(losses.cross_entropy(label, forward(at, self.batch.labeled.views["weak"])))


DESCENT = {"rule": tiny.Sgd(momentum=0.0, nesterov=False)}
SOME_WEIGHTS = tf.constant([0.0, 0.5, 1.0, 2.0, 1.5, 0.25, 1.0, 3.0])
# The first step of Nesterov's momentum is 1.9 learning rates long.
TEACHER_RATE = 1.9 * RATE


@pytest.mark.parametrize("form", ["soft", "soft_jvp"])
@pytest.mark.parametrize(("smoothing", "weights"), [(0.0, None), (0.2, SOME_WEIGHTS)], ids=["plain", "weighted"])
def test_teacher_descends_the_lookahead_loss(form: str, smoothing: float, weights: Any) -> None:
    made = make(
        algorithm=Nothing(), batch_norm=False, feedback=form, student_label_smoothing=smoothing, student=DESCENT
    )
    batch = batch_of(Nothing())
    own = WrittenOut(made, batch, smoothing=smoothing, weights=weights)
    with tf.GradientTape() as tape:
        tape.watch(own.teacher)
        labeled = own.take(tf.exp(own.log_probability())).labeled
    expected = tape.gradient(labeled, own.teacher)
    made.rule.begin_step(batch, tiny.context(), tf.ones([]), weights).apply()
    for change, slope in zip(teacher_change(made, own.teacher), expected, strict=True):
        np.testing.assert_allclose(change, -TEACHER_RATE * slope, rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(flat(weights_of(made.rule.student)), flat(own.moved), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", HARD)
def test_teacher_is_reinforced_by_what_its_samples_were_worth(form: str) -> None:
    """(h - b) grad CE(y, T), with h of these very labels, weights of examples and the temperature they came from."""
    settings = {"student_label_smoothing": 0.2, "distillation_temperature": 2.0, "feedback_weight": 3.0}
    made = make(algorithm=Nothing(), batch_norm=False, feedback=form, student=DESCENT, **settings)
    (baseline,) = made.rule.state_variables["teaching"]
    baseline.assign(0.125)
    batch = batch_of(Nothing())
    own = WrittenOut(made, batch, smoothing=0.2, weights=SOME_WEIGHTS, temperature=2.0)
    pending = made.rule.begin_step(batch, tiny.context(), tf.ones([]), SOME_WEIGHTS)
    target = pending.evaluated.batch.unlabeled.columns[TEACHER_LABEL]
    own.take(target)
    product = np.dot(flat(own.slope), flat(own.gradient))
    lengths = np.linalg.norm(flat(own.slope)) * np.linalg.norm(flat(own.gradient))
    usefulness = {
        "hard": RATE * product,
        "hard_cosine": product / lengths,
        "hard_difference": float(own.before - own.labeled),
    }[form]
    with tf.GradientTape() as tape:
        tape.watch(own.teacher)
        log_probability = tf.reduce_sum(target * own.log_probability(), axis=1)
        reduce = tf.reduce_mean if form == "hard_cosine" else tf.reduce_sum
        loss = -3.0 * (usefulness - 0.125) * reduce(log_probability)
    expected = tape.gradient(loss, own.teacher)
    sums = pending.apply()
    np.testing.assert_allclose(sums["feedback/usefulness"][0], usefulness, rtol=1e-4)
    for change, slope in zip(teacher_change(made, own.teacher), expected, strict=True):
        np.testing.assert_allclose(change, -TEACHER_RATE * slope, rtol=2e-3, atol=1e-6)
