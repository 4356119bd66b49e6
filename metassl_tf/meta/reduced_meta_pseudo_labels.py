"""Reduced Meta Pseudo Labels: the teacher is a small network on top of what a large one said before (v1, section 3.2).

A large teacher has put its distribution for every training example on disk (`python -m metassl_tf.label`), so that it
need not be in memory. A calibrator maps each of them to the distribution that the student learns from, and learns from
how well the student does, as any teacher of Meta Pseudo Labels (`meta.meta_pseudo_labels`). Without its feedback this
is Noisy Student (`algorithms.noisy_student`).

| paper (arXiv:2003.10580v1; thesis, 5.7.14)     | here                                                |
|------------------------------------------------|-----------------------------------------------------|
| q_large                                        | the stored distributions, column `teacher_label`    |
| q_Psi, 5-layer perceptron of 128 or 512 units  | `models.calibrator`, `calibrator_units`             |
| Adam, 1e-4, L2 of 1e-4 (appendix C.2)          | `calibrator_learning_rate`, `calibrator_l2_weight_decay` |
| p_Theta, EfficientNet with RMSProp             | `--model`, `--optimizer`; losses of `--algorithm`   |
| Eq. 3 through RMSProp's update (appendix B)    | `feedback`: `soft`, or the same from `soft_jvp`     |
| supervised signal of the teacher (section 3.2) | cross-entropy of the calibrated labeled examples    |

The paper is of two minds about the student. It "never directly learns" from the labeled examples, which judge it and
supervise the teacher (section 3.2); and Noisy Student, which does, differs in the missing feedback only (section 4.2).
Here the second holds: it learns from strong views of them, and is judged by weak views of the same ones. The cosine
that is logged is therefore that of the gradient on the judged images and of the student's whole loss, labeled examples
included. The L2 term is of the kernels alone, and 1e-4 times a weight is what it adds to the weight's gradient.
"""

import dataclasses
from typing import ClassVar

from metassl_tf.algorithms.base import Needs
from metassl_tf.algorithms.batch import TEACHER_LABEL
from metassl_tf.errors import UserError
from metassl_tf.learner.update_rules import Adam
from metassl_tf.meta.meta_pseudo_labels import TeachingSettings
from metassl_tf.models.calibrator import Start
from metassl_tf.settings import setting

JUDGED = "judged"
"""The labeled view on which the student is judged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReducedMetaPseudoLabels(TeachingSettings):
    """A calibrator of stored labels that learns from how well the student does with them."""

    feedback: str = setting(
        "soft_jvp",
        "How the student's step tells the teacher what its labels are worth.",
        choices=("soft_jvp", "soft", "none"),
    )
    calibrator_units: int = setting(128, "Units of each hidden layer of the network that calibrates.", minimum=1)
    calibrator_start: Start = setting(
        "identity",
        "The calibrator begins with the stored labels as they are, or with random weights.",
        choices=("identity", "random"),
    )
    calibrator_learning_rate: float = setting(1e-4, "Learning rate of the calibrator's Adam.", minimum=0.0)
    calibrator_l2_weight_decay: float = setting(1e-4, "Coupled decay of the calibrator's kernels.", minimum=0.0)

    label_form: ClassVar[str] = "soft"
    rule: ClassVar[Adam] = Adam()  # beta 0.9 and 0.999, epsilon 1e-7 (appendix C.2)

    # What the large one has: it is trained before, and sampled labels have no distribution.
    freeze_teacher: ClassVar[bool] = False
    init_teacher_from: ClassVar[str] = ""
    baseline_decay: ClassVar[float] = 0.0
    student_label_smoothing: ClassVar[float] = 0.0

    @property
    def form(self) -> str:
        """The form of the feedback, a key of `FORMS`, or `none`."""
        return self.feedback

    def needs(self, own: Needs) -> Needs:
        """What the algorithm needs, stored labels of the labeled examples too, and images to judge the student by.

        Raises:
          UserError: the algorithm learns from no stored labels.
        """
        if TEACHER_LABEL not in own.unlabeled_columns:
            raise UserError(
                "--meta=reduced_meta_pseudo_labels calibrates the labels that a teacher has stored, and --algorithm "
                "learns from none. Expected --algorithm=noisy_student."
            )
        return dataclasses.replace(
            own, labeled_views={**own.labeled_views, JUDGED: "weak"}, labeled_columns=(TEACHER_LABEL,)
        )

    def unused(self) -> dict[str, str]:
        """Settings without an effect under the others -> the reason."""
        return self.unused_without(self.form)
