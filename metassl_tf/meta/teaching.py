"""One step of Meta Pseudo Labels on one replica: the teacher labels, the student learns, the teacher hears of it."""

import contextlib
import functools
from typing import NamedTuple

import keras
import tensorflow as tf

from metassl_tf.algorithms.base import Algorithm, Average, Context
from metassl_tf.algorithms.batch import TEACHER_LABEL, Batch
from metassl_tf.learner import distribution
from metassl_tf.learner.learner import Learner, Updated
from metassl_tf.learner.passes import Pass
from metassl_tf.learner.step import Evaluated, Pending, Sums, evaluate, reduce_terms, total_sums
from metassl_tf.meta.feedback import AVERAGED, FORMS, StudentStep, Verdict, follow, reinforce
from metassl_tf.meta.meta_pseudo_labels import NO_FEEDBACK, MetaPseudoLabels
from metassl_tf.meta.reduced_meta_pseudo_labels import ReducedMetaPseudoLabels
from metassl_tf.meta.roles import Roles
from metassl_tf.meta.scopes import validation_share
from metassl_tf.meta.student import Sample, SharedForward, Teacher

_USEFULNESS, _BASELINE = "feedback/usefulness", "feedback/baseline"


class Lesson(NamedTuple):
    """What the student makes of the teacher's labels, before anything moves.

    Attributes:
      batch: the student's, with the labels.
      parameters: of the student, before the step.
      coefficients: what the cross-entropy of each example counts in the global loss, [batch].
      evaluated: its losses, and the gradient of this replica's share.
      gradient: of the loss over the global batch.
      updated: what the step makes of the student.
    """

    batch: Batch
    parameters: list[tf.Tensor]
    coefficients: tf.Tensor
    evaluated: Evaluated
    gradient: list[tf.Tensor]
    updated: Updated


