"""The data of a run as its settings change them: what is loaded, and what is refused before the first step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf import flag_definitions
from metassl_tf.config import Config
from metassl_tf.engine import run, setup
from metassl_tf.engine.interface import Interface
from metassl_tf.engine.load import Loaded, load_examples
from metassl_tf.engine.predictor import from_saved, predict_examples
from metassl_tf.engine.run import make_trainer
from metassl_tf.engine.score import load_test_set
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError

GIVEN = ["--dataset=digits", "--num_labeled=20", "--algorithm=given_labels", "--given_labels=truth"]


def loaded(*arguments: str) -> Loaded:
    return load_examples(flag_definitions.parse(["--dataset=digits", "--num_labeled=20", *arguments]))


def test_plain_settings_change_nothing() -> None:
    dataset, split, parts = loaded()
    assert dataset.num_classes == 10
    assert len(split.unlabeled) == 1200
    assert not parts.unlabeled.columns
    assert len(parts.meta_validation) == 0
    changes = json.loads(split.parameters)["changes"]
    assert changes == {
        "unknown_classes": [],
        "pollute_unlabeled": 0.0,
        "pollution": "unknown_classes",
        "given_labels": "source",
        "flip_labels": 0.0,
    }


def test_flipped_labels_of_digits() -> None:
    _, split, parts = loaded(*GIVEN, "--flip_labels=0.3")
    given, labeled = parts.unlabeled.columns["given_label"], np.isin(split.unlabeled, split.labeled)
    wrong = given != parts.unlabeled.labels
    assert not wrong[labeled].any()
    # 1,180 draws: a standard deviation of 0.013.
    assert wrong[~labeled].mean() == pytest.approx(0.3, abs=4 * 0.0133)
    assert "given_label" not in parts.labeled.columns


def test_unknown_digits_pollute() -> None:
    dataset, split, parts = loaded(
        "--num_labeled=12", "--unknown_classes=6,7,8,9", "--pollute_unlabeled=0.25", "--num_meta_validation=30"
    )
    assert dataset.class_names == tuple("012345")
    for part in (parts.labeled, parts.meta_validation, parts.test):
        assert set(part.labels) == set(range(6))
    marks = parts.unlabeled.columns["polluted"]
    assert marks.mean() == pytest.approx(0.25, abs=1e-3)
    assert (parts.unlabeled.labels[marks == 1] == -1).all()
    assert len(split.unlabeled) == len(marks)


def test_every_change_is_in_the_hash_and_none_changes_who_is_labeled() -> None:
    splits = [
        loaded(*arguments).split
        for arguments in (
            GIVEN,
            [*GIVEN, "--flip_labels=0.3"],
            [*GIVEN, "--flip_labels=0.4"],
            [*GIVEN, "--pollute_unlabeled=0.2", "--pollution=noise"],
            [*GIVEN, "--pollute_unlabeled=0.2", "--pollution=shuffled_pixels"],
            [*GIVEN, "--pollute_unlabeled=0.3", "--pollution=noise"],
            [*GIVEN, "--num_meta_validation=20"],
            ["--algorithm=fixmatch"],
        )
    ]
    assert len({split.hash for split in splits}) == len(splits)
    for split in splits:
        np.testing.assert_array_equal(split.labeled, splits[0].labeled)


def test_a_step_learns_from_given_labels(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config(algorithm="given_labels", given_labels="truth", flip_labels=0.3, threshold=None)
    experiment = setup.build(config)
    batch = experiment.pipeline().batch_function()(tf.constant(0, tf.int64))
    expected = experiment.unlabeled.columns["given_label"][batch.unlabeled.index.numpy()]
    np.testing.assert_array_equal(batch.unlabeled.columns["given_label"], expected)
    trainer = make_trainer(experiment)
    trainer.train(tf.constant(2))
    metrics = trainer.read_metrics()
    assert 0.4 < metrics["given_label_accuracy"] < 0.95
    assert 0.0 <= metrics["given_label_agreement"] <= 1.0
    assert metrics["loss/given_label"] > 0


def test_a_trained_model_is_scored_on_the_classes_it_knows() -> None:
    given = ["--dataset=digits", "--unknown_classes=8,9"]
    interface = Interface(shape=(8, 8, 1), class_names=tuple("01234567"), normalization=None)
    test = load_test_set(flag_definitions.parse(given), interface)
    assert set(test.labels) == set(range(8))
    assert len(test) < 597
    with pytest.raises(UserError, match="the class '8', which the model does not know"):
        load_test_set(flag_definitions.parse(given[:1]), interface)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--algorithm=given_labels"], r"There are no given labels: the source brings none.*--given_labels=truth"),
        (["--algorithm=given_labels", "--flip_labels=0.3"], r"--flip_labels=0.3 has no given labels to flip"),
        (["--flip_labels=0.3"], r"--flip_labels has no effect here: --algorithm=fixmatch uses no given labels"),
        (["--given_labels=truth"], r"--given_labels has no effect here: --algorithm=fixmatch uses no given labels"),
        (["--algorithm=supervised", "--pollute_unlabeled=0.3"], r"--pollute_unlabeled has no effect .* no unlabeled"),
        (["--pollution=noise"], r"--pollution has no effect here: --pollute_unlabeled is 0"),
        (["--pollute_unlabeled=1"], r"--pollute_unlabeled=1.0 is out of range"),
        (["--pollute_unlabeled=0.3"], r"and there are none\. Expected classes .* in --unknown_classes"),
        (["--unknown_classes=9", "--pollute_unlabeled=0.3"], r"Expected a share of at most 0\.\d+: lower it"),
        (["--unknown_classes=10"], r"--unknown_classes=10 is no class"),
        (["--num_meta_validation=1181"], r"--num_meta_validation=1181 asks for more .* the 1180 labeled ones"),
        (
            ["--algorithm=given_labels", "--given_labels=weak"],
            r"--given_labels=weak is neither source nor truth.*Expected one of: source, truth",
        ),
    ],
)
def test_mistakes_are_explained(arguments: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        loaded(*arguments)


def test_weak_folders_are_given_labels(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    for folder in ("labeled/cat", "labeled/dog", "weak/cat", "weak/dog", "unlabeled"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(4):
            pixels: Any = random.randint(0, 256, (8, 8, 3), np.uint8)
            (tmp_path / folder / f"{number}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    given = ["--dataset=image_folder", f"--data_dir={tmp_path}", "--num_labeled=0", "--algorithm=given_labels"]
    _, split, parts = loaded(*given, "--flip_labels=1")
    names = parts.unlabeled.names
    assert names is not None
    for name, label, truth in zip(names, parts.unlabeled.columns["given_label"], parts.unlabeled.labels, strict=True):
        part, folder = name.split("/")[:2]
        place = ("cat", "dog").index(folder) if part != "unlabeled" else -1
        assert label == {"labeled": place, "weak": 1 - place, "unlabeled": -1}[part]
        assert truth == (place if part == "labeled" else -1)
    assert len(split.unlabeled) == 20


def test_the_memory_limit_is_that_of_a_pool_too(tmp_path: Path) -> None:
    pixels: Any = np.zeros((8, 8, 1), np.uint8)
    (tmp_path / "image.png").write_bytes(tf.io.encode_png(pixels).numpy())
    given = [f"--unlabeled_dataset=image_folder:{tmp_path}", "--nolabeled_in_unlabeled"]
    assert not loaded(*given).examples.unlabeled.streamed
    assert loaded(*given, "--memory_limit=1e-9").examples.unlabeled.streamed
    with pytest.raises(UserError, match=r"--memory_limit has no effect here: .* nor --unlabeled_dataset decodes"):
        loaded("--memory_limit=1e-9")
    with pytest.raises(UserError, match=r"--memory_limit has no effect here: .* nor --unlabeled_dataset decodes"):
        loaded("--algorithm=supervised", "--memory_limit=1e-9")


def test_a_stored_model_gives_the_labels(tmp_path: Path) -> None:
    """Its own mistakes are what there is to find: the labels are its predictions, and right where it is."""
    arguments = ["--dataset=digits", "--num_labeled=20", "--algorithm=supervised", "--model=mlp", "--steps=3"]
    workdir = Workdir(tmp_path / "weak")
    run.train(flag_definitions.parse(arguments), workdir)
    _, _, parts = loaded("--algorithm=given_labels", f"--given_labels={workdir.root}", "--nolabeled_in_unlabeled")
    given = parts.unlabeled.columns["given_label"]
    predictor = from_saved(workdir.model)
    expected = predict_examples(predictor, parts.unlabeled, batch_size=100)["model"].argmax(axis=1)
    np.testing.assert_array_equal(given, expected)
    assert 0 < np.mean(given == parts.unlabeled.labels) < 1
    with pytest.raises(UserError, match=r"is a model of examples \[8, 8, 1\].*here they are \[16, 16, 1\]"):
        loaded("--algorithm=given_labels", f"--given_labels={workdir.root}", "--image_size=16")
