"""What a student learns from: which images, in which pass of the teacher, and how labels are made of its logits."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms import ALGORITHMS
from metassl_tf.algorithms.base import Context, Forward, Losses, Needs, Term
from metassl_tf.algorithms.batch import TEACHER_LABEL, Batch
from metassl_tf.losses import cross_entropy
from metassl_tf.meta.student import SAMPLERS, Sample, SharedForward
from tests.learner import tiny
from tests.meta.taught import Nothing, batch_of, flat, make, teacher_change, weights_of


def sample_of(form: str, logits: tf.Tensor, seed: list[int]) -> Sample:
    examples = tf.zeros([len(logits), 1])
    return SAMPLERS[form](lambda _: logits, examples, examples, tf.constant(seed))


def test_samples_follow_the_distribution_and_the_seed() -> None:
    probability = np.array([0.1, 0.2, 0.7])
    logits = tf.constant(np.tile(np.log(probability) + 3.0, [20_000, 1]), tf.float32)
    sample = sample_of("sampled", logits, [1, 2])
    frequency = sample.labels.numpy().mean(axis=0)
    np.testing.assert_allclose(frequency, probability, atol=0.01)
    chosen = sample.labels.numpy().argmax(axis=1)
    np.testing.assert_allclose(sample.log_probability, np.log(probability)[chosen], rtol=1e-5)
    np.testing.assert_array_equal(sample_of("sampled", logits, [1, 2]).labels, sample.labels)
    assert (sample_of("sampled", logits, [1, 3]).labels.numpy() != sample.labels.numpy()).any()
    np.testing.assert_array_equal(sample_of("argmax", logits, [1, 2]).labels.numpy()[:, 2], 1.0)


def test_most_probable_labels_are_no_samples() -> None:
    """The gradient of a sample's log-probability is zero in the mean, that of the most probable class is not."""
    logits = tf.constant([[0.2, 1.0, -0.3]])

    def mean_slope(targets: list[np.ndarray], shares: np.ndarray) -> np.ndarray:
        probability = tf.nn.softmax(logits).numpy()[0]
        return sum(share * (target - probability) for target, share in zip(targets, shares, strict=True))

    every = list(np.eye(3))
    np.testing.assert_allclose(mean_slope(every, tf.nn.softmax(logits).numpy()[0]), np.zeros(3), atol=1e-7)
    most_probable = sample_of("argmax", logits, [0, 0]).labels.numpy()[0]
    assert np.abs(mean_slope([most_probable], np.ones(1))).max() > 0.3


@pytest.mark.parametrize("form", SAMPLERS)
def test_classes_want_a_logit_for_each(form: str) -> None:
    with pytest.raises(ValueError, match=r"expected \[batch, classes\], not \(2, 5, 3\)"):
        sample_of(form, tf.zeros([2, 5, 3]), [0, 0])


class LearnWords:
    """A student of sentences: all its words after the same input, label int [batch, words]."""

    def needs(self) -> Needs:
        return Needs(labeled_views={}, unlabeled_views={"student": "strong"})

    def losses(self, forward: Forward, batch: Batch, context: Context) -> Losses:
        logits = forward({"student": batch.unlabeled.views["student"]})["student"]
        words = tf.one_hot(batch.unlabeled.columns[TEACHER_LABEL], tiny.CLASSES)  # [batch, words, classes]
        values = tf.reduce_sum(cross_entropy(words, logits[:, tf.newaxis]), axis=1)
        return Losses(labeled={}, unlabeled={"words": Term(values)}, metrics={})


def two_words(teacher: Any, seen: tf.Tensor, inputs: tf.Tensor, seed: tf.Tensor) -> Sample:
    """Draws a word, then another that depends on it; the student is to say both after what was written."""
    del seed
    words, log_probability, written = [], tf.zeros(len(seen)), seen
    for _ in range(2):
        of_word = tf.nn.log_softmax(teacher(written))
        words.append(tf.argmax(-of_word, axis=1))
        log_probability += tf.reduce_min(of_word, axis=1)
        written += tf.one_hot(words[-1], tiny.FEATURES)
    return Sample(inputs + written, tf.stack(words, axis=1), log_probability)


@pytest.mark.parametrize("feedback", ["hard", "hard_cosine", "hard_difference"])
def test_a_teacher_may_write_sequences_for_its_student(feedback: str) -> None:
    """As in Meta Back-Translation: inputs are drawn word by word, and the teacher hears of all that it drew."""
    made, batch = make(feedback=feedback, algorithm=Nothing(), baseline_decay=0.0), batch_of(Nothing())
    rule, seen = made.rule, batch.unlabeled.views["student"]
    rule.roles = rule.roles._replace(sample=two_words, student=LearnWords())
    before, step = weights_of(rule.teacher), tf.constant(0, tf.int64)
    labeled = len(batch.labeled.label)

    def teacher(inputs: tf.Tensor) -> tf.Tensor:
        """The first word comes from the joint pass, the second from one of its own."""
        joint = tf.concat([batch.labeled.views["weak"], inputs], axis=0) if inputs is seen else inputs
        with keras.StatelessScope():
            logits = rule.teacher.model(joint, training=True)
        return logits[labeled:] if inputs is seen else logits

    with tf.GradientTape() as tape:
        expected = two_words(teacher, seen, seen, tf.zeros(2, tf.int32))
        joint_log_probability = tf.reduce_sum(expected.log_probability)
    slope = tape.gradient(joint_log_probability, rule.teacher.trainable_variables)
    changes = rule.teacher.pure_update([-part for part in slope], step=step).changes
    pending = rule.begin_step(batch, tiny.context(), tf.ones([]))
    own = pending.evaluated.batch.unlabeled
    np.testing.assert_allclose(own.views["student"], expected.inputs, rtol=1e-6)
    np.testing.assert_array_equal(own.columns[TEACHER_LABEL], expected.labels)
    usefulness = float(pending.apply()["feedback/usefulness"][0])
    usefulness /= len(seen) if feedback == "hard_cosine" else 1
    assert usefulness != 0.0
    np.testing.assert_allclose(
        flat(teacher_change(made, before)), usefulness * flat(changes), rtol=1e-3, atol=1e-5 * abs(usefulness)
    )


