import dataclasses
import itertools
import json
import logging
import pathlib
from typing import Any

import numpy as np
import pytest

from metassl_tf.data.examples import Dataset, Examples
from metassl_tf.data.protocols import PROTOCOLS
from metassl_tf.data.splits import Split, load_split, make_split, save_split, split_examples
from metassl_tf.errors import UserError
from tests.data.split_data import NAMES, PARTS, dataset, examples, values

CASES: list[dict[str, Any]] = [{}, {"unknown": 30}, {"pool": 40}, {"validation": 12}, {"pool": 40, "validation": 12}]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("labeled_in_unlabeled", [True, False])
def test_parts_are_disjoint_for_any_seed(case: dict[str, Any], protocol: str, labeled_in_unlabeled: bool) -> None:
    data = dataset(5060 if protocol == "skip_5000_then_first" else 90, **case)
    for seed, num_labeled, num_validation, num_meta in itertools.product(range(4), (3, 11), (0, 7), (0, 4)):
        split = make_split(
            data,
            num_labeled=num_labeled,
            num_validation=num_validation,
            num_meta_validation=num_meta,
            split_seed=seed,
            protocol=protocol,
            labeled_in_unlabeled=labeled_in_unlabeled,
        )
        parts = split_examples(data, split)
        labeled, validation, meta_validation, unlabeled, test = (values(part) for part in parts)
        assert [len(part) for part in parts] == [len(values(part)) for part in parts]
        assert len(labeled) == num_labeled
        assert len(validation) == (num_validation or max(case.get("validation", 0) - num_meta, 0))
        assert len(meta_validation) == num_meta
        assert len(test) == 20
        for part, other in itertools.combinations((labeled, validation, meta_validation, test), 2):
            assert not part & other
        assert not unlabeled & (validation | meta_validation | test)
        assert labeled & unlabeled == (labeled if labeled_in_unlabeled else set())
        for part in (parts.labeled, parts.validation, parts.meta_validation):
            assert (part.labels >= 0).all()


def test_all_that_is_left_is_unlabeled() -> None:
    data = dataset(unknown=30)
    split = make_split(data, num_labeled=9, num_validation=10)
    assert split.unlabeled.tolist() == sorted(set(range(90)) - set(split.validation.tolist()))
    without = make_split(data, num_labeled=9, num_validation=10, labeled_in_unlabeled=False)
    assert without.unlabeled.tolist() == sorted(set(split.unlabeled.tolist()) - set(split.labeled.tolist()))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_is_labeled_depends_on_dataset_seed_count_and_protocol_alone(protocol: str) -> None:
    data = dataset(5090)
    wanted = make_split(data, num_labeled=12, split_seed=3, protocol=protocol).labeled
    for num_validation, inside in itertools.product((0, 1, 30), (True, False)):
        split = make_split(
            data,
            num_labeled=12,
            num_validation=num_validation,
            split_seed=3,
            protocol=protocol,
            labeled_in_unlabeled=inside,
        )
        np.testing.assert_array_equal(split.labeled, wanted)
    pooled = make_split(dataset(5090, pool=5, validation=5), num_labeled=12, split_seed=3, protocol=protocol)
    np.testing.assert_array_equal(pooled.labeled, wanted)
    other_seed = make_split(data, num_labeled=12, split_seed=4, protocol=protocol).labeled
    assert np.array_equal(other_seed, wanted) == (protocol != "stratified")


def test_an_ordered_dataset_is_not_permuted_again() -> None:
    data = dataset(ordered=True)
    for seed in (0, 1):
        split = make_split(data, num_labeled=9, split_seed=seed)
        for label in range(3):
            members = np.flatnonzero(data.train.labels == label)
            assert set(members[:3]) <= set(split.labeled.tolist())
        np.testing.assert_array_equal(split.labeled, np.sort(split.labeled))


def test_the_thesis_leaves_41000_of_cifar10() -> None:
    train = Examples(np.zeros((50000, 1), np.float32), np.arange(50000) % 10, (1,))
    data = Dataset(name="cifar10", train=train, test=train, class_names=tuple("0123456789"), modality="points")
    arguments: dict[str, Any] = {"num_labeled": 4000, "protocol": "skip_5000_then_first"}
    split = make_split(data, **arguments, labeled_in_unlabeled=False)
    np.testing.assert_array_equal(split.labeled, np.arange(5000, 9000))
    np.testing.assert_array_equal(split.unlabeled, np.arange(9000, 50000))
    assert len(split.validation) == 0
    tuned = make_split(data, **arguments, num_validation=1000, labeled_in_unlabeled=False)
    assert tuned.validation.max() < 5000
    twice = make_split(data, **arguments, num_validation=1000, num_meta_validation=500, labeled_in_unlabeled=False)
    assert twice.meta_validation.max() < 5000
    np.testing.assert_array_equal(twice.validation, tuned.validation)
    np.testing.assert_array_equal(np.bincount(data.train.labels[tuned.validation]), [100] * 10)
    np.testing.assert_array_equal(tuned.unlabeled, split.unlabeled)


