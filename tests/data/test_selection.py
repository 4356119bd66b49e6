"""Which unlabeled examples are chosen by a teacher's distributions, and which are repeated."""

import logging
import re

import numpy as np
import pytest

from metassl_tf.data.selection import most_confident
from metassl_tf.errors import UserError


def test_the_most_confident_of_each_class_are_chosen() -> None:
    distributions = np.random.default_rng(1).dirichlet([3.0, 1.0, 1.0], 40).astype(np.float32)
    expected = []
    for label in range(3):
        own = [place for place in range(40) if distributions[place].argmax() == label]
        expected += sorted(own, key=lambda place: -distributions[place].max())[:4]
    np.testing.assert_array_equal(most_confident(distributions, per_class=4, balance=False), sorted(expected))
    np.testing.assert_array_equal(most_confident(distributions, per_class=0, balance=False), np.arange(40))


def test_as_many_of_each_class_as_there_are_examples() -> None:
    distributions = np.tile([[0.75, 0.25]], (4, 1))
    np.testing.assert_array_equal(most_confident(distributions, per_class=4, balance=False), np.arange(4))
    with pytest.raises(UserError, match=r"=5 asks for more examples of each class than the 4 unlabeled ones"):
        most_confident(distributions, per_class=5, balance=False)


def test_smaller_classes_are_repeated_the_most_confident_first() -> None:
    distributions = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.55, 0.45], [0.2, 0.8], [0.1, 0.9]])
    np.testing.assert_array_equal(
        most_confident(distributions, per_class=0, balance=True), [0, 1, 2, 3, 4, 5, 5, 6, 6, 6]
    )
    np.testing.assert_array_equal(most_confident(distributions, per_class=3, balance=True), [0, 1, 2, 5, 6, 6])


@pytest.mark.parametrize(
    ("balance", "expected"), [(False, "1 classes have fewer than 3.*--balance_classes"), (True, "they are repeated")]
)
def test_classes_with_too_few_are_named(caplog: pytest.LogCaptureFixture, *, balance: bool, expected: str) -> None:
    distributions = np.array([[0.9, 0.1, 0.0]] * 3 + [[0.1, 0.9, 0.0]])
    for per_class in (3, 0) if balance else (3,):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            chosen = most_confident(distributions, per_class=per_class, balance=balance)
        np.testing.assert_array_equal(chosen, [0, 1, 2, 3, 3, 3] if balance else [0, 1, 2, 3])
        assert any("no example of 1 classes" in line for line in caplog.messages)
        assert any(re.search(expected, line) for line in caplog.messages)


def test_nothing_is_said_where_all_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    most_confident(np.array([[0.9, 0.1, 0.0]] * 3 + [[0.1, 0.9, 0.0]]), per_class=0, balance=False)
    assert not caplog.messages


def test_of_equally_confident_ones_the_first_are_chosen() -> None:
    confidence = np.random.default_rng(0).choice([0.55, 0.75, 0.95], 400)
    expected = sorted(range(400), key=lambda place: -confidence[place])[:200]  # Python's sort is stable
    distributions = np.stack([confidence, 1 - confidence], axis=1)
    np.testing.assert_array_equal(most_confident(distributions, per_class=200, balance=False), sorted(expected))
