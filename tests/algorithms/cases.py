"""What the contract tests know about each algorithm, which joins them by one row of CASES."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tests.algorithms import golden


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What the contract tests know about one algorithm.

    Attributes:
      golden: its loss in NumPy.
      alternatives: for each hyperparameter, values other than the default.
      learns: for each term, the inputs of the forward pass through which it learns; through all others it must not.
    """

    golden: golden.Golden
    alternatives: Mapping[str, tuple[Any, ...]]
    learns: Mapping[str, set[str]]


CASES = {
    "supervised": Case(
        golden=golden.supervised,
        alternatives={"label_smoothing": (0.2, 0.5), "mixup": (0.5, 2.0), "labeled_view": ("strong",)},
        learns={"cross_entropy": {"labeled"}},
    ),
    "pseudo_label": Case(
        golden=golden.pseudo_label,
        alternatives={"threshold": (0.6, 0.0), "label_smoothing": (0.3,)},
        learns={"cross_entropy": {"labeled"}, "pseudo_label": {"unlabeled"}},
    ),
    "uda": Case(
        golden=golden.uda,
        alternatives={
            "temperature": (0.9, 2.0),
            "threshold": (0.6, 0.0),
            "confidence": ("tempered",),
            "annealing": ("linear", "log", "exp"),
            "label_smoothing": (0.3,),
        },
        learns={"cross_entropy": {"labeled"}, "consistency": {"strong"}},
    ),
    "fixmatch": Case(
        golden=golden.fixmatch,
        alternatives={"threshold": (0.6, 0.0)},
        learns={"cross_entropy": {"labeled"}, "consistency": {"strong"}},
    ),
    "given_labels": Case(
        golden=golden.given_labels,
        alternatives={},
        learns={"cross_entropy": {"labeled"}, "given_label": {"strong"}},
    ),
    "noisy_student": Case(
        golden=golden.noisy_student,
        alternatives={"label_smoothing": (0.2,)},
        learns={"cross_entropy": {"labeled"}, "teacher_label": {"strong"}},
    ),
}


def first_alternatives(name: str) -> dict[str, Any]:
    return {field: values[0] for field, values in CASES[name].alternatives.items()}


def variants(name: str) -> list[dict[str, Any]]:
    """Defaults, each alternative alone, and the first alternatives of all hyperparameters together."""
    single = [{field: value} for field, values in CASES[name].alternatives.items() for value in values]
    return [{}, *single, first_alternatives(name)]