def test_validation_has_the_natural_proportions() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    train = Examples(np.arange(1000, dtype=np.float32)[:, np.newaxis], labels, (1,))
    data = Dataset(name="skewed", train=train, test=train, class_names=NAMES, modality="points")
    split = make_split(data, num_labeled=30, num_validation=97)
    # 97 x (590, 290, 90) / 970
    assert np.bincount(labels[split.validation]).tolist() == [59, 29, 9]
    assert np.bincount(labels[split.labeled]).tolist() == [10, 10, 10]
    both = make_split(data, num_labeled=30, num_validation=97, num_meta_validation=97)
    # 97 x (531, 261, 81) / 873
    assert np.bincount(labels[both.meta_validation]).tolist() == [59, 29, 9]


def test_a_validation_set_of_its_own_is_taken_whole_or_in_part() -> None:
    data = dataset(validation=12)
    assert sorted(make_split(data, num_labeled=9).validation.tolist()) == list(range(12))
    part = make_split(data, num_labeled=9, num_validation=5)
    assert len(set(part.validation.tolist())) == 5
    assert len(part.unlabeled) == 90
    with pytest.raises(UserError, match="--num_validation=13"):
        make_split(data, num_labeled=9, num_validation=13)


def test_a_pool_of_its_own_replaces_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    data = dataset(pool=40)
    with caplog.at_level(logging.WARNING):
        split = make_split(data, num_labeled=9)
    assert "81 training examples are neither" in caplog.text
    unlabeled = split_examples(data, split).unlabeled
    np.testing.assert_array_equal(split.unlabeled, [*np.sort(split.labeled), *range(90, 130)])
    np.testing.assert_array_equal(unlabeled.inputs[:9, 0], np.sort(split.labeled))
    np.testing.assert_array_equal(unlabeled.inputs[9:], data.unlabeled.inputs)
    np.testing.assert_array_equal(unlabeled.labels[9:], data.unlabeled.labels)
    np.testing.assert_array_equal(unlabeled.labels[:9], data.train.labels[np.sort(split.labeled)])


@pytest.mark.parametrize("own_validation", [0, 12])
def test_copies_of_held_out_examples_leave_the_pool(own_validation: int, caplog: pytest.LogCaptureFixture) -> None:
    data = dataset(validation=own_validation)
    pieces = [data.train, data.test, examples(5, start=500_000)]
    pieces += [data.validation] if data.validation is not None else []
    inputs = np.concatenate([piece.inputs for piece in pieces])
    data = dataclasses.replace(data, unlabeled=Examples(inputs, np.full(len(inputs), -1), (2,)))
    with caplog.at_level(logging.WARNING):
        split = make_split(data, num_labeled=9, num_validation=6, num_meta_validation=3)
    kept_out = 9 + 20 + 6 + 3
    assert f"{kept_out} unlabeled examples are left out" in caplog.text
    parts = split_examples(data, split)
    assert not values(parts.unlabeled) & (values(parts.test) | values(parts.validation) | values(parts.meta_validation))
    assert len(parts.unlabeled) == len(values(parts.unlabeled)) == len(inputs) - kept_out + 9


def test_the_hash_changes_when_anything_does() -> None:
    data = dataset()
    base: dict[str, Any] = {"num_labeled": 9, "num_validation": 6, "split_seed": 0}
    split = make_split(data, **base)
    assert make_split(dataset(), **base).hash == split.hash
    assert len(split.hash) == 64
    changed = [
        make_split(data, **base | change)
        for change in (
            {"num_labeled": 10},
            {"num_validation": 7},
            {"num_meta_validation": 2},
            {"changes": {"flip_labels": 0.3}},
            {"split_seed": 1},
            {"protocol": "first"},
            {"labeled_in_unlabeled": False},
        )
    ]
    relabeled = Examples(data.test.inputs, data.test.labels[::-1], (2,))
    named = dataclasses.replace(data.train, names=np.array([str(number) for number in range(90)]))
    for other in (
        dataclasses.replace(data, name="others"),
        dataclasses.replace(data, test=relabeled),
        dataclasses.replace(data, train=named),
        dataclasses.replace(data, train=data.train.with_columns({"given_label": np.zeros(90, np.int64)})),
        dataclasses.replace(data, train=data.train.with_columns({"given_label": np.ones(90, np.int64)})),
        dataset(pool=5),
        dataset(validation=12),
    ):
        changed.append(make_split(other, **base))
    split = make_split(data, **base, num_meta_validation=2)
    for part in PARTS:
        changed.append(dataclasses.replace(split, **{part: getattr(split, part)[::-1]}))
        changed.append(dataclasses.replace(split, **{part: getattr(split, part)[1:]}))
    hashes = [one.hash for one in changed]
    assert make_split(data, **base).hash not in hashes
    assert len(set(hashes)) == len(hashes)


