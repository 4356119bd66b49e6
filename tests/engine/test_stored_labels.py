"""A folder of distributions: what is refused, where its making goes on, and which examples get which of them."""

import dataclasses
import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metassl_tf.config import Config
from metassl_tf.data.selection import most_confident
from metassl_tf.engine import stored_labels
from metassl_tf.engine.load import load_examples, load_split_examples
from metassl_tf.engine.stored_labels import LabelStore
from metassl_tf.errors import UserError
from tests.command_line import ROOT
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
    examples = load_examples(config).examples
    labels = [examples.labeled.columns["teacher_label"], examples.unlabeled.columns["teacher_label"]]
    np.testing.assert_array_equal(np.concatenate(labels), expected)
    plain = load_split_examples(config)
    np.testing.assert_array_equal(examples.unlabeled.inputs, plain.examples.unlabeled.inputs)
    other = changed(config, stored_labels=f"{config.data.stored_labels}_of_another")
    store_labels(other, share_right=0.5)
    hashes = {own.split.hash for own in (plain, load_examples(config), load_examples(other))}
    assert len(hashes) == 3  # a run that was resumed with other labels would notice


def test_chosen_examples_keep_their_distributions(config: Config) -> None:
    distributions = store_labels(config)
    count = load_split_examples(config).split.labeled.size
    _, split, examples = load_examples(changed(config, most_confident_per_class=5, balance_classes=True))
    own = examples.unlabeled.columns["teacher_label"]
    places = most_confident(distributions[count:], per_class=5, balance=True)
    np.testing.assert_array_equal(own, distributions[count:][places])
    np.testing.assert_array_equal(np.bincount(own.argmax(axis=1)), [5] * 10)
    assert len(split.unlabeled) == len(examples.unlabeled) == 50


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
    with pytest.raises(UserError, match=r"not complete: its making was stopped with 2 of 3 parts.*label again"):
        load_examples(config)
    store = LabelStore(folder)
    assert store.begin(contents) == [1]
    store.write(1, distributions[500:1000])
    store.finish()
    assert len(load_examples(config).examples.unlabeled)


def damage(part: Path, kind: str) -> None:
    whole = part.read_bytes()
    if kind == "missing":
        part.unlink()
    elif kind in ("other shape", "other type"):
        like = np.load(part)
        np.save(part, like[:3] if kind == "other shape" else like.astype(np.int32))
    elif kind == "archive":
        with part.open("wb") as file:
            np.savez(file, like=np.zeros(3))
    elif kind == "header":
        part.write_bytes(whole[:10] + b"(" * 100 + whole[110:])
    else:
        part.write_bytes({"changed": whole[:-1] + b"x", "truncated": whole[:-100], "empty": b""}[kind])


NOT_WHOLE = ("missing", "truncated", "empty", "other shape", "other type", "archive", "header")


@pytest.mark.parametrize("kind", ["changed", *NOT_WHOLE])
def test_damaged_parts_are_refused_and_made_again(config: Config, kind: str) -> None:
    """Giving the command again must not take what is damaged for what it had made."""
    distributions = store_labels(config)
    part = Path(config.data.stored_labels) / "part-00000.npy"
    damage(part, kind)
    with pytest.raises(UserError, match=r"part-00000.npy is missing, or was changed .* it makes what is missing"):
        load_examples(config)
    store = LabelStore(Path(config.data.stored_labels))
    assert store.begin(contents_of(config)) == [0]
    store.write(0, distributions)
    store.finish()
    np.testing.assert_array_equal(load_examples(config).examples.labeled.columns["teacher_label"], distributions[:20])


@pytest.mark.parametrize("kind", NOT_WHOLE)
def test_parts_of_a_stopped_making_are_looked_at(config: Config, kind: str) -> None:
    store_labels(config)
    folder = Path(config.data.stored_labels)
    index = json.loads((folder / "labels.json").read_text())
    (folder / "labels.json").write_text(json.dumps({**index, "parts": None}))
    assert LabelStore(folder).begin(contents_of(config)) == []
    damage(folder / "part-00000.npy", kind)
    assert LabelStore(folder).begin(contents_of(config)) == [0]


def test_a_part_that_the_disk_has_no_room_for_is_not_there(config: Config) -> None:
    """In a process of its own, whose files may have 1,000 bytes at most."""
    folder = Path(config.data.stored_labels)
    LabelStore(folder).begin(contents_of(config))
    code = (
        "import resource, signal, sys, pathlib, numpy\n"
        "from metassl_tf.engine.stored_labels import LabelStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    LabelStore(pathlib.Path(sys.argv[1])).write(0, numpy.zeros((50, 10), numpy.float32))\n"
        "except OSError as error:\n"
        "    sys.exit(error.errno)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == errno.EFBIG, ended.stderr.decode()
    assert not (folder / "part-00000.npy").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"parts": 3},
        {"parts": {}},
        {"parts": ["one", "too", "many"]},
        {"num_labeled": "5"},
        {"parameters": "{}"},
        {"parameters": "x"},
        {"parameters": "[]"},
        {"class_names": None},
        {"class_names": [1, 2]},
    ],
    ids=str,
)
def test_damaged_index(config: Config, change: dict[str, object]) -> None:
    store_labels(config)
    path = Path(config.data.stored_labels) / "labels.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"labels.json is damaged: \w+Error .*label again"):
        load_examples(config)


