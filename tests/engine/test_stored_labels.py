"""A folder of distributions: what is refused, where its making goes on, and which examples are chosen by it."""

import dataclasses
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metassl_tf.config import Config
from metassl_tf.engine import stored_labels
from metassl_tf.engine.load import load_examples, load_split_examples
from metassl_tf.engine.stored_labels import LabelStore, choose
from metassl_tf.errors import UserError
from tests.stored import contents_of, store_labels


@pytest.fixture
def config(tiny_config: Callable[..., Config], tmp_path: Path) -> Config:
    return tiny_config(
        algorithm="noisy_student", threshold=None, stored_labels=str(tmp_path / "labels"), labeled_in_unlabeled="false"
    )


def changed(config: Config, **changes: object) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def test_examples_get_their_own_distributions(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_labels, "PART_SIZE", 7)
    expected = store_labels(config)
    _, split, examples = load_examples(config)
    labels = [examples.labeled.columns["teacher_label"], examples.unlabeled.columns["teacher_label"]]
    np.testing.assert_array_equal(np.concatenate(labels), expected)
    plain = load_split_examples(config)
    np.testing.assert_array_equal(examples.unlabeled.inputs, plain.examples.unlabeled.inputs)
    assert split.hash != plain.split.hash  # a run that was resumed with other labels would notice


def test_chosen_examples_keep_their_distributions(config: Config) -> None:
    distributions = store_labels(config)
    count = load_split_examples(config).split.labeled.size
    _, split, examples = load_examples(changed(config, most_confident_per_class=5, balance_classes=True))
    own = examples.unlabeled.columns["teacher_label"]
    places = choose(distributions[count:], per_class=5, balance=True)
    np.testing.assert_array_equal(own, distributions[count:][places])
    np.testing.assert_array_equal(np.bincount(own.argmax(axis=1)), [5] * 10)
    assert len(split.unlabeled) == len(examples.unlabeled) == 50


def test_the_most_confident_of_each_class_are_chosen() -> None:
    distributions = np.random.default_rng(1).dirichlet([3.0, 1.0, 1.0], 40).astype(np.float32)
    expected = []
    for label in range(3):
        own = [place for place in range(40) if distributions[place].argmax() == label]
        expected += sorted(own, key=lambda place: -distributions[place].max())[:4]
    np.testing.assert_array_equal(choose(distributions, per_class=4, balance=False), sorted(expected))
    np.testing.assert_array_equal(choose(distributions, per_class=0, balance=False), np.arange(40))


def test_smaller_classes_are_repeated_the_most_confident_first() -> None:
    distributions = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.55, 0.45], [0.2, 0.8], [0.1, 0.9]])
    np.testing.assert_array_equal(choose(distributions, per_class=0, balance=True), [0, 1, 2, 3, 4, 5, 5, 6, 6, 6])
    np.testing.assert_array_equal(choose(distributions, per_class=3, balance=True), [0, 1, 2, 5, 6, 6])


@pytest.mark.parametrize(
    ("balance", "expected"), [(False, "1 classes have fewer than 3.*--balance_classes"), (True, "they are repeated")]
)
def test_classes_with_too_few_are_named(caplog: pytest.LogCaptureFixture, *, balance: bool, expected: str) -> None:
    distributions = np.array([[0.9, 0.1, 0.0]] * 3 + [[0.1, 0.9, 0.0]])
    with caplog.at_level(logging.WARNING):
        choose(distributions, per_class=3, balance=balance)
    assert any("no example of 1 classes" in line for line in caplog.messages)
    assert any(re.search(expected, line) for line in caplog.messages)


def test_more_per_class_than_there_are(config: Config) -> None:
    store_labels(config)
    with pytest.raises(UserError, match=r"--most_confident_per_class=5000 asks for more .* than the \d+ unlabeled"):
        load_examples(changed(config, most_confident_per_class=5000))


def test_missing_labels(config: Config) -> None:
    with pytest.raises(UserError, match=r"holds no labels.json. Expected a folder that python -m metassl_tf.label"):
        load_examples(config)
    with pytest.raises(UserError, match=r"Expected --stored_labels=DIR, the folder that python -m metassl_tf.label"):
        load_examples(changed(config, stored_labels=""))


def test_labels_whose_making_was_stopped(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused, and the same command makes what is missing and nothing else."""
    monkeypatch.setattr(stored_labels, "PART_SIZE", 500)
    distributions = store_labels(config)
    folder, contents = Path(config.data.stored_labels), contents_of(config)
    index = json.loads((folder / "labels.json").read_text())
    (folder / "labels.json").write_text(json.dumps({**index, "parts": None}))
    (folder / "part-00001.npy").unlink()
    with pytest.raises(UserError, match=rf"not complete: 1 of {contents.num_parts} parts are missing.*goes on"):
        load_examples(config)
    store = LabelStore(folder)
    assert store.begin(contents) == [1]
    store.write(1, distributions[500:1000])
    store.finish()
    assert len(load_examples(config).examples.unlabeled)


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_changed_parts(config: Config, damage: str) -> None:
    store_labels(config)
    part = Path(config.data.stored_labels) / "part-00000.npy"
    if damage == "change":
        part.write_bytes(part.read_bytes()[:-1] + b"x")
    else:
        part.unlink()
    with pytest.raises(UserError, match=r"part-00000.npy is missing or was changed after it was written"):
        load_examples(config)


def test_damaged_index(config: Config) -> None:
    store_labels(config)
    (Path(config.data.stored_labels) / "labels.json").write_text("{}")
    with pytest.raises(UserError, match=r"labels.json is damaged: KeyError 'parts'"):
        load_examples(config)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"split_seed": 1}, "split_seed is 0, here it is 1"),
        ({"num_labeled": 30}, "num_labeled is 20, here it is 30"),
        ({"pollute_unlabeled": 0.2, "pollution": "noise"}, "pollute_unlabeled is 0.0, here it is 0.2"),
    ],
)
def test_labels_of_other_examples(config: Config, changes: dict[str, object], difference: str) -> None:
    store_labels(config)
    with pytest.raises(UserError, match=rf"holds labels of other examples: there {difference}. Expected"):
        load_examples(changed(config, **changes))


def test_a_folder_of_another_teacher(config: Config) -> None:
    store_labels(config)
    store = LabelStore(Path(config.data.stored_labels))
    with pytest.raises(UserError, match=r"holds labels of another teacher.*choose another"):
        store.begin(contents_of(config, teacher="another"))
    with pytest.raises(UserError, match=r"of other examples: there split_seed is 0"):
        store.begin(contents_of(changed(config, split_seed=1)))


def test_classes_in_another_order_are_put_right(config: Config) -> None:
    store_labels(config)
    split = load_split_examples(config).split
    store = LabelStore(Path(config.data.stored_labels))
    names = contents_of(config).class_names
    straight, reverse = store.read(split, names), store.read(split, names[::-1])
    np.testing.assert_array_equal(straight.unlabeled, reverse.unlabeled[:, ::-1])
    with pytest.raises(UserError, match=r"tells apart 0, 1.*here the classes are a, b. Expected the same"):
        store.read(split, ("a", "b"))