def test_moving_an_example_between_parts_changes_the_hash() -> None:
    empty = np.zeros(0, np.int64)
    places = (np.array([1, 2]), np.array([3]))
    splits = [
        Split(*places, empty, empty, empty, "{}"),
        Split(np.array([1]), np.array([2, 3]), empty, empty, empty, "{}"),
        Split(places[0], empty, places[1], empty, empty, "{}"),
    ]
    assert len({split.hash for split in splits}) == 3


def test_the_parameters_are_told() -> None:
    split = make_split(dataset(), num_labeled=9, changes={"unknown_classes": ("a", "b")})
    parameters = json.loads(split.parameters)
    assert parameters["changes"] == {"unknown_classes": ["a", "b"]}
    assert parameters["dataset"] == "numbers"
    assert parameters["num_labeled"] == 9
    assert parameters["split_protocol"] == "stratified"


def test_too_many_validation_examples() -> None:
    with pytest.raises(UserError, match=r"--num_validation=82 .* 81 labeled ones that are left"):
        make_split(dataset(), num_labeled=9, num_validation=82)
    with pytest.raises(UserError, match="--num_labeled=0 labels all"):
        make_split(dataset(), num_validation=1)
    with pytest.raises(UserError, match=r"--num_meta_validation=12 .* 11 labeled .* --num_labeled or --num_val"):
        make_split(dataset(), num_labeled=9, num_validation=70, num_meta_validation=12)


def test_an_unknown_protocol_has_a_near_match() -> None:
    with pytest.raises(UserError, match="Did you mean 'stratified'"):
        make_split(dataset(), protocol="stratifid")


def test_no_label_at_all() -> None:
    with pytest.raises(UserError, match="No training example has a label"):
        make_split(dataset(unknown=90), num_labeled=3)


def test_a_class_without_labels_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    train = Examples(np.zeros((6, 1), np.float32), np.array([0, 0, 1, 0, 2, 2]), (1,))
    data = Dataset(name="few", train=train, test=train, class_names=NAMES, modality="points")
    with caplog.at_level(logging.WARNING):
        make_split(data, num_labeled=4, protocol="first")
    assert "1 classes have no labeled example: c" in caplog.text


def test_a_split_survives_the_disk(tmp_path: pathlib.Path) -> None:
    split = make_split(dataset(pool=7, validation=12), num_labeled=9, num_meta_validation=4)
    path = tmp_path / "splits.npz"
    with path.open("wb") as file:
        save_split(file, split)
    loaded = load_split(str(path))
    assert loaded.hash == split.hash
    assert loaded.parameters == split.parameters
    for part in PARTS:
        np.testing.assert_array_equal(getattr(loaded, part), getattr(split, part))
        assert getattr(loaded, part).dtype == np.int64


def test_damaged_splits(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "splits.npz"
    with pytest.raises(UserError, match="cannot be read"):
        load_split(str(path))
    split = make_split(dataset(), num_labeled=9)
    with path.open("wb") as file:
        save_split(file, split)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        load_split(str(path))
    with np.load(_restored(path, whole)) as stored:
        arrays = dict(stored)
    np.savez(path, **arrays | {"labeled": arrays["labeled"][::-1]})
    with pytest.raises(UserError, match="changed after it was written"):
        load_split(str(path))
    np.savez(path, **arrays | {"labeled": np.array([{}], object)})
    with pytest.raises(UserError, match="cannot be read"):
        load_split(str(path))
    np.savez(path, labeled=arrays["labeled"])
    with pytest.raises(UserError, match="cannot be read"):
        load_split(str(path))


def _restored(path: pathlib.Path, contents: bytes) -> pathlib.Path:
    path.write_bytes(contents)
    return path
