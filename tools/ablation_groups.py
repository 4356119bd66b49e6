"""What is varied about learned weights and about teachers, on digits, which a CPU has time for.

The questions are those of arXiv:2007.01293, section 4.3, and of arXiv:2003.10580v1, Table 1. A group asks one of a base
experiment; its variants are changes of settings, each compared with another run of
the same seed.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from metassl_tf import flag_definitions
from metassl_tf.algorithms import ALGORITHMS
from metassl_tf.config import Config
from metassl_tf.meta import META_RULES
from metassl_tf.meta.meta_pseudo_labels import MetaPseudoLabels

BASE = "base"
"""Name of the variant without changes."""
FEEDBACK = MetaPseudoLabels().feedback
"""The form of feedback where its form is not what is asked about: the default."""

Changes = Mapping[str, Any]


class Base(NamedTuple):
    """An experiment that is varied.

    Attributes:
      title: for tables and plots.
      path: of its flagfile.
      changes: to that, such as those that make it learn weights and let it be looked at more often.
      groups: names of the groups of variants that it is asked about.
    """

    title: str
    path: str
    changes: Changes
    groups: tuple[str, ...]

    def config(self) -> Config:
        """Its settings."""
        return changed(flag_definitions.parse([f"--flagfile={self.path}"]), self.changes)


class Variant(NamedTuple):
    """Other settings.

    Attributes:
      changes: setting -> value, in place of the base's.
      reference: the variant of the group that it is compared with.
    """

    changes: Changes
    reference: str = BASE


class Group(NamedTuple):
    """A question.

    Attributes:
      title: what is varied, for tables and plots.
      source: where the paper asks it.
      variants: name -> what is different.
      over_steps: whether test accuracy is drawn over steps as well.
    """

    title: str
    source: str
    variants: Mapping[str, Variant]
    over_steps: bool = False


def changed(config: Config, changes: Changes) -> Config:
    """Replaces settings, wherever in the config they are.

    Args:
      config: any.
      changes: setting -> value; `algorithm` and `meta`, names of these, start from the defaults of what they name.

    Returns:
      The new config. What has no effect in it stays as it was: `to_flagfile` leaves it out.

    Raises:
      ValueError: the config has no such setting.
    """
    if "algorithm" in changes:
        config = dataclasses.replace(config, algorithm=ALGORITHMS[changes["algorithm"]]())
    if "meta" in changes:
        config = dataclasses.replace(config, meta=tuple(META_RULES[name]() for name in changes["meta"]))
    if unknown := changes.keys() - config.values().keys():
        raise ValueError(f"The config has no settings {sorted(unknown)}.")

    def replaced(part: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(map(replaced, part))
        own = {field.name for field in dataclasses.fields(part)} if part is not None else set()
        return dataclasses.replace(part, **{name: changes[name] for name in changes if name in own}) if own else part

    return dataclasses.replace(
        config, **{field.name: replaced(getattr(config, field.name)) for field in dataclasses.fields(config)}
    )


# Half the images of the flagfile's step, so that many runs take their time.
_OFTEN = {"eval_steps": 100, "unlabeled_ratio": 3}
_ABOUT_WEIGHTS = ("inverse", "single_weight", "optimizer", "validation_size", "updates")

BASES = {
    "flipped": Base("Given labels, 30 % flipped", "flags/digits/weights_flipped.flags", _OFTEN, _ABOUT_WEIGHTS),
    "fixmatch": Base(
        "FixMatch, 40 labels",
        "flags/digits/fixmatch_40.flags",
        {
            "meta": ("per_example_weights",),
            "num_meta_validation": 100,
            "labeled_in_unlabeled": False,
            "weight_update_steps": 2,
            "damping": 0.1,
            **_OFTEN,
        },
        _ABOUT_WEIGHTS,
    ),
    "polluted": Base(
        "FixMatch, unknown classes", "flags/digits/weights_polluted.flags", {"unlabeled_ratio": 3}, ("pollution",)
    ),
    "supervised": Base(
        "Supervised teacher", "flags/digits/supervised_40.flags", {}, ("teachers", "regularization", "amounts")
    ),
    "uda": Base("UDA teacher", "flags/digits/uda_40.flags", {}, ("feedback",)),
}

_ITERATED = ("neumann", "conjugate_gradient", "stochastic", "unrolled")
_ITERATIONS = 10
_MOST_VALIDATION, _BASE_VALIDATION = 200, 100


def _inverse(method: str, scope: str) -> Variant:
    iterations = {"solver_iterations": _ITERATIONS} if method in _ITERATED else {}
    return Variant({"inverse_hessian": method, "influence_scope": scope, **iterations})


def _labels(number: int) -> dict[str, Variant]:
    """A weight for each, one for all, and none, with so many labels."""
    labels, each = {"num_labeled": number}, f"one for each, {number} labels"
    return {
        each: Variant(labels, reference=each),
        f"one for all, {number} labels": Variant({"single_weight": True, **labels}, reference=each),
        f"none, {number} labels": Variant({"meta": (), **labels}, reference=each),
    }


def _taught(feedback: str, **changes: Any) -> dict[str, Any]:
    """A student of the base's algorithm, fine-tuned at the end."""
    return {"meta": ("meta_pseudo_labels",), "feedback": feedback, "fine_tune_steps": 200, **changes}


