import itertools

import numpy as np
import pytest

from metassl_tf.data.protocols import PROTOCOLS, ranks_in_class, stratified_labels
from metassl_tf.errors import UserError

NAMES = ("a", "b", "c")


def labels_of(count: int, seed: int = 0, unknown: bool = False) -> np.ndarray:
    return np.random.RandomState(seed).randint(-1 if unknown else 0, 3, count)


def test_ranks_count_earlier_members_of_the_class() -> None:
    assert ranks_in_class(np.array([2, 0, 2, 2, 0])).tolist() == [0, 0, 1, 2, 1]


@pytest.mark.parametrize("count", range(3, 40))
def test_stratified_takes_the_first_of_each_class_in_order(count: int) -> None:
    labels = labels_of(200, unknown=True)
    order = np.random.RandomState(1).permutation(200)
    chosen, reserved = stratified_labels(labels, order, count, NAMES)
    counts = np.bincount(labels[chosen], minlength=3)
    assert len(set(chosen.tolist())) == count == counts.sum()
    assert counts.max() - counts.min() <= 1
    assert len(reserved) == 0
    for label in range(3):
        in_order = [position for position in order if labels[position] == label]
        assert [position for position in chosen if labels[position] == label] == in_order[: counts[label]]


def test_more_labels_keep_the_fewer_ones() -> None:
    labels, order = labels_of(100), np.random.RandomState(1).permutation(100)
    chosen = [set(stratified_labels(labels, order, count, NAMES).labeled.tolist()) for count in range(3, 60)]
    assert all(fewer < more for fewer, more in itertools.pairwise(chosen))


def test_a_remainder_goes_to_classes_that_have_enough() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2, 2, 2])
    order = np.arange(8)
    counts = np.bincount(labels[stratified_labels(labels, order, 8, NAMES).labeled])
    assert counts.tolist() == [2, 3, 3]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_zero_takes_every_known_label(protocol: str) -> None:
    labels = labels_of(5100, unknown=True)
    labeled, reserved = PROTOCOLS[protocol](labels, np.arange(5100), 0, NAMES)
    apart = 5000 if protocol == "skip_5000_then_first" else 0
    assert len(reserved) == apart
    assert sorted(labeled.tolist()) == (np.flatnonzero(labels[apart:] >= 0) + apart).tolist()


def test_first_is_the_order_of_the_set() -> None:
    labels = np.array([0, -1, 0, 1, 2])
    assert PROTOCOLS["first"](labels, np.arange(5)[::-1], 3, NAMES).labeled.tolist() == [0, 2, 3]


def test_the_thesis_on_cifar10() -> None:
    labels = labels_of(50000)
    labeled, reserved = PROTOCOLS["skip_5000_then_first"](labels, np.arange(50000)[::-1], 4000, NAMES)
    np.testing.assert_array_equal(labeled, np.arange(5000, 9000))
    np.testing.assert_array_equal(reserved, np.arange(5000))


@pytest.mark.parametrize(("protocol", "available"), [("stratified", 30), ("first", 30), ("skip_5000_then_first", 0)])
def test_more_labels_than_exist(protocol: str, available: int) -> None:
    with pytest.raises(UserError, match=f"--num_labeled=31 .*at most {available}"):
        PROTOCOLS[protocol](labels_of(30), np.arange(30), 31, NAMES)


def test_fewer_than_one_per_class() -> None:
    with pytest.raises(UserError, match=r"--num_labeled=2 .*at least 3"):
        stratified_labels(labels_of(30), np.arange(30), 2, NAMES)


@pytest.mark.parametrize(
    ("sizes", "count", "named", "most"),
    [((2, 9, 9), 9, "'a' has only 2", 8), ((3, 2, 2), 5, None, 7), ((3, 0, 3), 3, "'b'", 2)],
)
def test_a_class_with_too_few(sizes: tuple[int, ...], count: int, named: str | None, most: int) -> None:
    labels = np.repeat(np.arange(3), sizes)
    if named is None:
        assert len(stratified_labels(labels, np.arange(len(labels)), count, NAMES).labeled) == count
        return
    with pytest.raises(UserError, match=f"{named}.*Expected at most {most}"):
        stratified_labels(labels, np.arange(len(labels)), count, NAMES)


@pytest.mark.parametrize("seed", range(5))
def test_the_named_maximum_is_the_maximum(seed: int) -> None:
    sizes = np.random.RandomState(seed).randint(1, 6, 3)
    labels = np.repeat(np.arange(3), sizes)
    order = np.arange(len(labels))
    most = int(sizes.min()) * 3 + int((sizes > sizes.min()).sum())
    assert len(stratified_labels(labels, order, most, NAMES).labeled) == most
    if most < len(labels):
        with pytest.raises(UserError, match=f"at most {most}"):
            stratified_labels(labels, order, most + 1, NAMES)
