"""A calibrator as the teacher, on real networks: what it sees, what the student learns, and what comes back."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.base import Context, Needs
from metassl_tf.algorithms.batch import TEACHER_LABEL, Batch
from metassl_tf.algorithms.noisy_student import NoisyStudent
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.step import Sums, Training
from metassl_tf.learner.update_rules import Adam
from metassl_tf.meta.reduced_meta_pseudo_labels import JUDGED, ReducedMetaPseudoLabels
from metassl_tf.meta.roles import calibrating_teacher
from metassl_tf.meta.teaching import Teaching
from metassl_tf.models.calibrator import Start, build_calibrator
from tests.learner import tiny

RATE = 0.3
ALGORITHM = NoisyStudent()


class Both:
    """The algorithm, with what the rule needs beside it."""

    losses = ALGORITHM.losses

    def needs(self) -> Needs:
        return ReducedMetaPseudoLabels().needs(ALGORITHM.needs())


def batch_of(seed: int = 0) -> Batch:
    return tiny.batch_for(Both(), seed=seed)


def make(
    strategy: tf.distribute.Strategy | None = None,
    *,
    start: Start = "random",
    rate: float = RATE,
    student: dict[str, Any] | None = None,
    dropout: float = 0.0,
    **settings: Any,
) -> Teaching:
    with (strategy or tf.distribute.get_strategy()).scope():
        keras.utils.set_random_seed(3)
        calibrator = build_calibrator(tiny.CLASSES, units=7, start=start)
        learners = (
            Learner(calibrator, tiny.optimization(learning_rate=rate), seed=0),
            Learner(
                tiny.network(batch_norm=True, dropout=dropout),
                tiny.optimization(learning_rate=RATE, **(student or {})),
                seed=1,
            ),
        )
        return Teaching(ReducedMetaPseudoLabels(**settings), *learners, calibrating_teacher(ALGORITHM), seed=5)


def take(rule: Teaching, number: int = 0, *, unlabeled_weight: float = 1.0, seed: int = 0) -> Sums:
    context = Context(tf.constant(number, tf.int64), tiny.STEPS)
    return rule.begin_step(batch_of(seed), context, tf.constant(unlabeled_weight)).apply()


def weights(learner: Learner) -> np.ndarray:
    return np.concatenate([np.ravel(variable.numpy()) for variable in learner.trainable_variables])


def test_calibrator_is_by_default_that_of_the_paper() -> None:
    """arXiv:2003.10580v1, appendix C.2, for CIFAR-10 and SVHN."""
    settings = ReducedMetaPseudoLabels()
    assert settings.rule == Adam(beta_1=0.9, beta_2=0.999, epsilon=1e-7)
    assert settings.calibrator_units == 128
    assert settings.calibrator_learning_rate == settings.calibrator_l2_weight_decay == 1e-4


@pytest.mark.parametrize("unlabeled_weight", [1.0, 2.5])
def test_an_identity_without_feedback_is_noisy_student(unlabeled_weight: float) -> None:
    """A calibrator that stays the identity changes nothing, so that what is left is the baseline, to the last digit."""
    rule = make(start="identity", rate=0.0, feedback="none")
    alone = Training(Learner(tiny.network(batch_norm=True), tiny.optimization(learning_rate=RATE), seed=1), ALGORITHM)
    for number in range(3):
        take(rule, number, unlabeled_weight=unlabeled_weight, seed=number)
        context = Context(tf.constant(number, tf.int64), tiny.STEPS)
        alone.begin_step(batch_of(number), context, tf.constant(unlabeled_weight)).apply()
    np.testing.assert_allclose(weights(rule.student), weights(alone.learner), rtol=1e-4, atol=1e-6)


def test_calibrator_learns_labels_from_stored_distributions() -> None:
    """Without feedback its gradient is that of the cross-entropy of calibrated labeled examples."""
    rule = make(feedback="none")
    batch, before = batch_of(), weights(rule.teacher)
    with tf.GradientTape() as tape:
        logits = rule.teacher.model(batch.labeled.columns[TEACHER_LABEL])
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=batch.labeled.label, logits=logits))
    gradient = tape.gradient(loss, rule.teacher.trainable_variables)
    expected = -RATE * 1.9 * np.concatenate([np.ravel(part) for part in gradient])  # the first step of Nesterov's
    take(rule)
    np.testing.assert_allclose(weights(rule.teacher) - before, expected, rtol=1e-3, atol=1e-6)


def lookahead(rule: Teaching, unlabeled_weight: float) -> float:
    """L_l(theta'_S), written out: one step of Noisy Student on the labels of the calibrator as it is."""
    batch = batch_of()
    model, parameters = rule.student.model, rule.student.trainable_variables
    target = tf.nn.softmax(rule.teacher.model(batch.unlabeled.columns[TEACHER_LABEL]))
    kept = [variable.numpy() for variable in model.variables]
    with tf.GradientTape() as tape:
        joint = tf.concat([batch.labeled.views["strong"], batch.unlabeled.views["strong"]], axis=0)
        labeled, unlabeled = tf.split(model(joint, training=True), [tiny.LABELED, tiny.UNLABELED])
        one_hot = tf.one_hot(batch.labeled.label, tiny.CLASSES)
        loss = -tf.reduce_sum(one_hot * tf.nn.log_softmax(labeled)) / tiny.LABELED
        loss -= unlabeled_weight * tf.reduce_sum(target * tf.nn.log_softmax(unlabeled)) / tiny.UNLABELED
    for variable, gradient in zip(parameters, tape.gradient(loss, parameters), strict=True):
        variable.assign_sub(RATE * 1.9 * gradient)
    judged = tf.nn.log_softmax(model(batch.labeled.views[JUDGED], training=True))
    value = -float(tf.reduce_sum(one_hot * judged)) / tiny.LABELED
    for variable, old in zip(model.variables, kept, strict=True):
        variable.assign(old)
    return value


@pytest.mark.parametrize("form", ["soft", "soft_jvp"])
@pytest.mark.parametrize("unlabeled_weight", [1.0, 2.5])
def test_feedback_is_the_slope_of_the_lookahead(form: str, unlabeled_weight: float) -> None:
    """Through the joint batch norm of labeled and unlabeled images; along the direction in which the teacher moves."""
    rule, control = make(feedback=form, feedback_weight=10.0), make(feedback="none")
    before = weights(rule.teacher)
    for own in (rule, control):
        take(own, unlabeled_weight=unlabeled_weight)
    gradient = (weights(rule.teacher) - weights(control.teacher)) / (-RATE * 1.9 * 10.0)
    assert np.linalg.norm(gradient) > 1e-4

    probe, size = make(feedback="none"), 1e-2
    values = []
    for sign in (1, -1):
        moved = before + sign * size * gradient / np.linalg.norm(gradient)
        for variable in probe.teacher.trainable_variables:
            count = int(np.prod(variable.shape))
            variable.assign(np.reshape(moved[:count], variable.shape))
            moved = moved[count:]
        values.append(lookahead(probe, unlabeled_weight))
    slope = (values[0] - values[1]) / (2 * size)
    assert slope == pytest.approx(np.linalg.norm(gradient), rel=0.02)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_both_forms_agree(dropout: float) -> None:
    """Dropout too is the same in the student's loss and in the product along it."""
    rules = [make(feedback=form, dropout=dropout, student={"gradient_clip_norm": 0.3}) for form in ("soft", "soft_jvp")]
    for number in range(3):
        for rule in rules:
            take(rule, number, seed=number)
    np.testing.assert_allclose(weights(rules[0].teacher), weights(rules[1].teacher), rtol=1e-3, atol=1e-5)
    assert np.abs(weights(rules[0].teacher) - weights(make().teacher)).max() > 1e-3


def test_two_replicas_do_what_one_does(mirrored: tf.distribute.Strategy) -> None:
    one, two = make(), make(mirrored)

    def replica_step(batch: Batch, number: tf.Tensor) -> Sums:
        context = Context(number, tiny.STEPS)
        return two.begin_step(tiny.replica_part(batch), context, tf.ones([])).apply()

    @tf.function(autograph=False)
    def step(batch: Batch, number: tf.Tensor) -> Sums:
        return tiny.first_replica(mirrored, mirrored.run(replica_step, args=(batch, number)))

    for number in range(3):
        left, right = take(one, number, seed=number), step(batch_of(number), tf.constant(number, tf.int64))
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_allclose(right[name], left[name], rtol=2e-3, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(weights(two.teacher), weights(one.teacher), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(weights(two.student), weights(one.student), rtol=1e-3, atol=1e-5)
