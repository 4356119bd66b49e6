"""A step of teacher and student on real networks: what moves, when, and that replicas agree."""

import functools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.batch import TEACHER_LABEL
from metassl_tf.losses import cross_entropy
from metassl_tf.meta.feedback import FORMS, HARD
from tests.learner import tiny
from tests.meta.taught import RATE, Nothing, batch_of, flat, make, teacher_change, weights_of


@pytest.mark.parametrize("form", FORMS)
def test_feedback_alone_moves_the_teacher(form: str) -> None:
    made, control = (make(algorithm=Nothing(), feedback=feedback) for feedback in (form, "none"))
    for own, moves in ((made, True), (control, False)):
        before = weights_of(own.rule.teacher)
        own.step(batch_of(Nothing()), tf.constant(0, tf.int64))
        assert any(change.any() for change in teacher_change(own, before)) == moves


def test_feedback_weight_scales_what_the_teacher_hears() -> None:
    changes = []
    for weight in (1.0, 3.0):
        made = make(algorithm=Nothing(), feedback="soft_jvp", feedback_weight=weight)
        before = weights_of(made.rule.teacher)
        made.step(batch_of(Nothing()), tf.constant(0, tf.int64))
        changes.append(flat(teacher_change(made, before)))
    np.testing.assert_allclose(changes[1], 3 * changes[0], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_both_soft_forms_agree_through_batch_norm_and_dropout(dropout: float) -> None:
    both = [make(feedback=form, dropout=dropout, student={"gradient_clip_norm": 0.3}) for form in ("soft", "soft_jvp")]
    for number in range(3):
        for made in both:
            made.take(number)
    for left, right in zip(*(made.state(made.rule.teacher) for made in both), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)


def test_losses_before_and_after_the_step_are_those_without_dropout() -> None:
    made = make(feedback="hard_difference", dropout=0.5)
    batch, without = batch_of(), tiny.network(batch_norm=True)

    def labeled_loss() -> float:
        for own, variable in zip(without.trainable_variables, weights_of(made.rule.student), strict=True):
            own.assign(variable)
        logits = without(batch.labeled.views["weak"], training=True)
        return float(tf.reduce_mean(cross_entropy(tf.one_hot(batch.labeled.label, tiny.CLASSES), logits)))

    before = labeled_loss()
    found = float(made.step(batch, tf.constant(0, tf.int64))["feedback/usefulness"][0])
    assert found == pytest.approx(before - labeled_loss(), rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_teacher_hears_nothing_of_a_student_that_waits(form: str) -> None:
    made = make(algorithm=Nothing(), feedback=form, student_wait_steps=1)
    before = weights_of(made.rule.teacher)
    for number, moves in ((0, False), (1, True)):
        made.step(batch_of(Nothing()), tf.constant(number, tf.int64))
        assert any(change.any() for change in teacher_change(made, before)) == moves


def test_waiting_student_does_not_move_and_says_nothing() -> None:
    made = make(student_wait_steps=2, feedback="hard_cosine", baseline_decay=0.5)
    before, teacher = made.state(made.rule.student), made.state(made.rule.teacher)
    for number in range(2):
        metrics = made.take(number)
        assert metrics["feedback/usefulness"] == 0.0
        assert metrics["feedback/cosine"] != 0.0
    for left, right in zip(made.state(made.rule.student), before, strict=True):
        np.testing.assert_array_equal(left, right)
    assert any((left != right).any() for left, right in zip(made.state(made.rule.teacher), teacher, strict=True))
    assert float(made.rule.state_variables["teaching"][0]) == 0.0
    assert made.take(2)["feedback/usefulness"] != 0.0
    assert all((left != right).any() for left, right in zip(weights_of(made.rule.student), before, strict=False))


def test_student_counts_its_own_steps() -> None:
    """A student that starts two steps late takes, on the same labels, the steps of one that has not waited."""
    late, early = (
        make(student_wait_steps=wait, freeze_teacher=True, student_labels="argmax", student={"warmup_steps": 4})
        for wait in (2, 0)
    )
    for number in range(4):
        late.take(number, seed=max(number - 2, 0))
    for number in range(2):
        early.take(number, seed=number)
    for left, right in zip(late.state(late.rule.student), early.state(early.rule.student), strict=True):
        np.testing.assert_array_equal(left, right)


def test_rates_and_norms_are_of_the_network_that_they_name() -> None:
    """The rate of one that does not move is 0; a norm is that of the gradient, of one that waits too."""
    waiting, frozen = make(student_wait_steps=2), make(freeze_teacher=True)
    for made, number, moving in (
        (waiting, 1, {"teacher"}),
        (waiting, 2, {"teacher", "student"}),
        (frozen, 1, {"student"}),
    ):
        rates = made.rule.learning_rates(tf.constant(number, tf.int64))
        assert {name.partition("/")[0] for name, rate in rates.items() if float(rate) > 0.0} == moving
    made = make(feedback="none")
    before = [weights_of(learner) for learner in made.learners]
    metrics = made.take(0, seed=0)
    for name, learner, old in zip(("teacher", "student"), made.learners, before, strict=True):
        moved = flat(weights_of(learner)) - flat(old)
        first_step = RATE * 1.9  # of Nesterov's momentum of 0.9, times the gradient
        assert metrics[f"{name}/gradient_norm"] == pytest.approx(np.linalg.norm(moved) / first_step, rel=1e-3)


def test_lookahead_counts_the_student_s_steps() -> None:
    """Labels that are not sampled are the same at any step; the warm-up is not."""
    changes = []
    for wait, number in ((2, 3), (0, 1), (0, 3)):
        made = make(feedback="soft_jvp", student_wait_steps=wait, student={"warmup_steps": 4})
        before = weights_of(made.rule.teacher)
        made.take(number, seed=0)
        changes.append(flat(teacher_change(made, before)))
        rates = made.rule.learning_rates(tf.constant(number, tf.int64))
        assert float(rates["student/learning_rate"]) == pytest.approx(RATE * (number - wait + 1) / 4)
        assert float(rates["teacher/learning_rate"]) == pytest.approx(RATE)
    np.testing.assert_array_equal(changes[0], changes[1])
    assert np.abs(changes[0] - changes[2]).max() > 1e-4


@pytest.mark.parametrize("form", HARD)
def test_teacher_hears_the_advantage_of_what_it_drew(form: str) -> None:
    """-(h - b) grad sum_u log T(y_u | x_u), Eq. 5.12 with b as it was; the mean over u for the cosine."""
    made, number = make(algorithm=Nothing(), feedback=form, baseline_decay=0.5), tf.constant(1, tf.int64)
    made.step(batch_of(Nothing(), seed=0), tf.constant(0, tf.int64))
    rule, batch = made.rule, batch_of(Nothing(), seed=1)
    teacher, before = rule.teacher, weights_of(rule.teacher)
    (baseline,) = (float(own) for own in rule.state_variables["teaching"])
    pending = rule.begin_step(batch, tiny.context(1), tf.ones([]))
    labels = pending.evaluated.batch.unlabeled.columns[TEACHER_LABEL]
    images = tf.concat([batch.labeled.views["weak"], batch.unlabeled.views["student"]], axis=0)
    with tf.GradientTape() as tape, keras.StatelessScope():
        said = tf.nn.log_softmax(teacher.model(images, training=True))[-len(labels) :]
        loss = -tf.reduce_sum(labels * said)
    slope = tape.gradient(loss, teacher.trainable_variables)
    # Gradient descent with momentum is linear in the gradient.
    without, by_one = (
        flat(teacher.pure_update([share * part for part in slope], step=number).changes) for share in (0.0, 1.0)
    )
    advantage = float(pending.apply()["feedback/usefulness"][0]) - baseline
    advantage /= len(labels) if form == "hard_cosine" else 1
    assert abs(baseline) > 1e-4
    assert abs(advantage) > 1e-4
    expected = without + advantage * (by_one - without)
    np.testing.assert_allclose(flat(teacher_change(made, before)), expected, rtol=1e-3, atol=1e-6)


def test_baseline_is_subtracted_before_it_moves() -> None:
    decay = 0.75
    made = make(feedback="hard_cosine", baseline_decay=decay)
    baseline = 0.0
    for number in range(3):
        metrics = made.take(number)
        assert metrics["feedback/baseline"] == pytest.approx(baseline, rel=1e-5, abs=1e-7)
        baseline = decay * baseline + (1 - decay) * metrics["feedback/usefulness"]
    assert float(made.rule.state_variables["teaching"][0]) == pytest.approx(baseline, rel=1e-5)
    without = make(feedback="hard_cosine", baseline_decay=0.0)
    assert "feedback/baseline" not in without.take(0)
    with_one, plain = (weights_of(own.rule.teacher) for own in (made, without))
    assert any((left != right).any() for left, right in zip(with_one, plain, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_moving_statistics_of_both_networks_follow_one_pass_of_a_step(form: str) -> None:
    """The teacher's pass over its own images, of which the student's are some; the student's over those alone."""
    made = make(feedback=form)
    batch = batch_of()
    weak, strong = batch.unlabeled.views["weak"], batch.unlabeled.views["strong"]
    seen = (tf.concat([batch.labeled.views["weak"], weak, strong], axis=0), strong)
    expected = []
    for learner, images in zip(made.learners, seen, strict=True):
        hidden = images @ weights_of(learner)[0]
        expected.append((0.1 * tf.reduce_mean(hidden, axis=0), 0.9 + 0.1 * tf.math.reduce_variance(hidden, axis=0)))
    made.step(batch, tf.constant(0, tf.int64))
    for learner, statistics in zip(made.learners, expected, strict=True):
        for found, value in zip(learner.model.non_trainable_variables, statistics, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)


def test_unlabeled_weight_is_of_the_teacher_s_own_losses() -> None:
    without, plain = (make(feedback="none", unlabeled_weight=weight) for weight in (0.0, 1.0))
    for made in (without, plain):
        made.take(0)
    teachers, students = ([flat(weights_of(made.learners[who])) for made in (without, plain)] for who in (0, 1))
    assert (teachers[0] != teachers[1]).any()
    np.testing.assert_array_equal(*students)


@pytest.mark.parametrize("form", FORMS)
def test_two_replicas_do_what_one_does(form: str, mirrored: tf.distribute.Strategy) -> None:
    one, two = make(feedback=form), make(mirrored, mode="graph", feedback=form)
    for number in range(3):
        left, right = one.take(number), two.take(number)
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert right[name] == pytest.approx(value, rel=2e-3, abs=2e-5), name
    for learners in zip(one.learners, two.learners, strict=True):
        for first, second in zip(one.state(learners[0]), two.state(learners[1]), strict=True):
            np.testing.assert_allclose(second, first, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("form", ["hard", "soft", "soft_jvp"])  # samples, backward and forward through the update
def test_step_compiles_and_agrees(form: str) -> None:
    plain, compiled = make(feedback=form), make(feedback=form, mode="xla")
    for number in range(2):
        left, right = plain.take(number), compiled.take(number)
        for name, value in left.items():
            assert right[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    assert compiled.step.experimental_get_tracing_count() == 1


@functools.cache
def after_three_steps(**settings: Any) -> np.ndarray:
    made = make(dropout=0.3, student_wait_steps=settings.pop("student_wait_steps", 0), **settings)
    for number in range(3):
        made.take(number)
    return flat([part for learner in made.learners for part in weights_of(learner)])


@pytest.mark.parametrize(
    "settings",
    [
        *({"feedback": form} for form in ("hard", "hard_cosine", "hard_difference", "none")),
        {"feedback_weight": 2.0},
        {"feedback_batch_norm": "inference"},
        {"feedback": "hard_cosine", "baseline_decay": 0.5},
        {"distillation_temperature": 2.0},
        {"student_label_smoothing": 0.3},
        {"student_wait_steps": 1},
        {"freeze_teacher": True},
        {"feedback": "none", "student_labels": "argmax"},
        {"feedback": "none", "student_labels": "sampled"},
    ],
    ids=str,
)
def test_every_setting_matters(settings: dict[str, Any]) -> None:
    # What only one form has an effect on is compared within it.
    own = {"student_labels", "baseline_decay"} & settings.keys()
    plain = {"feedback": settings["feedback"]} if own else {}
    assert np.abs(after_three_steps(**settings) - after_three_steps(**plain)).max() > 1e-4
