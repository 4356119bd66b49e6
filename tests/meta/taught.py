"""A teacher and a student of two tiny networks, and a step of both: what the tests of teaching share."""

from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from metassl_tf.algorithms.base import Algorithm, Context, Needs
from metassl_tf.algorithms.batch import Batch
from metassl_tf.algorithms.supervised import Supervised
from metassl_tf.algorithms.uda import Uda
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.step import Sums
from metassl_tf.meta.meta_pseudo_labels import MetaPseudoLabels
from metassl_tf.meta.roles import classifying_teacher
from metassl_tf.meta.student import student_view
from metassl_tf.meta.teaching import Teaching
from tests.learner import tiny

UDA = Uda(threshold=0.5)
RATE = 0.2


class Made(NamedTuple):
    """A rule, with a step of it as a run takes it."""

    rule: Teaching
    step: Any

    @property
    def learners(self) -> tuple[Learner, Learner]:
        return self.rule.teacher, self.rule.student

    def take(self, number: int, *, seed: int | None = None) -> dict[str, float]:
        batch = batch_of(seed=number if seed is None else seed)
        sums = self.step(batch, tf.constant(number, tf.int64))
        return {name: float(total / count) for name, (total, count) in sums.items() if count}

    def state(self, learner: Learner) -> list[np.ndarray]:
        return [variable.numpy() for group in learner.state_variables.values() for variable in group]


def batch_of(algorithm: Algorithm = UDA, *, seed: int = 0) -> Batch:
    """What the algorithm needs and the student's view beside it."""

    class Both:
        losses = algorithm.losses

        def needs(self) -> Needs:
            return student_view(algorithm.needs())[1]

    return tiny.batch_for(Both(), seed=seed)


def make(
    strategy: tf.distribute.Strategy | None = None,
    *,
    algorithm: Algorithm = UDA,
    batch_norm: bool = True,
    mode: Literal["eager", "graph", "xla"] = "eager",
    dropout: float = 0.0,
    student: dict[str, Any] | None = None,
    unlabeled_weight: float = 1.0,
    seed: int = 5,
    **settings: Any,
) -> Made:
    """Two tiny networks of different weights; eager, since a step or two take less time than to trace them."""
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        learners = [
            Learner(
                tiny.network(batch_norm=batch_norm, dropout=dropout, seed=number),
                tiny.optimization(learning_rate=RATE, **(student or {} if number else {})),
                seed=number,
            )
            for number in (0, 1)
        ]
        rule_settings = MetaPseudoLabels(**settings)
        rule = Teaching(rule_settings, *learners, classifying_teacher(algorithm, rule_settings), seed=seed)

    def replica_step(batch: Batch, number: tf.Tensor) -> Sums:
        weight = tf.constant(unlabeled_weight)
        return rule.begin_step(tiny.replica_part(batch), Context(number, tiny.STEPS), weight).apply()

    def step(batch: Batch, number: tf.Tensor) -> Sums:
        return tiny.first_replica(strategy, strategy.run(replica_step, args=(batch, number)))

    traced = tf.function(step, jit_compile=mode == "xla", autograph=False)
    return Made(rule, step if mode == "eager" else traced)


def teacher_change(made: Made, before: list[Any]) -> list[np.ndarray]:
    after = [variable.numpy() for variable in made.rule.teacher.trainable_variables]
    return [there - here for there, here in zip(after, before, strict=True)]


def weights_of(learner: Learner) -> list[np.ndarray]:
    return [variable.numpy() for variable in learner.trainable_variables]


def flat(parts: list[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in parts])


class Nothing:
    """An algorithm without a loss: the teacher learns from the feedback alone."""

    def needs(self) -> Any:
        return Supervised().needs()

    def losses(self, forward: Any, batch: Batch, context: Context) -> Any:
        found = Supervised().losses(forward, batch, context)
        term = found.labeled["cross_entropy"]
        return found._replace(labeled={"cross_entropy": term._replace(values=0.0 * term.values)})
