"""What is varied about teachers (arXiv:2003.10580v1, Table 1; H. Pham's thesis, section 5.7)."""

from typing import Any

from metassl_tf.meta.meta_pseudo_labels import MetaPseudoLabels
from tools.variants import Changes, Group, Variant

FEEDBACK = MetaPseudoLabels().feedback
"""The form of feedback where its form is not what is asked about: the default."""
# A student without feedback is compared with one that gets labels of the same kind.
_LABELS = MetaPseudoLabels().label_form

# What students see, half the images of the flagfile of UDA, so that many runs take their time.
_IMAGES = {"strong_policy": "digits", "unlabeled_ratio": 3}


def _taught(feedback: str, **changes: Any) -> dict[str, Any]:
    """A student of the base's algorithm, fine-tuned at the end; it sees the same images whatever its teacher is."""
    return {"meta": ("meta_pseudo_labels",), "feedback": feedback, "fine_tune_steps": 200, **_IMAGES, **changes}


def _teacher(title: str, own: Changes) -> dict[str, Variant]:
    """A teacher without a student, with one that it does not listen to, and with one that it does."""
    control = f"{title}, student without feedback"
    return {
        title: Variant(own, reference=title),
        control: Variant(_taught("none", student_labels=_LABELS, **own), reference=title),
        f"{title}, Meta Pseudo Labels": Variant(_taught(FEEDBACK, **own), reference=control),
    }


def _amounts(number: int) -> dict[str, Variant]:
    """The methods of the thesis' figure with so many labels."""
    labels = {"num_labeled": number}
    uda = {"algorithm": "uda", **_IMAGES, **labels}
    supervised = f"supervised, {number} labels"
    return {
        supervised: Variant(labels, reference=supervised),
        f"RandAugment, {number} labels": Variant(
            {"labeled_view": "strong", "strong_policy": "digits", **labels}, reference=supervised
        ),
        f"UDA, {number} labels": Variant(uda, reference=supervised),
        f"UDA and Meta Pseudo Labels, {number} labels": Variant(
            _taught(FEEDBACK, **uda), reference=f"UDA, {number} labels"
        ),
    }


# All of a group have the same examples, those on which weights are fitted set apart.
_APART = {"num_meta_validation": 100, "labeled_in_unlabeled": False}
_WEIGHTS = {"weight_update_steps": 2, "damping": 0.1}
_LABELED = {"unlabeled_dataset": "labeled", "unlabeled_ratio": 1, "strong_policy": "weak"}
_SAMPLED, _SOFT = "no feedback, sampled labels", "no feedback, soft labels"


GROUPS = {
    "teachers": Group(
        "Teachers, with and without a student",
        "arXiv:2003.10580v1, Table 1",
        {
            **_teacher("supervised", {}),
            **_teacher("label smoothing", {"label_smoothing": 0.1}),
            **_teacher("RandAugment", {"labeled_view": "strong", "strong_policy": "digits"}),
            **_teacher("UDA", {"algorithm": "uda", "temperature": 0.4, "threshold": 0.8, **_IMAGES}),
        },
    ),
    "more_teachers": Group(
        "Other teachers, with and without a student",
        "H. Pham's thesis, Table 5.10",
        {
            **_teacher("mixup", {"mixup": 0.5}),
            **_teacher("Pseudo-Label", {"algorithm": "pseudo_label", "threshold": 0.95, "unlabeled_ratio": 3}),
        },
    ),
    "regularization": Group(
        "The labeled examples alone, and no RandAugment",
        "H. Pham's thesis, Table 5.9",
        {
            "supervised": Variant({}, reference="supervised"),
            "label smoothing": Variant({"label_smoothing": 0.1}, reference="supervised"),
            "student without feedback": Variant(
                _taught("none", student_labels=_LABELS, **_LABELED), reference="supervised"
            ),
            "Meta Pseudo Labels": Variant(_taught(FEEDBACK, **_LABELED), reference="supervised"),
        },
    ),
    "amounts": Group(
        "Number of labels",
        "H. Pham's thesis, Figure 5.5",
        {name: variant for number in (20, 40, 100, 200, 400) for name, variant in _amounts(number).items()},
    ),
    "weighted_students": Group(
        "Learned weights and Meta Pseudo Labels, apart and together",
        "",
        {
            "neither": Variant(_APART, reference="neither"),
            "weights": Variant({"meta": ("per_example_weights",), **_WEIGHTS, **_APART}, reference="neither"),
            "Meta Pseudo Labels": Variant(_taught(FEEDBACK, **_APART), reference="neither"),
            "both": Variant(
                {**_taught(FEEDBACK, **_APART), "meta": ("meta_pseudo_labels", "per_example_weights"), **_WEIGHTS},
                reference="Meta Pseudo Labels",
            ),
        },
    ),
    "feedback": Group(
        "Forms of feedback",
        "arXiv:2003.10580v1, Table 1",
        {
            "no student": Variant({}),
            _SAMPLED: Variant(_taught("none", student_labels="sampled")),
            _SOFT: Variant(_taught("none", student_labels="soft")),
            **{form: Variant(_taught(form), reference=_SAMPLED) for form in ("hard", "hard_cosine", "hard_difference")},
            "soft_jvp": Variant(_taught("soft_jvp"), reference=_SOFT),
            # A student's step is as small as its learning rate, and so is what labels change by it.
            "soft_jvp, weight 30": Variant(_taught("soft_jvp", feedback_weight=30.0), reference=_SOFT),
        },
    ),
}
"""Name -> question."""
