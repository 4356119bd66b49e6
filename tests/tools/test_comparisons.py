"""Seeds are read as written, and means, spreads and paired differences are those of the textbook."""

import pytest

from metassl_tf.errors import UserError
from tools.comparisons import better_of, choose, differences, parse_seeds, summary, with_spread


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["0", "4", "1"], [0, 4, 1]),
        (["0..3"], [0, 1, 2, 3]),
        (["7..7"], [7]),
        (["2", "0..3", "5"], [2, 0, 1, 3, 5]),
        ([], []),
    ],
)
def test_seeds_and_ranges(given: list[str], expected: list[int]) -> None:
    assert parse_seeds(given) == expected


@pytest.mark.parametrize("given", ["one", "0..", "3..1", "0..2..4", "0.5", ""])
def test_other_seeds_are_refused(given: str) -> None:
    with pytest.raises(UserError, match=r"--seeds=.* is not a list of integers.*0\.\.19"):
        parse_seeds([given])


def test_names_are_chosen_in_the_order_of_the_table() -> None:
    known = ["first", "second", "third"]
    assert choose(["third", "first"], known, flag="only", what="a thing") == ["first", "third"]
    assert choose([], known, flag="only", what="a thing") == known
    with pytest.raises(UserError, match=r"--only=secnd is not a thing\..* third\. Did you mean 'second'"):
        choose(["first", "secnd"], known, flag="only", what="a thing")


def test_spread_is_that_of_a_sample() -> None:
    """1, 2, 4: mean 7/3, sum of squares 14/3, over 2."""
    assert with_spread([1.0, 2.0, 4.0], decimals=3) == "2.333 ± 1.528"
    assert with_spread([1.0], decimals=1) == "1.0"
    assert summary([1.0, 2.0, 4.0]) == {"mean": 2.333333, "std": 1.527525, "n": 3}
    assert summary([0.5]) == {"mean": 0.5, "std": None, "n": 1}


def test_only_runs_of_the_same_seed_are_compared() -> None:
    ahead = differences({3: 0.9, 0: 0.8, 1: 0.7}, {0: 0.5, 3: 0.95, 2: 0.1})
    assert ahead == pytest.approx([0.3, -0.05])
    assert better_of([*ahead, 0.0]) == "1 of 3"