class Recorder:
    """A `Forward` that returns its inputs and keeps what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, dict[str, Any]]] = []

    def __call__(self, inputs: Any, **options: Any) -> Any:
        self.calls.append((len(inputs), options))
        return dict(inputs)


def test_student_s_images_join_the_first_pass() -> None:
    recorder, own, images = Recorder(), tf.zeros([2, 3]), tf.ones([4, 3])
    shared = SharedForward(recorder, images)
    with pytest.raises(TypeError, match="made no forward pass"):
        shared.logits_of(images)
    asked: list[dict[str, Any]] = [{"update_statistics": False}, {}]
    for options in asked:
        assert shared({"own": own}, **options).keys() == {"own"}
        assert shared.logits_of(images) is images
    assert [(count, options["update_statistics"]) for count, options in recorder.calls] == [(2, False), (1, True)]
    assert shared.logits_of(own) is own
    assert recorder.calls[2] == (1, {"update_statistics": False})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_any_algorithm_teaches(algorithm: str) -> None:
    """One joint pass labels the student's images, whatever the algorithm makes of its own."""
    chosen = ALGORITHMS[algorithm]()
    made = make(algorithm=chosen)
    batch = batch_of(chosen)
    sums = made.step(batch, tf.constant(0, tf.int64))
    assert all(np.isfinite(value).all() for value in sums.values())
    assert made.rule.roles.view in batch.unlabeled.views
    assert {"student/loss", "feedback/cosine", "student/agreement"} <= set(sums)


def test_teacher_labels_the_images_that_the_student_sees_in_the_pass_of_its_own_losses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, Any] = {}
    made = make(feedback="none", student_labels="soft")
    begin, teach = made.rule.teacher.begin, made.rule.teach

    def spied_begin(*arguments: Any, **options: Any) -> Any:
        seen["pass"] = begin(*arguments, **options)
        return seen["pass"]

    def spied_teach(batch: Batch, labels: Any, *rest: Any, **options: Any) -> Any:
        seen["lesson"] = teach(batch, labels, *rest, **options)
        return seen["lesson"]

    monkeypatch.setattr(made.rule.teacher, "begin", spied_begin)
    monkeypatch.setattr(made.rule, "teach", spied_teach)
    batch = batch_of()
    made.rule.begin_step(batch, tiny.context(), tf.ones([]))
    (call,) = seen["pass"].calls
    lesson = seen["lesson"]
    np.testing.assert_array_equal(lesson.batch.unlabeled.columns[TEACHER_LABEL], tf.nn.softmax(call.logits["strong"]))
    assert lesson.batch.unlabeled.views[made.rule.roles.view] is batch.unlabeled.views["strong"]


def test_every_step_and_every_run_samples_anew() -> None:
    batch, labels = batch_of(), []
    for seed, number in ((5, 0), (5, 0), (5, 1), (6, 0)):
        made = make(freeze_teacher=True, student_labels="sampled", distillation_temperature=5.0, seed=seed)
        lesson = made.rule.begin_step(batch, tiny.context(number), tf.ones([])).evaluated.batch
        labels.append(lesson.unlabeled.columns[TEACHER_LABEL].numpy())
    np.testing.assert_array_equal(labels[0], labels[1])
    assert (labels[0] != labels[2]).any()
    assert (labels[0] != labels[3]).any()


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_is_of_the_distribution_that_is_taught(temperature: float) -> None:
    made = make(freeze_teacher=True, student_labels="soft", distillation_temperature=temperature)
    batch = batch_of()
    pending = made.rule.begin_step(batch, tiny.context(), tf.ones([]))
    logits = made.rule.teacher.predict(batch.unlabeled.views["strong"], parameters="raw")
    expected = tf.nn.softmax(logits / temperature)
    np.testing.assert_allclose(pending.evaluated.batch.unlabeled.columns[TEACHER_LABEL], expected, rtol=1e-6)


def test_frozen_teacher_stays_and_labels_without_noise() -> None:
    made = make(freeze_teacher=True, student_labels="argmax", dropout=0.5)
    before = made.state(made.rule.teacher)
    first, second = made.take(0, seed=0), made.take(1, seed=0)
    for left, right in zip(made.state(made.rule.teacher), before, strict=True):
        np.testing.assert_array_equal(left, right)
    assert second["student/loss"] < first["student/loss"]
    assert not {name for name in first if name.startswith("feedback") or name == "loss"}


def test_agreement_is_with_what_was_taught() -> None:
    evaluated = make(freeze_teacher=True).rule.begin_step(batch_of(), tiny.context(), tf.ones([])).evaluated
    (call,) = evaluated.forward.calls
    taught = evaluated.batch.unlabeled.columns[TEACHER_LABEL].numpy().argmax(axis=1)
    agreement = evaluated.losses.metrics["agreement"].values.numpy()
    np.testing.assert_array_equal(agreement, call.logits["student"].numpy().argmax(axis=1) == taught)
    assert set(agreement) == {0.0, 1.0}
