"""A step of teacher and student on real networks: what it computes, what moves, and that replicas agree."""

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms import ALGORITHMS
from metassl_tf.algorithms.base import Algorithm, Batch, Context
from metassl_tf.algorithms.supervised import Supervised
from metassl_tf.algorithms.uda import Uda
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.step import Sums
from metassl_tf.meta.feedback import FORMS
from metassl_tf.meta.meta_pseudo_labels import MetaPseudoLabels
from metassl_tf.meta.student import TARGET, student_view
from metassl_tf.meta.teaching import Teaching
from tests.learner import tiny

UDA = Uda(threshold=0.5)
RATE = 0.2


class Made(NamedTuple):
    """A rule, with a step of it as a run takes it."""

    rule: Teaching
    strategy: tf.distribute.Strategy
    step: Any

    def take(self, number: int, *, seed: int | None = None) -> dict[str, float]:
        batch = batch_of(seed=number if seed is None else seed)
        sums = self.step(batch, tf.constant(number, tf.int64))
        return {name: float(total / count) for name, (total, count) in sums.items() if count}

    def state(self, learner: Learner) -> list[np.ndarray]:
        return [variable.numpy() for group in learner.state_variables.values() for variable in group]


def batch_of(algorithm: Algorithm = UDA, *, seed: int = 0) -> Batch:
    """What the algorithm needs and the student's view beside it."""

    class Both:
        def needs(self) -> Any:
            return student_view(algorithm.needs())[1]

    return tiny.batch_for(Both(), seed=seed)  # type: ignore[arg-type]


def make(
    strategy: tf.distribute.Strategy | None = None,
    *,
    algorithm: Algorithm = UDA,
    batch_norm: bool = True,
    jit: bool = False,
    dropout: float = 0.0,
    student: dict[str, Any] | None = None,
    unlabeled_weight: float = 1.0,
    **settings: Any,
) -> Made:
    """Two tiny networks of different weights."""
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        learners = [
            Learner(
                tiny.network(batch_norm=batch_norm, dropout=dropout, seed=seed),
                tiny.optimization(learning_rate=RATE, **(student or {} if seed else {})),
                seed=seed,
            )
            for seed in (0, 1)
        ]
        rule = Teaching(MetaPseudoLabels(**settings), *learners, algorithm, seed=5)

    def replica_step(batch: Batch, number: tf.Tensor) -> Sums:
        weight = tf.constant(unlabeled_weight)
        return rule.begin_step(tiny.replica_part(batch), Context(number, tiny.STEPS), weight).apply()

    @tf.function(jit_compile=jit, autograph=False)
    def step(batch: Batch, number: tf.Tensor) -> Sums:
        return tiny.first_replica(strategy, strategy.run(replica_step, args=(batch, number)))

    return Made(rule, strategy, step)


def teacher_change(made: Made, before: list[np.ndarray]) -> list[np.ndarray]:
    after = [variable.numpy() for variable in made.rule.teacher.trainable_variables]
    return [there - here for there, here in zip(after, before, strict=True)]


def weights_of(learner: Learner) -> list[np.ndarray]:
    return [variable.numpy() for variable in learner.trainable_variables]


class Nothing:
    """An algorithm without a loss: the teacher learns from the feedback alone."""

    def needs(self) -> Any:
        return Supervised().needs()

    def losses(self, forward: Any, batch: Batch, context: Context) -> Any:
        found = Supervised().losses(forward, batch, context)
        term = found.labeled["cross_entropy"]
        return found._replace(labeled={"cross_entropy": term._replace(coefficient=0.0)})


def forward(weights: list[tf.Tensor], inputs: tf.Tensor) -> tf.Tensor:
    """The tiny network without batch norm."""
    kernel_1, bias_1, kernel_2, bias_2 = weights
    return tf.tanh(inputs @ kernel_1 + bias_1) @ kernel_2 + bias_2


