"""The second validation set: where it comes from, and that nobody else moves for it."""

import hashlib
import itertools
from typing import Any

import numpy as np
import pytest

from metassl_tf.data.splits import make_split, split_examples
from metassl_tf.errors import UserError
from tests.data.split_data import dataset

CASES: list[dict[str, Any]] = [{}, {"unknown": 30}, {"pool": 40}, {"validation": 12}, {"pool": 40, "validation": 12}]


def test_without_a_second_validation_set_the_same_examples_are_chosen_as_ever() -> None:
    digest = hashlib.sha256()
    for case, protocol, num_validation in itertools.product(CASES, ("stratified", "first"), (0, 7)):
        split = make_split(
            dataset(**case), num_labeled=11, num_validation=num_validation, split_seed=3, protocol=protocol
        )
        assert len(split.meta_validation) == 0
        for part in ("labeled", "validation", "unlabeled", "test"):
            digest.update(f"{part} {getattr(split, part).tolist()}".encode())
    assert digest.hexdigest() == "ea0e5d2c9997e940bb6fc2de40f761cb88332746e8e198798d35364c09e66b3b"


def test_a_second_validation_set_takes_from_the_unlabeled_examples_alone() -> None:
    data = dataset()
    without = make_split(data, num_labeled=9, num_validation=6, split_seed=3)
    split = make_split(data, num_labeled=9, num_validation=6, num_meta_validation=12, split_seed=3)
    np.testing.assert_array_equal(split.labeled, without.labeled)
    np.testing.assert_array_equal(split.validation, without.validation)
    assert sorted([*split.unlabeled, *split.meta_validation]) == without.unlabeled.tolist()
    np.testing.assert_array_equal(split_examples(data, split).meta_validation.inputs[:, 0], split.meta_validation)


def test_a_second_validation_set_comes_out_of_the_datasets_own() -> None:
    data = dataset(validation=30)
    whole = make_split(data, num_labeled=9, num_meta_validation=10)
    assert sorted([*whole.validation, *whole.meta_validation]) == list(range(30))
    assert len(whole.meta_validation) == 10
    assert len(whole.unlabeled) == 90
    part = make_split(data, num_labeled=9, num_validation=5, num_meta_validation=10)
    np.testing.assert_array_equal(part.validation, make_split(data, num_labeled=9, num_validation=5).validation)
    assert not set(part.validation) & set(part.meta_validation)
    all_of_it = make_split(data, num_labeled=9, num_meta_validation=30)
    assert (len(all_of_it.validation), len(all_of_it.meta_validation)) == (0, 30)
    with pytest.raises(UserError, match=r"--num_meta_validation=31 .* the 30 labeled ones that are left"):
        make_split(data, num_labeled=9, num_meta_validation=31)
