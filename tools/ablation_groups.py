"""What is varied about learned weights and about teachers, on digits, which a CPU has time for.

A group asks one of a base experiment; its variants are changes of settings, each compared with another run of the same
seed.
"""

from tools import teacher_variants, weight_variants
from tools.variants import Base

GROUPS = {**weight_variants.GROUPS, **teacher_variants.GROUPS}
"""Name -> question."""

# Half the images of the flagfile's step, so that many runs take their time.
_HALF = {"unlabeled_ratio": 3}
_OFTEN = {"eval_steps": 100, **_HALF}
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
    "polluted": Base("FixMatch, unknown classes", "flags/digits/weights_polluted.flags", _HALF, ("pollution",)),
    "supervised": Base(
        "Supervised, 40 labels",
        "flags/digits/supervised_40.flags",
        {},
        ("feedback", "teachers", "more_teachers", "regularization", "amounts"),
    ),
    "uda": Base("UDA, 40 labels", "flags/digits/uda_40.flags", _HALF, ("feedback", "weighted_students")),
}
"""Name -> experiment."""
