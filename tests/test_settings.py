"""Settings are checked against their declared choices and ranges, with messages that say what to mend."""

import dataclasses
import re
from typing import Any

import pytest

from metassl_tf.errors import UserError, near_match
from metassl_tf.settings import check_settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One setting of every kind."""

    color: str = setting("red", "What it looks like.", choices=("red", "green", "blue"))
    share: float = setting(0.5, "Part of the whole.", minimum=0.0, below=1.0)
    temperature: float = setting(1.0, "How soft.", above=0.0, maximum=10.0)
    count: int = setting(3, "How many.", minimum=1)
    sizes: tuple[int, ...] = setting((4, 5), "Units of each layer.", minimum=1)
    free: float = setting(0.0, "Any number.")
    name: str = setting("anything", "Free text.")
    switch: bool = setting(False, "On or off.", minimum=1)
    plain: int = -7


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"share": 0.0},
        {"share": 0.999},
        {"temperature": 10.0},
        {"temperature": 1e-9},
        {"count": 1},
        {"sizes": ()},
        {"sizes": [1, 2]},
        {"free": -1e30},
        {"name": ""},
        {"switch": False},
        {"plain": -(10**6)},
        {"color": "blue"},
    ],
)
def test_value_within_its_bounds_passes(values: dict[str, Any]) -> None:
    check_settings(Example(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 1.0}, "--share=1.0 is out of range. Expected at least 0 and less than 1: Part of the whole."),
        ({"share": -0.1}, "--share=-0.1 is out of range. Expected at least 0 and less than 1"),
        ({"temperature": 0.0}, "--temperature=0.0 is out of range. Expected more than 0 and at most 10: How soft."),
        ({"temperature": 10.5}, "--temperature=10.5 is out of range."),
        ({"count": 0}, "--count=0 is out of range. Expected at least 1: How many."),
        ({"sizes": (4, 0)}, "--sizes=0 is out of range. Expected at least 1: Units of each layer."),
        ({"sizes": [0]}, "--sizes=0 is out of range."),
        ({"free": float("nan")}, "--free=nan is out of range. Expected a finite number: Any number."),
        ({"free": float("inf")}, "--free=inf is out of range. Expected a finite number"),
        ({"share": float("nan")}, "--share=nan is out of range. Expected at least 0 and less than 1"),
        (
            {"color": "gren"},
            "--color=gren is not known. Expected one of: red, green, blue. Did you mean 'green'?",
        ),
        ({"color": "xyzzy"}, "--color=xyzzy is not known. Expected one of: red, green, blue."),
    ],
)
def test_value_out_of_its_bounds_is_refused_with_a_remedy(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check_settings(Example(**values))


def test_setting_keeps_its_default_and_its_help() -> None:
    fields = {field.name: field for field in dataclasses.fields(Example)}
    assert Example().sizes == fields["sizes"].default == (4, 5)
    assert fields["share"].metadata["help"] == "Part of the whole."
    assert fields["color"].metadata["choices"] == ("red", "green", "blue")


def test_near_match_is_silent_where_nothing_is_near() -> None:
    assert near_match("fixmach", ["uda", "fixmatch"]) == " Did you mean 'fixmatch'?"
    assert near_match("zzz", ["uda", "fixmatch"]) == ""
    assert near_match("uda", []) == ""


def test_user_error_is_a_value_error() -> None:
    assert issubclass(UserError, ValueError)
