"""The table of policies: the papers' lists, and what is refused."""

import dataclasses

import pytest

from metassl_tf.augment.policies import OPERATIONS, POLICIES, Policy, find_policy
from metassl_tf.errors import UserError

GEOMETRY = {"rotate", "shear_x", "shear_y", "translate_x", "translate_y"}
# google-research/uda: the 15 operations that Meta Pseudo Labels' release has as well.
UDA = GEOMETRY | {
    "autocontrast",
    "brightness",
    "color",
    "contrast",
    "cutout",
    "equalize",
    "invert",
    "posterize",
    "sharpness",
    "solarize",
}
LISTS = {
    "fixmatch": (UDA - {"invert", "cutout"}) | {"identity"},
    "uda": UDA,
    "mpl": UDA,
    "thesis_cifar": (UDA - {"cutout"}) | {"sample_pairing"},
    "thesis_svhn": UDA - {"cutout", "rotate", "translate_x"},
    "digits": GEOMETRY | {"sharpness"},
    "weak": {"identity"},
}


def test_every_policy_is_listed_here() -> None:
    assert set(LISTS) == set(POLICIES)


@pytest.mark.parametrize("name", POLICIES)
def test_operations_are_the_papers(name: str) -> None:
    operations = POLICIES[name].operations
    assert set(operations) == LISTS[name]
    assert len(operations) == len(set(operations))


def test_every_operation_is_used_by_a_policy() -> None:
    assert set().union(*LISTS.values()) == set(OPERATIONS)


def test_overrides() -> None:
    assert find_policy("uda") is POLICIES["uda"]
    changed = find_policy("uda", num_layers=3, magnitude=5)
    assert changed == dataclasses.replace(POLICIES["uda"], num_layers=3, min_magnitude=5, max_magnitude=5)
    assert find_policy("uda", num_layers=0).num_layers == 0


def test_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'fixmatch'"):
        find_policy("fixmach")


@pytest.mark.parametrize("magnitude", [-1, 31])
def test_impossible_magnitude_names_its_flag(magnitude: int) -> None:
    with pytest.raises(UserError, match=f"--strong_magnitude={magnitude} is out of range"):
        find_policy("uda", magnitude=magnitude)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operations": ("rotate", "sheer_x")}, "Did you mean 'shear_x'"),
        ({"operations": ()}, "no operations"),
        ({"num_layers": -1}, "num_layers=-1"),
        ({"min_magnitude": 10}, "min_magnitude=10 is above max_magnitude=9"),
        ({"max_probability": 0.4}, "min_probability=0.5 is above"),
        ({"max_probability": 1.1}, "max_probability=1.1"),
        ({"fill": 300}, "fill=300"),
        ({"final_cutout": 1.5}, "final_cutout=1.5"),
        ({"interpolation": "bicubic"}, "bilinear"),
        ({"tone": "louder"}, "stronger"),
        ({"start": "strong"}, "weak_view"),
        ({"rotate": float("nan")}, "rotate=nan"),
    ],
)
def test_impossible_policies_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Policy(**change)