def _teacher(title: str, own: Changes) -> dict[str, Variant]:
    """A teacher without a student, with one that it does not listen to, and with one that it does."""
    views = {"strong_policy": "digits", **own}
    control = f"{title}, student without feedback"
    return {
        title: Variant(own, reference=title),
        control: Variant(_taught("none", **views), reference=title),
        f"{title}, Meta Pseudo Labels": Variant(_taught(FEEDBACK, **views), reference=control),
    }


def _amounts(number: int) -> dict[str, Variant]:
    """The methods of the thesis' figure with so many labels."""
    labels = {"num_labeled": number}
    uda = {"algorithm": "uda", "strong_policy": "digits", "unlabeled_ratio": 3, **labels}
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


_LABELED = {"unlabeled_dataset": "labeled", "unlabeled_ratio": 1, "strong_policy": "weak"}
_SAMPLED, _SOFT = "no feedback, sampled labels", "no feedback, soft labels"


def _validation(number: int) -> Variant:
    """So many validation examples; the others are left unused, so that the unlabeled ones are the same for all."""
    changes = {"num_meta_validation": number, "num_validation": _MOST_VALIDATION - number}
    return Variant(changes, reference=f"{_BASE_VALIDATION} examples")


GROUPS = {
    "inverse": Group(
        "Inverse Hessian, and the parameters that the validation loss is followed through",
        "Figure 3",
        {
            f"{method}, {scope}": _inverse(method, scope)
            for method, scope in (
                ("exact", "last_layer"),
                ("identity", "last_layer"),
                ("identity", "last_block"),
                ("identity", "all"),
                ("neumann", "last_layer"),
                ("neumann", "last_block"),  # as in the paper
                ("conjugate_gradient", "last_layer"),
                ("conjugate_gradient", "last_block"),
                ("stochastic", "last_layer"),
                ("unrolled", "last_layer"),
            )
        },
        over_steps=True,
    ),
    "single_weight": Group(
        "A weight for each example, one for all, or none",
        "Figure 4, left",
        {name: variant for number in (20, 40, 100) for name, variant in _labels(number).items()},
    ),
    "optimizer": Group(
        "Update rule of the weights",
        "Figure 4, center",
        {
            **{
                rule: Variant({"weight_optimizer": rule}) for rule in ("masked_adam", "masked_adam_global_step", "adam")
            },
            # Its steps are as long as the derivatives, which are small.
            **{
                f"sgd, rate {rate}": Variant({"weight_optimizer": "sgd", "weight_learning_rate": float(rate)})
                for rate in (1, 10, 100)
            },
        },
        over_steps=True,
    ),
    "validation_size": Group(
        "Number of validation examples",
        "Figure 4, right",
        {f"{number} examples": _validation(number) for number in (16, 32, 64, 100, 200)},
    ),
    "updates": Group(
        "Steps between updates, and learning rate of the weights",
        "Table 3",
        {
            **{f"every {steps} steps": Variant({"weight_update_steps": steps}) for steps in (1, 2, 5, 20, 100)},
            **{f"rate {rate}": Variant({"weight_learning_rate": rate}) for rate in (0.001, 0.003, 0.01, 0.03, 0.1)},
        },
    ),
    "pollution": Group(
        "What could let weights find unknown classes",
        "none",
        {
            "none": Variant({"meta": ()}),
            "masked examples move": Variant({"move_masked": True}),
            "no threshold": Variant({"threshold": 0.0}),
            "damping 0.001": Variant({"damping": 0.001}),
            "damping 10": Variant({"damping": 10.0}),
            "30 validation examples": Variant({"num_meta_validation": 30, "num_validation": 30}),
            "identity, all": _inverse("identity", "all"),
            "saturating validation loss": Variant({"meta_validation_loss": "squared_error"}),
        },
    ),
    "teachers": Group(
        "Teachers, with and without a student",
        "arXiv:2003.10580v1, Table 1; H. Pham's thesis, Table 5.10",
        {
            **_teacher("supervised", {}),
            **_teacher("label smoothing", {"label_smoothing": 0.1}),
            **_teacher("RandAugment", {"labeled_view": "strong", "strong_policy": "digits"}),
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
            "student without feedback": Variant(_taught("none", **_LABELED), reference="supervised"),
            "Meta Pseudo Labels": Variant(_taught(FEEDBACK, **_LABELED), reference="supervised"),
        },
    ),
    "amounts": Group(
        "Number of labels",
        "H. Pham's thesis, Figure 5.5",
        {name: variant for number in (20, 40, 100, 200, 400) for name, variant in _amounts(number).items()},
    ),
    "feedback": Group(
        "Forms of feedback",
        "arXiv:2003.10580v1, Table 1",
        {
            "no student": Variant({}),
            _SAMPLED: Variant(_taught("none")),
            _SOFT: Variant(_taught("none", student_labels="soft")),
            **{form: Variant(_taught(form), reference=_SAMPLED) for form in ("hard", "hard_cosine", "hard_difference")},
            "soft_jvp": Variant(_taught("soft_jvp"), reference=_SOFT),
        },
    ),
}