def test_an_index_of_other_counts(config: Config) -> None:
    """What is stored would fall to the wrong examples."""
    store_labels(config)
    path = Path(config.data.stored_labels) / "labels.json"
    index = json.loads(path.read_text())
    moved = {"num_labeled": index["num_labeled"] + 1, "num_unlabeled": index["num_unlabeled"] - 1}
    path.write_text(json.dumps(index | moved))
    with pytest.raises(UserError, match=r"holds labels of data that have changed since. Expected"):
        load_examples(config)


@pytest.mark.parametrize("text", ["", "null", "{}"])
def test_an_index_that_is_none(config: Config, text: str) -> None:
    store_labels(config)
    (Path(config.data.stored_labels) / "labels.json").write_text(text)
    with pytest.raises(UserError, match=r"labels.json is damaged: \w+Error"):
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


def test_parts_without_an_index_are_not_taken_over(config: Config) -> None:
    """Nothing tells whose labels they are: not those of the teacher that labels now, as far as anybody knows."""
    store_labels(config)
    store = LabelStore(Path(config.data.stored_labels))
    (store.folder / "labels.json").unlink()
    (store.folder / ".labels.json.partial").touch()
    with pytest.raises(UserError, match=r"holds part-00000.npy and no labels.json. Expected a new or empty folder"):
        store.begin(contents_of(config, teacher="another"))
    (store.folder / "part-00000.npy").rename(store.folder / "thesis.tex")
    with pytest.raises(UserError, match=r"holds thesis.tex and no labels.json.*: choose another"):
        store.begin(contents_of(config))
    assert {path.name for path in store.folder.iterdir()} == {"thesis.tex", ".labels.json.partial"}


def test_a_folder_that_cannot_be_made(config: Config) -> None:
    store_labels(config)
    file = Path(config.data.stored_labels) / "part-00000.npy"
    for folder in (file, file / "deeper"):
        with pytest.raises(UserError, match=r"part-00000.npy\S* cannot be made or written: \w+.*: choose another"):
            LabelStore(folder).begin(contents_of(config))


def test_a_folder_without_a_part_has_nothing_to_lose(config: Config) -> None:
    store = LabelStore(Path(config.data.stored_labels))
    store.begin(contents_of(config, teacher="one that predicts NaN"))
    assert store.begin(contents_of(config, teacher="another")) == [0]
    assert json.loads((store.folder / "labels.json").read_text())["teacher"] == "another"


def test_a_complete_folder_is_not_written_to(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be one that can be read only."""
    store_labels(config)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(stored_labels, "write_atomically", refuse)
    store = LabelStore(Path(config.data.stored_labels))
    assert store.begin(contents_of(config)) == []
    store.finish()
    with pytest.raises(OSError, match="Read-only"):
        store.write(0, np.zeros((3, 10), np.float32))


def test_classes_in_another_order_are_put_right(config: Config) -> None:
    store_labels(config)
    split = load_split_examples(config).split
    store = LabelStore(Path(config.data.stored_labels))
    names = contents_of(config).class_names
    straight, reverse = store.read(split, names), store.read(split, names[::-1])
    np.testing.assert_array_equal(straight.unlabeled, reverse.unlabeled[:, ::-1])
    with pytest.raises(UserError, match=r"tells apart 0, 1.*here the classes are a, b. Expected the same"):
        store.read(split, ("a", "b"))


def test_another_pool_of_an_npz_file_is_noticed(config: Config, tmp_path: Path) -> None:
    """It has no file names and no labels; the images themselves are what tells."""
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), np.uint8)
    labels = [0, 1] * 15
    for name, pool in (("one", images), ("other", images[::-1])):
        np.savez(
            tmp_path / f"{name}.npz", x_train=images, y_train=labels, x_test=images, y_test=labels, x_unlabeled=pool
        )
    own = changed(config, unlabeled_dataset=f"npz:{tmp_path}/one.npz")
    store_labels(own)
    load_examples(own)
    with pytest.raises(UserError, match=r"holds labels of other examples: there dataset is digits \+ npz \w+, here"):
        load_examples(changed(own, unlabeled_dataset=f"npz:{tmp_path}/other.npz"))
