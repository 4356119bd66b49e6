"""What a teacher gives, evaluation by evaluation: target distributions of a few fixed unlabeled examples.

That is Figure 10 of version 1 of arXiv:2003.10580. The cosine of its Figure 8, of every form of feedback, and the
student's agreement with its labels are training metrics already; the accuracy on labeled examples of Figure 9, and of
Figure 5.4 of H. Pham's thesis, is measured of every network as it is on test examples.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import entr, softmax

from metassl_tf.algorithms.batch import TEACHER_LABEL
from metassl_tf.data.examples import spread
from metassl_tf.engine.evaluated_sets import teacher_logits
from metassl_tf.engine.history import Row
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.trainer import MEND
from metassl_tf.errors import UserError

MOST_CLASSES = 10
_FOLLOWED = 8
_DIGITS = 5

Targets = Callable[[], npt.NDArray[np.float64]]


class Lessons:
    """Measures a teacher for the history."""

    def __init__(
        self, followed: npt.NDArray[np.int64], targets: Targets, stored: npt.NDArray[np.float32] | None = None
    ) -> None:
        """Prepares the measurements.

        Args:
          followed: int64 [examples], positions in the list of unlabeled examples.
          targets: what the teacher would have a student learn of them now, float64 [examples, classes], each row a
            distribution.
          stored: what the teacher starts from, where that is a stored distribution of each of them.
        """
        self._followed, self._targets, self._stored = followed, targets, stored

    def record(self, step: int, rows: Sequence[Row]) -> dict[str, Any]:
        """Measures the present weights.

        Args:
          step: number of steps taken, for messages.
          rows: the evaluations so far.

        Returns:
          `target_entropy`, mean over the followed examples, in nats; `changed_targets`, the share of them whose most
          probable class is another one than was stored, or than in the first of `rows` that has a record; and
          `targets`, one dict per followed example, see `plain_targets`.

        Raises:
          UserError: a prediction is infinite or NaN.
        """
        targets = self._targets()
        if not np.isfinite(targets).all():
            raise UserError(
                f"The teacher's target distributions became infinite or NaN before step {step}. Expected finite ones; "
                f"{MEND}"
            )
        present = plain_targets(self._followed, targets)
        first = next((row["lessons"]["targets"] for row in rows if "lessons" in row), present)
        if self._stored is not None:
            first = plain_targets(self._followed, self._stored)
        changed = [now["classes"][0] != then["classes"][0] for now, then in zip(present, first, strict=True)]
        return {
            "target_entropy": float(entr(targets).sum(axis=1).mean()),
            "changed_targets": float(np.mean(changed)),
            "targets": present,
        }


def plain_targets(examples: npt.NDArray[np.int64], targets: npt.NDArray[np.floating]) -> list[dict[str, Any]]:
    """Writes distributions as plain values.

    Args:
      examples: int64 [examples], their positions.
      targets: [examples, classes], each row a distribution.

    Returns:
      One dict per example: `example`, its position, and its most probable `classes` with their `probabilities`, the
      most probable first: all of up to 10 classes, 10 of more, whose rest is 1 less their sum.
    """
    order = np.argsort(-targets, axis=1, kind="stable")[:, :MOST_CLASSES]
    return [
        {
            "example": int(example),
            "classes": classes.tolist(),
            "probabilities": target[classes].astype(np.float64).round(_DIGITS).tolist(),
        }
        for example, classes, target in zip(examples, order, targets, strict=True)
    ]


def lessons_of(experiment: Experiment) -> Lessons | None:
    """Prepares the record of a run with a teacher; None for any other.

    It follows 8 unlabeled examples, or as many as there are, spread evenly over their list.

    Args:
      experiment: the run.
    """
    teaching = experiment.teaching
    if teaching is None:
        return None
    followed = spread(len(experiment.unlabeled), most=_FOLLOWED)
    temperature = teaching.settings.distillation_temperature
    examples = experiment.unlabeled.take(followed)
    logits = teacher_logits(experiment, teaching, examples)
    stored = examples.columns[TEACHER_LABEL] if teaching.roles.calibrates else None
    return Lessons(followed, lambda: softmax(logits().astype(np.float64) / temperature, axis=1), stored)
