"""The sets of a run that its networks are measured on: labeled training examples, validation and test.

How often a network is right about the labeled examples it learns from tells whether it has settled: Figure 9 of version
1 of arXiv:2003.10580 and Figure 5.4 of H. Pham's thesis (5.7.11) compare supervised learning with a teacher and its
student by it.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from metassl_tf.algorithms.base import Parameters
from metassl_tf.algorithms.batch import TEACHER_LABEL
from metassl_tf.data.examples import Examples, spread
from metassl_tf.engine.evaluator import PARAMETERS, Evaluator
from metassl_tf.engine.metrics import evaluate_logits
from metassl_tf.engine.setup import Experiment
from metassl_tf.learner.learner import Learner
from metassl_tf.meta.teaching import Teaching

_MOST_LABELED = 1_000


class Measured(Protocol):
    """A set that can be measured at any step."""

    def metrics(self, step: int) -> dict[str, dict[str, Any]]:
        """Kind of weights -> metrics; see `Evaluator.metrics`."""


def evaluator_of(
    experiment: Experiment, learner: Learner, examples: Examples, *, kinds: tuple[Parameters, ...] = PARAMETERS
) -> Evaluator:
    """Predicts a set without augmentation and dropout, on the devices of a run.

    Args:
      experiment: the run.
      learner: whose weights predict.
      examples: the set.
      kinds: of weights to predict with.
    """
    return Evaluator(
        learner,
        examples,
        experiment.views,
        batch_size=experiment.config.run.eval_batch_size,
        strategy=experiment.strategy,
        kinds=kinds,
    )


def held_out(experiment: Experiment, learner: Learner) -> dict[str, Evaluator]:
    """Of `validation` and `test`, as far as there are any, with the trained weights and with their average.

    Args:
      experiment: the run.
      learner: whose weights predict.
    """
    sets = {"validation": experiment.validation, "test": experiment.test}
    return {name: evaluator_of(experiment, learner, examples) for name, examples in sets.items() if len(examples)}


def labeled(experiment: Experiment, learner: Learner) -> Evaluator:
    """Of the labeled training examples, or of 1,000 spread evenly over their list, with the trained weights.

    Args:
      experiment: the run.
      learner: whose weights predict.
    """
    return evaluator_of(experiment, learner, _labeled_examples(experiment), kinds=("raw",))


def of_teacher(experiment: Experiment, teaching: Teaching) -> dict[str, Measured]:
    """What a run's own network is measured on, of its teacher: of one that sees stored labels, labeled examples alone.

    Args:
      experiment: the run.
      teaching: its rule with a teacher.
    """
    if teaching.roles.calibrates:
        return {"labeled": _LabelEvaluator(experiment, teaching, _labeled_examples(experiment))}
    return {"labeled": labeled(experiment, teaching.teacher), **held_out(experiment, teaching.teacher)}


def teacher_logits(
    experiment: Experiment, teaching: Teaching, examples: Examples
) -> Callable[[], npt.NDArray[np.float32]]:
    """Prepares what the teacher says of a set with its trained weights, without augmentation and dropout.

    Args:
      experiment: the run.
      teaching: its rule with a teacher.
      examples: the set; with the labels that are stored of it where the teacher sees these.

    Returns:
      A function that returns logits, float32 [examples, classes], whenever it is called.
    """
    if teaching.roles.calibrates:
        stored = tf.constant(examples.columns[TEACHER_LABEL])
        return lambda: teaching.teacher.predict(stored, parameters="raw").numpy()
    evaluator = evaluator_of(experiment, teaching.teacher, examples, kinds=("raw",))
    return lambda: evaluator.logits()["raw"]


class _LabelEvaluator:
    """Measures the labels that a teacher makes of stored ones."""

    def __init__(self, experiment: Experiment, teaching: Teaching, examples: Examples) -> None:
        self._labels, self._logits = examples.labels, teacher_logits(experiment, teaching, examples)

    def metrics(self, step: int) -> dict[str, dict[str, Any]]:
        del step
        return {"raw": evaluate_logits(self._logits(), self._labels)}


def _labeled_examples(experiment: Experiment) -> Examples:
    return experiment.labeled.take(spread(len(experiment.labeled), most=_MOST_LABELED))
