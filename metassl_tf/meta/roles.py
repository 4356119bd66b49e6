"""Who learns what from a batch, where a teacher teaches a student: what the rules with a teacher differ in."""

from collections.abc import Callable
from typing import NamedTuple

from metassl_tf.algorithms.base import Algorithm
from metassl_tf.algorithms.batch import TEACHER_LABEL, Batch
from metassl_tf.algorithms.supervised import Supervised
from metassl_tf.meta.meta_pseudo_labels import MetaPseudoLabels
from metassl_tf.meta.reduced_meta_pseudo_labels import JUDGED, ReducedMetaPseudoLabels
from metassl_tf.meta.student import SAMPLERS, LearnFromTeacher, Sampler, student_view


class Roles(NamedTuple):
    """What each of both networks learns, and from what.

    Attributes:
      teacher: gives the teacher's own losses.
      student: gives the student's losses, from the batch with the teacher's labels in its column `TEACHER_LABEL`.
      teacher_batch: the batch as the teacher sees it.
      view: name of the unlabeled view that the student learns from, and the teacher labels what stands there for it.
      labeled_view: name of the labeled view on which the student is judged.
      sample: lets the teacher make what the student learns from.
      calibrates: whether the teacher sees stored distributions instead of the run's inputs. The run's algorithm is then
        the student's, and with it the scalar unlabeled weight.
    """

    teacher: Algorithm
    student: Algorithm
    teacher_batch: Callable[[Batch], Batch]
    view: str
    labeled_view: str
    sample: Sampler
    calibrates: bool


def classifying_teacher(algorithm: Algorithm, settings: MetaPseudoLabels) -> Roles:
    """A teacher that sees images and learns as the run's algorithm does; the student learns from its labels alone."""
    view, _ = student_view(algorithm.needs())
    return Roles(
        teacher=algorithm,
        student=LearnFromTeacher(view=view, label_smoothing=settings.student_label_smoothing),
        teacher_batch=lambda batch: batch,
        view=view,
        labeled_view=next(iter(algorithm.needs().labeled_views)),
        sample=SAMPLERS[settings.label_form],
        calibrates=False,
    )


def calibrating_teacher(algorithm: Algorithm) -> Roles:
    """A teacher that sees stored distributions; the student learns as the run's algorithm does from what it makes."""
    teacher = Supervised()
    view = next(iter(algorithm.needs().unlabeled_views))
    (given,) = teacher.needs().labeled_views

    def distributions(batch: Batch) -> Batch:
        labeled, unlabeled = batch.labeled, batch.unlabeled
        return batch._replace(
            labeled=labeled._replace(views={given: labeled.columns[TEACHER_LABEL]}),
            unlabeled=unlabeled._replace(views={view: unlabeled.columns[TEACHER_LABEL]}),
        )

    return Roles(
        teacher=teacher,
        student=algorithm,
        teacher_batch=distributions,
        view=view,
        labeled_view=JUDGED,
        sample=SAMPLERS[ReducedMetaPseudoLabels.label_form],
        calibrates=True,
    )
