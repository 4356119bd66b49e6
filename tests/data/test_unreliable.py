"""Given labels: where they come from, which of them are wrong, and that labels known to be right stay right."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from metassl_tf.data.examples import Examples
from metassl_tf.data.splits import make_split, split_examples
from metassl_tf.data.unreliable import flip, give_labels, with_given_labels
from metassl_tf.errors import UserError
from tests.data.split_data import dataset

CLASSES = 7


def flipped(count: int = 20_000, *, label: int | None = None, rate: float = 0.3, seed: int = 0) -> tuple[Any, Any]:
    """Labels and what becomes of them."""
    labels = np.arange(count) % CLASSES if label is None else np.full(count, label)
    return labels, flip(labels, np.arange(count), rate=rate, num_classes=CLASSES, split_seed=seed)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.8])
def test_the_rate_is_that_of_independent_draws(rate: float) -> None:
    for seed in range(3):
        labels, found = flipped(rate=rate, seed=seed)
        low, high = binom.interval(0.9999, len(labels), rate)
        assert low <= np.count_nonzero(found != labels) <= high


def test_every_other_class_is_equally_likely() -> None:
    for label in range(CLASSES):
        _, found = flipped(label=label, rate=0.5, seed=label)
        counts = np.bincount(found[found != label], minlength=CLASSES)
        assert counts[label] == 0
        assert chisquare(np.delete(counts, label)).pvalue > 1e-3


def test_rates_0_and_1() -> None:
    labels, found = flipped(rate=0.0)
    np.testing.assert_array_equal(found, labels)
    labels, found = flipped(rate=1.0)
    assert (found != labels).all()
    assert (found.min(), found.max()) == (0, CLASSES - 1)


def test_two_classes_change_places() -> None:
    labels = np.array([0, 1, 1, 0])
    np.testing.assert_array_equal(flip(labels, np.arange(4), rate=1.0, num_classes=2, split_seed=0), 1 - labels)


def test_no_label_stays_none() -> None:
    none = np.full(500, -1)
    np.testing.assert_array_equal(flip(none, np.arange(500), rate=1.0, num_classes=3, split_seed=0), none)


def test_what_is_wrong_depends_on_seed_and_position_alone() -> None:
    labels, found = flipped(1000)
    np.testing.assert_array_equal(flipped(1000)[1], found)
    some = np.array([3, 500, 999, 7])
    arguments: dict[str, Any] = {"rate": 0.3, "num_classes": CLASSES, "split_seed": 0}
    np.testing.assert_array_equal(flip(labels[some], some, **arguments), found[some])
    np.testing.assert_array_equal(flip(labels[:9], np.arange(9), **arguments), found[:9])
    assert (flipped(1000, seed=1)[1] != found).any()


def test_what_is_wrong_stays_wrong_in_the_same_way_at_a_larger_rate() -> None:
    labels, few = flipped(rate=0.2)
    _, many = flipped(rate=0.6)
    wrong = few != labels
    np.testing.assert_array_equal(many[wrong], few[wrong])


def given(data: Any, *, source: str = "truth", flip_labels: float = 0.0, **split: Any) -> tuple[Any, Examples]:
    """A split and its unlabeled examples with given labels."""
    chosen = make_split(data, num_labeled=split.pop("num_labeled", 9), **split)
    examples = give_labels(
        split_examples(data, chosen).unlabeled,
        chosen,
        given_labels=source,
        flip_labels=flip_labels,
        num_classes=3,
        split_seed=split.get("split_seed", 0),
    )
    return chosen, examples


def test_truth_is_given_where_it_is_known() -> None:
    split, examples = given(dataset(unknown=30))
    np.testing.assert_array_equal(examples.columns["given_label"], examples.labels)
    assert np.count_nonzero(examples.columns["given_label"] < 0) == 30
    assert examples.columns["given_label"].dtype == np.int64
    assert len(examples) == len(split.unlabeled)


@pytest.mark.parametrize("case", [{}, {"pool": 40}])
def test_labeled_examples_among_the_unlabeled_keep_their_right_label(case: dict[str, int]) -> None:
    data = dataset(**case)
    split, examples = given(data, flip_labels=1.0)
    labeled = np.isin(split.unlabeled, split.labeled)
    assert labeled.sum() == 9
    found = examples.columns["given_label"]
    np.testing.assert_array_equal(found[labeled], data.train.labels[split.unlabeled[labeled]])
    assert (found[~labeled] != examples.labels[~labeled]).all()
    np.testing.assert_array_equal(examples.labels, split_examples(data, split).unlabeled.labels)


def test_flips_do_not_depend_on_who_is_labeled_or_validates() -> None:
    def by_position(**arguments: Any) -> dict[int, int]:
        split, examples = given(dataset(), flip_labels=0.5, labeled_in_unlabeled=False, **arguments)
        return dict(zip(split.unlabeled.tolist(), examples.columns["given_label"].tolist(), strict=True))

    few = by_position(num_labeled=9)
    for other in (by_position(num_labeled=30), by_position(num_validation=20), by_position(protocol="first")):
        assert all(few.get(position, label) == label for position, label in other.items())


def test_what_the_source_brings_is_given() -> None:
    data = dataset(pool=40)
    assert data.unlabeled is not None
    brought = np.arange(40) % 4 - 1
    data = dataclasses.replace(data, unlabeled=with_given_labels(data.unlabeled, brought))
    split, examples = given(data, source="source")
    labeled = np.isin(split.unlabeled, split.labeled)
    np.testing.assert_array_equal(examples.columns["given_label"][~labeled], brought)
    np.testing.assert_array_equal(examples.columns["given_label"][labeled], examples.labels[labeled])


@pytest.mark.parametrize("flip_labels", [0.0, 0.3])
def test_without_given_labels_the_message_says_how_to_get_them(flip_labels: float) -> None:
    what = "--flip_labels=0.3 has no given labels to flip" if flip_labels else "There are no given labels"
    with pytest.raises(UserError, match=rf"{what}: the source brings none.*DIR/weak/<class>/.*--given_labels=truth"):
        given(dataset(), source="source", flip_labels=flip_labels)
    with pytest.raises(UserError, match=rf"{what}: --given_labels=truth .* none is known but those of the labeled"):
        given(dataset(90, unknown=30), num_labeled=0, flip_labels=flip_labels)
