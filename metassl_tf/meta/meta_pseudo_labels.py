"""Meta Pseudo Labels: a teacher that learns from how well its student does (Pham et al., arXiv:2003.10580).

The student learns from the teacher's labels on unlabeled data and from nothing else. The teacher learns from three
losses: that of its own algorithm on labeled and on unlabeled data, which is the run's `--algorithm`, and the feedback,
which is how the student's step on those labels changed the student's loss on labeled data. "Thesis" is chapter 5 of
H. Pham's thesis, the published version; "v1" is version 1 of the preprint, with another form of the feedback.

| paper                                            | here                                  | source              |
|--------------------------------------------------|---------------------------------------|---------------------|
| T, theta_T; S, theta_S                           | `Teaching.teacher`, `.student`        |                     |
| y_u ~ T(x_u; theta_T)                            | `Teaching`'s labels, `student_labels` | Algorithm 3         |
| theta_S - eta_S grad CE(y_u, S(x_u; theta_S))    | `Learner.pure_update`                 | Algorithm 3         |
| f_Theta(Psi) of momentum, RMSProp                | `learner.update_rules`                | v1, Eq. 5, 7, 8     |
| h, and the gradient it multiplies                | `meta.feedback`                       | Eq. 5.12            |
| moving average b of h                            | `baseline_decay`                      | 5.7.6               |
| CE(y_l, T(x_l)), UDA loss of the teacher         | the terms of `--algorithm`            | Algorithm 3         |
| steps before the student starts                  | `student_wait_steps`                  | released code       |
| fine-tuning of the student on labeled data       | `fine_tune_steps`, `fine_tune_*`      | 5.2, 5.7.7          |

Departs from the thesis: Algorithm 3 prints x_l in the line of the UDA loss, where x_u is meant, and multiplies by
eta_S twice. v1's Eq. 8 weighs the new squared gradient by rho; here, as everywhere else, rho weighs the old mean.
Departs from the released code in what `meta.feedback` lists, and in that a waiting student does not move at all: there
its momentum gathers gradients meanwhile.
"""

import dataclasses

from metassl_tf.algorithms.base import Needs
from metassl_tf.meta.feedback import FORMS, HARD
from metassl_tf.meta.student import student_view
from metassl_tf.settings import setting

NO_FEEDBACK = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeachingSettings:
    """What every rule with a teacher that hears of its student has."""

    feedback_weight: float = setting(1.0, "Weight of the feedback in the teacher's loss.", minimum=0.0)
    feedback_batch_norm: str = setting(
        "training",
        "Statistics of batch normalisation in the student's passes over labeled examples, which are without dropout: "
        "training is their own, inference the moving ones.",
        choices=("training", "inference"),
    )
    distillation_temperature: float = setting(
        1.0, "Softmax temperature of the distribution that the student learns from.", above=0.0
    )
    student_wait_steps: int = setting(0, "Steps before the student starts to learn.", minimum=0)
    fine_tune_steps: int = setting(0, "Steps of the student on labeled data alone after the training.", minimum=0)
    fine_tune_learning_rate: float = setting(1e-5, "Learning rate of these steps, plain gradient descent.", above=0.0)
    fine_tune_batch_size: int = setting(512, "Labeled examples of one of these steps.", minimum=1)

    def unused_without(self, form: str) -> dict[str, str]:
        """Shared settings without an effect where the feedback has this form -> the reason."""
        reasons: dict[str, str] = {}
        if form == NO_FEEDBACK:
            reasons |= dict.fromkeys(("feedback_weight", "feedback_batch_norm"), "there is no feedback")
        if not self.fine_tune_steps:
            unused = ("fine_tune_learning_rate", "fine_tune_batch_size")
            reasons |= dict.fromkeys(unused, "--fine_tune_steps is 0")
        return reasons


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetaPseudoLabels(TeachingSettings):
    """A teacher that labels, a student that learns from it, and the way back.

    `soft_jvp` is the default because students did better with it than with any sampled form where all were compared, on
    digits (`flags/digits/ablations`, "Forms of feedback"), if not always better than without feedback: at a weight of 1
    it is exact and gentle, where a sampled form has one noisy number for a whole batch. At a weight of 30 it did no
    better than the best of them. The thesis has the hard forms, stabilised as `hard_cosine`.

    `none` is the cheapest control and measures nothing of the student's step. One that logs the cosine of v1's Figure 8
    has a form and `--feedback_weight=0`.
    """

    feedback: str = setting(
        "soft_jvp", "How the student's step tells the teacher what its labels are worth.", choices=(*FORMS, "none")
    )
    baseline_decay: float = setting(
        0.99, "Decay of the moving average that is subtracted from the feedback; 0: none.", minimum=0.0, below=1.0
    )
    student_labels: str = setting(
        "soft",
        "Labels of a student without feedback: the teacher's distribution itself, as with the default feedback, its "
        "most probable class, or one sampled from it.",
        choices=("sampled", "argmax", "soft"),
    )
    student_label_smoothing: float = setting(
        0.0, "Share of those labels' mass spread over all classes.", minimum=0.0, below=1.0
    )
    init_teacher_from: str = setting(
        "",
        "Workdir, checkpoint or .keras file whose weights the teacher starts from: those of a workdir's teacher if it "
        "had one.",
    )
    freeze_teacher: bool = setting(False, "The teacher stays what it was: plain pseudo labels (Eq. 5.1).")

    @property
    def form(self) -> str:
        """The form of the feedback, a key of `FORMS`; `none` for a teacher that does not learn from it."""
        return NO_FEEDBACK if self.freeze_teacher else self.feedback

    @property
    def label_form(self) -> str:
        """What the student learns from: `sampled`, `argmax` or `soft`."""
        if self.form == NO_FEEDBACK:
            return self.student_labels
        return "sampled" if self.form in HARD else "soft"

    def needs(self, own: Needs) -> Needs:
        """What the algorithm needs, and the images that the student learns from."""
        return student_view(own)[1]

    def unused(self) -> dict[str, str]:
        """Settings without an effect under the others -> the reason."""
        reasons = self.unused_without(self.form)
        if self.freeze_teacher:
            reasons["feedback"] = "a teacher that --freeze_teacher holds learns nothing"
            reasons["student_wait_steps"] = "a teacher that --freeze_teacher holds is the same all the while"
        if self.form != NO_FEEDBACK:
            reasons["student_labels"] = f"--feedback={self.feedback} says what labels the student gets"
        if self.form not in HARD:
            reasons["baseline_decay"] = "there is no coefficient to subtract it from"
        if self.label_form == "argmax":
            reasons["distillation_temperature"] = "--student_labels=argmax has the same class at any temperature"
        return reasons