class Teaching:
    """Two learners and what passes between them.

    Attributes:
      settings: of the rule.
      teacher: learns from its algorithm's own losses and from the feedback.
      student: learns from the teacher's labels.
      roles: what each of them learns, and from what.
    """

    def __init__(
        self,
        settings: MetaPseudoLabels | ReducedMetaPseudoLabels,
        teacher: Learner,
        student: Learner,
        roles: Roles,
        *,
        seed: int,
    ) -> None:
        """Prepares the rule; create it inside `strategy.scope()`.

        Args:
          settings: of the rule.
          teacher: the first learner.
          student: the second.
          roles: what each of them learns, and from what.
          seed: of the run; with the step it gives the sampled labels.
        """
        self.settings, self.teacher, self.student = settings, teacher, student
        self.roles, self._seed = roles, seed
        self._baseline = keras.Variable(0.0, trainable=False, dtype="float32", name="baseline")

    @property
    def learner(self) -> Learner:
        """What learns from unlabeled examples whose labels may be wrong: the student."""
        return self.student

    @property
    def algorithm(self) -> Algorithm:
        """The student's."""
        return self.roles.student

    @property
    def state_variables(self) -> dict[str, list[tf.Variable]]:
        """Everything of the teacher and of the rule that survives a step, by role."""
        teacher = {f"teacher_{role}": variables for role, variables in self.teacher.state_variables.items()}
        return {**teacher, "teaching": [self._baseline.value]}

    def learning_rates(self, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Name -> learning rate of a step, float32 scalar; 0 of a network that does not move then."""
        rates = self.teacher.learning_rate(step), self.student.learning_rate(self._student_step(step))
        moves = not self.settings.freeze_teacher, self._student_moves(step)
        names = "teacher/learning_rate", "student/learning_rate"
        return {name: tf.where(own, rate, 0.0) for name, own, rate in zip(names, moves, rates, strict=True)}

    def begin_step(
        self,
        batch: Batch,
        context: Context,
        unlabeled_weight: tf.Tensor,
        example_weights: tf.Tensor | None = None,
    ) -> Pending:
        """Evaluates one step on this replica's part of the global batch. Call it inside `strategy.run`.

        Args:
          batch: with the views that the algorithm and the student need.
          context: where in the run this is.
          unlabeled_weight: float32 scalar, on the unlabeled terms of the run's own algorithm.
          example_weights: float32 [unlabeled batch], on the student's losses; None weighs all by 1.

        Returns:
          The step, evaluated of the student. What applying it returns is (sum, count) over the global batch: of the
          teacher's losses and metrics under their own names, of the student's under `student/..`, of what passed
          between them under `feedback/..`, and of both gradients `teacher/gradient_norm` and `student/gradient_norm`.
        """
        with tf.GradientTape() as tape:
            of_teacher, of_student = self._unlabeled_weights(unlabeled_weight)
            share, sums, averages, sample, new_statistics = self._sample(batch, context, of_teacher)
            # All forms but one see the student's step from outside.
            with contextlib.nullcontext() if self.settings.form == "soft" else tape.stop_recording():
                lesson = self.teach(batch, sample, context, example_weights, unlabeled_weight=of_student)
                verdict = self._judge(batch, lesson, context)
            signal, heard = self._heard(verdict, sample)
            total = share + self.settings.feedback_weight * signal
        gradients = tape.gradient(
            total, self.teacher.trainable_variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        averages |= {f"student/{name}": value for name, value in lesson.evaluated.losses.metrics.items()}
        sums |= {f"student/{name}": value for name, value in lesson.evaluated.sums.items()}

        def apply() -> Sums:
            if not self.settings.freeze_teacher:
                heard["teacher/gradient_norm"] = self.teacher.update(gradients, new_statistics, step=context.step)
            heard["student/gradient_norm"] = lesson.updated.gradient_norm
            moves = self._student_moves(context.step)
            self.student.assign(
                lesson.updated,
                lesson.evaluated.forward.new_statistics,
                step=self._student_step(context.step),
                moves=moves,
            )
            if _BASELINE in heard:
                self._move_baseline(heard[_USEFULNESS])
            # The same on every replica.
            replicas = distribution.replica_context().num_replicas_in_sync
            common = {name: tf.stack([tf.cast(value, tf.float32), 1.0]) / replicas for name, value in heard.items()}
            return total_sums(sums | common, averages)

        return Pending(lesson.evaluated, apply)

    def teach(
        self,
        batch: Batch,
        sample: Sample,
        context: Context,
        example_weights: tf.Tensor | None,
        *,
        unlabeled_weight: tf.Tensor,
    ) -> Lesson:
        """The student's step on the teacher's labels, which nothing has moved yet."""
        unlabeled = batch.unlabeled
        views = {**unlabeled.views, self.roles.view: sample.inputs}
        columns = {**unlabeled.columns, TEACHER_LABEL: sample.labels}
        own = batch._replace(unlabeled=unlabeled._replace(views=views, columns=columns))
        parameters = [tf.convert_to_tensor(parameter.value) for parameter in self.student.parameters]
        evaluated = evaluate(
            self.student,
            self.roles.student,
            own,
            context,
            unlabeled_weight=unlabeled_weight,
            example_weights=example_weights,
            at=parameters,
        )
        gradient = distribution.all_reduce_sum(evaluated.gradients)
        weights = tf.ones_like(sample.log_probability) if example_weights is None else example_weights
        count = weights.shape[0] * distribution.replica_context().num_replicas_in_sync
        return Lesson(
            batch=own,
            parameters=parameters,
            coefficients=(1.0 - self.settings.student_label_smoothing) * unlabeled_weight * weights / float(count),
            evaluated=evaluated,
            gradient=gradient,
            updated=self.student.pure_update(gradient, step=self._student_step(context.step)),
        )

    def _unlabeled_weights(self, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The teacher's and the student's: the run's algorithm is one of both's."""
        one = tf.ones([])
        return (one, weight) if self.roles.calibrates else (weight, one)

    def _sample(
        self, batch: Batch, context: Context, unlabeled_weight: tf.Tensor
    ) -> tuple[tf.Tensor, Sums, dict[str, Average], Sample, list[tf.Tensor]]:
        """The teacher's own losses, and what it makes for the student, from one pass."""
        own = self.roles.teacher_batch(batch)
        seen = own.unlabeled.views[self.roles.view]
        share, statistics = tf.zeros([]), list[tf.Tensor]()
        sums, averages = Sums(), dict[str, Average]()
        if self.settings.freeze_teacher:
            says: Teacher = functools.partial(self.teacher.predict, parameters="raw")
        else:
            forward = self.teacher.begin(context.step)
            shared = SharedForward(forward, seen)
            losses = self.roles.teacher.losses(shared, own, context)
            share, sums = reduce_terms(losses, unlabeled_weight)
            averages, statistics = dict(losses.metrics), forward.new_statistics
            says = shared.logits_of
        seed = tf.stack([tf.cast(self._seed & 0x7FFFFFFF, tf.int32), 0x7EAC])
        seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(context.step, tf.int32), alg="philox")
        sample = self.roles.sample(
            lambda inputs: says(inputs) / self.settings.distillation_temperature,
            seen,
            batch.unlabeled.views[self.roles.view],
            seed,
        )
        return share, sums, averages, sample, statistics

    def _judge(self, batch: Batch, lesson: Lesson, context: Context) -> Verdict:
        """What the student's step says about the labels."""
        if self.settings.form == NO_FEEDBACK:
            return Verdict()
        step, moves = self._student_step(context.step), self._student_moves(context.step)
        student, training = self.student, self.settings.feedback_batch_norm == "training"
        images = lesson.batch.unlabeled.views[self.roles.view]

        def begin(at: list[tf.Tensor], **options: bool) -> Pass:
            return student.begin(context.step, at=list(zip(student.parameters, at, strict=True)), **options)

        def change(gradient: list[tf.Tensor]) -> list[tf.Tensor]:
            changes = student.pure_update(gradient, step=step).changes
            return [tf.where(moves, part, tf.zeros_like(part)) for part in changes]

        def labeled_loss(at: list[tf.Tensor]) -> tf.Tensor:
            # Losses before and after the step, and their gradients, are compared: noise would come between them.
            forward = begin(at, training=training, with_dropout=False)
            inputs = {"labeled": batch.labeled.views[self.roles.labeled_view]}
            logits = forward(inputs, update_statistics=False)["labeled"]
            return validation_share(logits, batch.labeled.label)

        def log_probability(at: list[tf.Tensor]) -> tf.Tensor:
            # The very pass that the student's losses come from, with all that is normalised together in it.
            shared = SharedForward(begin(at), images)
            self.roles.student.losses(shared, lesson.batch, context)
            return tf.nn.log_softmax(shared.logits_of(images))

        taken = StudentStep(
            parameters=lesson.parameters,
            gradient=lesson.gradient,
            moved=[
                tf.where(moves, there, here)
                for there, here in zip(lesson.updated.values, lesson.parameters, strict=True)
            ],
            change=change,
            labeled_loss=labeled_loss,
            log_probability=log_probability,
            coefficients=lesson.coefficients,
        )
        verdict = FORMS[self.settings.form](taken)
        if verdict.usefulness is None:
            return verdict
        # A student that stands still has nothing to say, though its gradients have an angle.
        return verdict._replace(usefulness=tf.where(moves, verdict.usefulness, 0.0))

    def _heard(self, verdict: Verdict, sample: Sample) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The share of the teacher's feedback loss, and what to log of it."""
        heard: dict[str, tf.Tensor] = {}
        if verdict.alignment is not None:
            heard["feedback/cosine"] = verdict.alignment
        if verdict.loss is not None:
            return verdict.loss, heard
        if verdict.derivative is not None:
            return follow(verdict.derivative, sample.labels), heard
        if verdict.usefulness is None:
            return tf.zeros([]), heard
        usefulness = tf.stop_gradient(verdict.usefulness)  # 0 of a student that waits, and so the baseline stays 0
        heard[_USEFULNESS] = usefulness
        advantage = usefulness
        if self.settings.baseline_decay:
            # As it was before this step: else it would hold part of what it is to be compared with.
            heard[_BASELINE] = tf.convert_to_tensor(self._baseline.value)
            advantage -= tf.cast(heard[_BASELINE], usefulness.dtype)
        return reinforce(advantage, sample.log_probability, mean=self.settings.form in AVERAGED), heard

    def _move_baseline(self, usefulness: tf.Tensor) -> None:
        decay, baseline = self.settings.baseline_decay, self._baseline.value
        moved = decay * baseline + (1.0 - decay) * tf.cast(usefulness, tf.float32)
        distribution.assign_everywhere([self._baseline], [moved])

    def _student_moves(self, step: tf.Tensor) -> tf.Tensor:
        return step >= self.settings.student_wait_steps

    def _student_step(self, step: tf.Tensor) -> tf.Tensor:
        """Updates that the student has made."""
        return tf.maximum(step - self.settings.student_wait_steps, 0)