@pytest.mark.parametrize("form", ["soft", "soft_jvp"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_teacher_descends_the_lookahead_loss(form: str, smoothing: float) -> None:
    """Against the composition of both networks and a step of gradient descent, written out."""
    made = make(
        algorithm=Nothing(),
        batch_norm=False,
        feedback=form,
        student_label_smoothing=smoothing,
        student={"rule": tiny.Sgd(momentum=0.0, nesterov=False)},
    )
    batch = batch_of(Nothing())
    teacher, student = weights_of(made.rule.teacher), weights_of(made.rule.student)
    images = batch.unlabeled.views[made.rule.lesson.view]
    label = tf.one_hot(batch.labeled.label, tiny.CLASSES)
    weights, own = [tf.constant(part) for part in teacher], [tf.constant(part) for part in student]
    with tf.GradientTape() as outer:
        outer.watch(weights)
        target = tf.nn.softmax(forward(weights, images))
        target = (1 - smoothing) * target + smoothing / tiny.CLASSES
        with tf.GradientTape() as inner:
            inner.watch(own)
            loss = tf.reduce_mean(losses.cross_entropy(target, forward(own, images)))
        moved = [part - RATE * slope for part, slope in zip(own, inner.gradient(loss, own), strict=True)]
        labeled = tf.reduce_mean(losses.cross_entropy(label, forward(moved, batch.labeled.views["weak"])))
    expected = outer.gradient(labeled, weights)
    made.step(batch, tf.constant(0, tf.int64))
    for change, slope in zip(teacher_change(made, teacher), expected, strict=True):
        # The first step of Nesterov's momentum is 1.9 learning rates long.
        np.testing.assert_allclose(change, -1.9 * RATE * slope, rtol=2e-3, atol=1e-7)
    for there, here in zip(weights_of(made.rule.student), moved, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_feedback_alone_moves_the_teacher(form: str) -> None:
    made, control = (make(algorithm=Nothing(), feedback=feedback) for feedback in (form, "none"))
    for own, moves in ((made, True), (control, False)):
        before = weights_of(own.rule.teacher)
        own.step(batch_of(Nothing()), tf.constant(0, tf.int64))
        assert any(change.any() for change in teacher_change(own, before)) == moves


def test_feedback_weight_scales_what_the_teacher_hears() -> None:
    changes = []
    for weight in (0.0, 1.0, 3.0):
        made = make(algorithm=Nothing(), feedback="soft_jvp", feedback_weight=weight)
        before = weights_of(made.rule.teacher)
        made.step(batch_of(Nothing()), tf.constant(0, tf.int64))
        changes.append(np.concatenate([change.ravel() for change in teacher_change(made, before)]))
    assert not changes[0].any()
    np.testing.assert_allclose(changes[2], 3 * changes[1], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_both_soft_forms_agree_through_batch_norm_and_dropout(dropout: float) -> None:
    both = [make(feedback=form, dropout=dropout, student={"gradient_clip_norm": 0.3}) for form in ("soft", "soft_jvp")]
    for number in range(3):
        for made in both:
            made.take(number)
    for left, right in zip(*(made.state(made.rule.teacher) for made in both), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_any_algorithm_teaches(algorithm: str) -> None:
    """One joint pass labels the student's images, whatever the algorithm makes of its own."""
    chosen = ALGORITHMS[algorithm]()
    made = make(algorithm=chosen)
    batch = batch_of(chosen)
    sums = made.step(batch, tf.constant(0, tf.int64))
    assert all(np.isfinite(value).all() for value in sums.values())
    assert made.rule.lesson.view in batch.unlabeled.views
    assert {"student/loss", "feedback/usefulness", "student/agreement"} <= set(sums)


def test_teacher_labels_the_images_that_the_student_sees_in_the_pass_of_its_own_losses() -> None:
    seen: dict[str, Any] = {}
    made = make(feedback="none", student_labels="soft")
    begin, teach = made.rule.teacher.begin, made.rule.teach

    def spied_begin(*arguments: Any, **options: Any) -> Any:
        seen["pass"] = begin(*arguments, **options)
        return seen["pass"]

    def spied_teach(batch: Batch, labels: Any, *rest: Any) -> Any:
        seen["lesson"] = teach(batch, labels, *rest)
        return seen["lesson"]

    made.rule.teacher.begin, made.rule.teach = spied_begin, spied_teach  # type: ignore[method-assign]
    batch = batch_of()
    made.rule.begin_step(batch, tiny.context(), tf.ones([]))
    (call,) = seen["pass"].calls
    lesson = seen["lesson"]
    np.testing.assert_array_equal(lesson.batch.unlabeled.columns[TARGET], tf.nn.softmax(call.logits["strong"]))
    assert lesson.batch.unlabeled.views[made.rule.lesson.view] is batch.unlabeled.views["strong"]


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


def test_frozen_teacher_stays_and_labels_without_noise() -> None:
    made = make(freeze_teacher=True, student_labels="argmax", dropout=0.5)
    before = made.state(made.rule.teacher)
    first, second = made.take(0, seed=0), made.take(1, seed=0)
    for left, right in zip(made.state(made.rule.teacher), before, strict=True):
        np.testing.assert_array_equal(left, right)
    assert second["student/loss"] < first["student/loss"]
    assert not {name for name in first if name.startswith("feedback") or name == "loss"}


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_is_of_the_distribution_that_is_taught(temperature: float) -> None:
    made = make(freeze_teacher=True, student_labels="soft", distillation_temperature=temperature)
    batch = batch_of()
    pending = made.rule.begin_step(batch, tiny.context(), tf.ones([]))
    logits = made.rule.teacher.predict(batch.unlabeled.views["strong"], parameters="raw")
    expected = tf.nn.softmax(logits / temperature)
    np.testing.assert_allclose(pending.evaluated.batch.unlabeled.columns[TARGET], expected, rtol=1e-6)


@pytest.mark.parametrize("form", [*FORMS, "none"])
def test_two_replicas_do_what_one_does(form: str, mirrored: tf.distribute.Strategy) -> None:
    one, two = make(feedback=form), make(mirrored, feedback=form)
    for number in range(3):
        left, right = one.take(number), two.take(number)
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert right[name] == pytest.approx(value, rel=2e-3, abs=2e-5), name
    for learners in zip((one.rule.teacher, one.rule.student), (two.rule.teacher, two.rule.student), strict=True):
        for first, second in zip(one.state(learners[0]), two.state(learners[1]), strict=True):
            np.testing.assert_allclose(second, first, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("form", [*FORMS, "none"])
def test_step_compiles_and_agrees(form: str) -> None:
    plain, compiled = make(feedback=form), make(feedback=form, jit=True)
    for number in range(2):
        left, right = plain.take(number), compiled.take(number)
        for name, value in left.items():
            assert right[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    assert plain.step.experimental_get_tracing_count() == compiled.step.experimental_get_tracing_count() == 1


@functools.cache
def after_three_steps(**settings: Any) -> np.ndarray:
    made = make(dropout=0.3, student_wait_steps=settings.pop("student_wait_steps", 0), **settings)
    for number in range(3):
        made.take(number)
    return np.concatenate(
        [part.ravel() for learner in (made.rule.teacher, made.rule.student) for part in weights_of(learner)]
    )


@pytest.mark.parametrize(
    "settings",
    [
        *({"feedback": form} for form in ("hard", "hard_difference", "soft_jvp", "none")),
        {"feedback_weight": 2.0},
        {"feedback_batch_norm": "inference"},
        {"baseline_decay": 0.5},
        {"distillation_temperature": 2.0},
        {"student_label_smoothing": 0.3},
        {"student_wait_steps": 1},
        {"freeze_teacher": True},
        {"feedback": "none", "student_labels": "argmax"},
        {"feedback": "none", "student_labels": "soft"},
    ],
    ids=str,
)
def test_every_setting_matters(settings: dict[str, Any]) -> None:
    plain = {"feedback": "none"} if "student_labels" in settings else {}
    assert np.abs(after_three_steps(**settings) - after_three_steps(**plain)).max() > 1e-4
