"""What a teacher gives and what both networks make of labeled examples, evaluation by evaluation.

| recorded at every evaluation                             | source                                                    |
|----------------------------------------------------------|-----------------------------------------------------------|
| target distributions of a few fixed unlabeled examples   | version 1 of arXiv:2003.10580, Figure 10                  |
| accuracy of teacher and student on labeled training ones | version 1, Figure 9; H. Pham's thesis, 5.7.11, Figure 5.4 |

Both with the trained weights, without augmentation and dropout. The cosine of Figure 8, of every form of feedback, and
the student's agreement with its labels are training metrics already.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.special import entr, softmax

from metassl_tf.algorithms.batch import TEACHER_LABEL
from metassl_tf.data.examples import Examples
from metassl_tf.engine.evaluator import Evaluator
from metassl_tf.engine.history import Row
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.trainer import MEND
from metassl_tf.errors import UserError
from metassl_tf.learner.learner import Learner
from metassl_tf.meta.teaching import Teaching

MOST_CLASSES = 10
_FOLLOWED = 8
_MOST_LABELED = 1_000
_DIGITS = 5

Targets = Callable[[], npt.NDArray[np.float64]]


class Lessons:
    """Measures a teacher and its student for the history."""

    def __init__(self, followed: npt.NDArray[np.int64], targets: Targets, labeled: Mapping[str, Evaluator]) -> None:
        """Prepares the measurements.

        Args:
          followed: int64 [examples], positions in the list of unlabeled examples.
          targets: what the teacher would have a student learn of them now, float64 [examples, classes], each row a
            distribution.
          labeled: name of a network -> evaluator of labeled training examples.
        """
        self._followed, self._targets, self._labeled = followed, targets, labeled

    def record(self, step: int, rows: Sequence[Row]) -> dict[str, Any]:
        """Measures the present weights.

        Args:
          step: number of steps taken, for messages.
          rows: the evaluations so far.

        Returns:
          `target_entropy`, mean over the followed examples, in nats; `changed_targets`, the share of them whose most
          probable class is another one than in the first of `rows` that has a record; `<network>_labeled_accuracy`; and
          `targets`, one dict per followed example: `example`, its position, and its most probable `classes` with their
          `probabilities`, the most probable first: all of up to 10 classes, 10 of more, whose rest is 1 less their sum.

        Raises:
          UserError: a prediction is infinite or NaN.
        """
        targets = self._targets()
        if not np.isfinite(targets).all():
            raise UserError(
                f"The teacher's target distributions became infinite or NaN before step {step}. Expected finite ones; "
                f"{MEND}"
            )
        order = np.argsort(-targets, axis=1, kind="stable")[:, :MOST_CLASSES]
        first = next((row["lessons"]["targets"] for row in rows if "lessons" in row), None)
        before = order[:, 0] if first is None else np.array([target["classes"][0] for target in first])
        return {
            "target_entropy": float(entr(targets).sum(axis=1).mean()),
            "changed_targets": float(np.mean(order[:, 0] != before)),
            **{
                f"{name}_labeled_accuracy": evaluator.metrics(step)["raw"]["accuracy"]
                for name, evaluator in self._labeled.items()
            },
            "targets": [
                {
                    "example": int(example),
                    "classes": classes.tolist(),
                    "probabilities": target[classes].round(_DIGITS).tolist(),
                }
                for example, classes, target in zip(self._followed, order, targets, strict=True)
            ],
        }


def lessons_of(experiment: Experiment) -> Lessons | None:
    """Prepares the record of a run with a teacher; None for any other.

    Of more than 8 unlabeled and of more than 1,000 labeled examples it takes as many, evenly spread over their lists.

    Args:
      experiment: the run.
    """
    teaching = experiment.teaching
    if teaching is None:
        return None

    def evaluator(learner: Learner, examples: Examples) -> Evaluator:
        return Evaluator(
            learner,
            examples,
            experiment.views,
            batch_size=experiment.config.run.eval_batch_size,
            strategy=experiment.strategy,
            kinds=("raw",),
        )

    followed = _spread(len(experiment.unlabeled), most=_FOLLOWED)
    temperature = teaching.settings.distillation_temperature
    examples = experiment.unlabeled.take(followed)
    labeled = experiment.labeled.take(_spread(len(experiment.labeled), most=_MOST_LABELED))
    networks = {"student": evaluator(teaching.student, labeled)}
    if teaching.roles.calibrates:
        logits = _calibrated(teaching, examples)
    else:
        teacher = evaluator(teaching.teacher, examples)
        networks = {"teacher": evaluator(teaching.teacher, labeled), **networks}

        def logits() -> npt.NDArray[np.float32]:
            return teacher.logits()["raw"]

    return Lessons(followed, lambda: softmax(logits().astype(np.float64) / temperature, axis=1), networks)


def _calibrated(teaching: Teaching, examples: Examples) -> Callable[[], npt.NDArray[np.float32]]:
    """What a teacher that sees stored distributions makes of these examples', as logits."""
    stored = tf.constant(examples.columns[TEACHER_LABEL])
    return lambda: teaching.teacher.predict(stored, parameters="raw").numpy()


def _spread(count: int, *, most: int) -> npt.NDArray[np.int64]:
    """Positions of all of `count` examples, or of as many as there may be at most, from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)
