"""`python -m metassl_tf.evaluate`: a workdir, an export and a Keras file score alike, and predict any folder."""

import csv
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.engine.workdir import Workdir
from tests.command_line import run_here, start
from tests.trained_runs import PICTURE_CLASSES, PICTURE_SHAPE, pictures_file, trained


def assert_same_metrics(received: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    assert received.keys() == expected.keys()
    for name, value in expected.items():
        assert received[name] == pytest.approx(value, abs=tolerance), name


def scored(tmp_path: Path, *given: str) -> dict[str, Any]:
    """The metrics that a command line writes."""
    assert run_here("evaluate", [*given, f"--output={tmp_path / 'metrics.json'}"]) is None
    return json.loads((tmp_path / "metrics.json").read_text())


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images of many kinds, one of them cut off, with names that need care."""
    random = np.random.default_rng(4).integers
    contents = {
        "a.png": tf.io.encode_png(random(0, 256, PICTURE_SHAPE, np.uint8)),
        "b, c.jpg": tf.io.encode_jpeg(random(0, 256, (40, 30, 3), np.uint8)),
        "deep/er/grey.png": tf.io.encode_png(random(0, 256, (9, 9, 1), np.uint8)),
        'deep/"quoted".png': tf.io.encode_png(random(0, 256, (9, 9, 4), np.uint8)),
        "=SUM(A1).png": tf.io.encode_png(random(0, 256, (5, 6, 3), np.uint8)),
        "notes.txt": tf.constant(b"no image"),
    }
    folder = tmp_path / "photos"
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.numpy())
    (folder / "half.jpg").write_bytes((folder / "b, c.jpg").read_bytes()[:200])
    return folder


@pytest.mark.parametrize("kind", ["digits", "pictures", "points"])
def test_a_workdir_scores_as_its_result_says(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(trained(kind).result.read_text())
    scores = scored(tmp_path, f"--workdir={trained(kind).root}")
    for parameters in ("raw", "ema"):
        assert_same_metrics(scores["test"][parameters], result["last"]["test"][parameters], 1e-6)
    assert scores["step"] == result["step"]
    assert scores["num_examples"] == result["num_examples"]["test"]
    assert scores["classes"] == result["classes"]
    table = capsys.readouterr().out
    assert f"{result['last']['test']['ema']['accuracy']:.4f}" in table
    assert "balanced_accuracy" in table


def test_the_best_checkpoint_scores_as_the_result_says(tmp_path: Path) -> None:
    best = json.loads(trained("digits").result.read_text())["best_on_validation"]
    scores = scored(tmp_path, f"--workdir={trained('digits').root}", "--checkpoint=best")
    assert scores["step"] == best["step"]
    assert_same_metrics(scores["test"]["ema"], best["test"]["ema"], 1e-6)


@pytest.mark.parametrize("name", ["export", "model.keras"])
@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("digits", ["--dataset=digits"]),
        ("pictures", ["--dataset=npz", "--data_dir={pictures}"]),
        ("points", ["--dataset=two_moons", "--num_test=50"]),
    ],
)
def test_saved_models_score_as_the_workdir_does(tmp_path: Path, kind: str, data: list[str], name: str) -> None:
    given = [argument.format(pictures=pictures_file()) for argument in data]
    scores = scored(tmp_path, f"--saved_model={trained(kind).root / name}", *given)
    expected = json.loads(trained(kind).result.read_text())["last"]["test"]["ema"]
    assert_same_metrics(scores["test"]["model"], expected, 1e-5)


def test_data_may_have_moved_and_classes_may_stand_in_another_order(tmp_path: Path) -> None:
    with np.load(pictures_file()) as stored:
        arrays = dict(stored)
    expected = json.loads(trained("pictures").result.read_text())["last"]["test"]["ema"]
    shutil.copy(pictures_file(), tmp_path / "moved.npz")
    own = scored(tmp_path, f"--workdir={trained('pictures').root}", f"--data_dir={tmp_path / 'moved.npz'}")
    assert_same_metrics(own["test"]["ema"], expected, 1e-6)
    renumbered = {key: 2 - value if key.startswith("y_") else value for key, value in arrays.items()}
    np.savez(tmp_path / "other.npz", **renumbered | {"class_names": np.array(PICTURE_CLASSES[::-1])})
    other = scored(
        tmp_path,
        f"--workdir={trained('pictures').root}",
        "--dataset=npz",
        f"--data_dir={tmp_path / 'other.npz'}",
    )
    assert_same_metrics(other["test"]["ema"], expected, 1e-6)


def test_images_of_another_size_are_resized(tmp_path: Path) -> None:
    """An even grey stays what it is at any size, and becomes a color."""
    with np.load(pictures_file()) as stored:
        arrays = dict(stored)
    for key in ("x_train", "x_test"):
        arrays[key] = np.full((len(arrays[key]), 20, 20, 1), 77, np.uint8)
    np.savez(tmp_path / "grey.npz", **arrays)
    predictions = tmp_path / "predictions.csv"
    scored(
        tmp_path,
        f"--workdir={trained('pictures').root}",
        "--dataset=npz",
        f"--data_dir={tmp_path / 'grey.npz'}",
        f"--predictions={predictions}",
    )
    serve = tf.saved_model.load(str(trained("pictures").export)).signatures["serving_default"]
    expected = serve(images=tf.fill([1, *PICTURE_SHAPE], tf.constant(77, tf.uint8)))["probabilities"][0]
    for row in rows_of(predictions)[1:]:
        np.testing.assert_allclose([float(value) for value in row[3:]], expected, atol=1e-5)


def test_predictions_of_a_test_set_are_those_that_are_scored(tmp_path: Path) -> None:
    predictions = tmp_path / "out.csv"
    scores = scored(tmp_path, f"--workdir={trained('pictures').root}", f"--predictions={predictions}")
    header, *rows = rows_of(predictions)
    assert header == ["file", "class", "confidence", *PICTURE_CLASSES]
    assert [row[0] for row in rows] == [str(number) for number in range(9)]
    right = [row[1] == PICTURE_CLASSES[number % 3] for number, row in enumerate(rows)]
    assert np.mean(right) == pytest.approx(scores["test"]["ema"]["accuracy"])


@pytest.mark.parametrize("source", ["workdir", "export", "model.keras"])
def test_a_folder_is_predicted(
    tmp_path: Path, photos: Path, source: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = tmp_path / "out.csv"
    root = trained("pictures").root
    model = f"--workdir={root}" if source == "workdir" else f"--saved_model={root / source}"
    with caplog.at_level(logging.WARNING):
        assert (
            run_here("evaluate", [model, f"--images={photos}", f"--predictions={predictions}", "--eval_batch_size=2"])
            is None
        )
    assert "1 of 6 images" in caplog.text
    assert "half.jpg" in caplog.text
    assert capsys.readouterr().out == f"predicted 5 images\nwritten to {predictions}\n"
    header, *rows = rows_of(predictions)
    assert header == ["file", "class", "confidence", *PICTURE_CLASSES]
    names = ["./=SUM(A1).png", "a.png", "b, c.jpg", 'deep/"quoted".png', "deep/er/grey.png"]
    assert [row[0] for row in rows] == names
    serve = tf.saved_model.load(str(trained("pictures").export)).signatures["serving_bytes"]
    outputs = serve(encoded=tf.constant([(photos / name).read_bytes() for name in names]))
    for row, probabilities, class_name in zip(
        rows, outputs["probabilities"].numpy(), outputs["class_name"].numpy(), strict=True
    ):
        np.testing.assert_allclose([float(value) for value in row[3:]], probabilities, atol=1e-5)
        assert row[1] == class_name.decode()
        assert float(row[2]) == pytest.approx(probabilities.max(), abs=1e-5)


def test_an_unreadable_image_can_be_an_error(tmp_path: Path, photos: Path) -> None:
    predictions = tmp_path / "out.csv"
    predictions.write_text("precious")
    given = [f"--workdir={trained('pictures').root}", f"--images={photos}", f"--predictions={predictions}"]
    assert "half.jpg" in str(run_here("evaluate", [*given, "--strict_data"]))
    assert predictions.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "photos"]


DIGITS, PICTURES, POINTS = "--workdir={digits}", "--workdir={pictures}", "--workdir={points}"
MISTAKES = {
    "no model": (["--dataset=digits"], "a run's --workdir or a --saved_model .* Received neither"),
    "two models": ([DIGITS, "--saved_model={digits}/export"], "a run's --workdir or a --saved_model .* Received both"),
    "no workdir": (["--workdir={empty}"], "is not a workdir"),
    "an export as a workdir": (["--workdir={digits}/export"], "is not a workdir"),
    "a workdir as an export": (["--saved_model={digits}", "--dataset=digits"], "is a workdir: name it with --workdir"),
    "nothing there": (["--saved_model={empty}/x.keras", "--dataset=digits"], "does not exist"),
    "no model file": (["--saved_model={text}", "--dataset=digits"], r"holds no interface\.json"),
    "checkpoint of an export": (
        ["--saved_model={digits}/export", "--dataset=digits", "--checkpoint=best"],
        "one model",
    ),
    "no best": ([PICTURES, "--checkpoint=best"], "no validation set"),
    "nothing to score on": (["--saved_model={digits}/export"], "needs a --dataset .* or --images"),
    "images without predictions": ([PICTURES, "--images={empty}"], r"Expected --predictions=FILE\.csv"),
    "images with metrics": ([PICTURES, "--images={empty}", "--predictions=x", "--output=y"], "no labels"),
    "no images": ([PICTURES, "--images={empty}", "--predictions={empty}/x"], "holds no images"),
    "no image folder": ([PICTURES, "--images={empty}/x", "--predictions={empty}/x"], "There is no folder"),
    "images for points": ([POINTS, "--images={empty}", "--predictions={empty}/x"], "trained on points"),
    "data for images": (
        [PICTURES, "--images={empty}", "--predictions=x", "--dataset=digits"],
        "has no effect on a fol",
    ),
    "a setting of training": ([DIGITS, "--steps=7"], "--steps has no effect on a run's own set"),
    "a split of its own": ([DIGITS, "--split_seed=7"], "--split_seed has no effect on a run's own set"),
    "a limit without files": (
        [DIGITS, "--memory_limit=1"],
        "--memory_limit has no effect here: neither --dataset nor --unlabeled_dataset decodes images of files",
    ),
    "strict without files": ([DIGITS, "--strict_data"], "--strict_data has no effect on --dataset=digits"),
    "other classes": ([PICTURES, "--dataset=digits"], "has the class '0', which the model does not know"),
    "points for images": ([DIGITS, "--dataset=two_moons"], r"The model takes images of shape \[8, 8, 1\]"),
    "no test set": ([POINTS, "--dataset=two_moons", "--num_test=0"], "no labeled test examples"),
    "metrics nowhere": ([POINTS, "--output={empty}/no/such"], "--output=.* cannot be written"),
    "predictions nowhere": ([POINTS, "--predictions={empty}/no/such"], "--predictions=.* cannot be written"),
    "positional": ([DIGITS, "best"], "Unexpected argument 'best'"),
}


@pytest.mark.parametrize(("given", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(tmp_path: Path, given: list[str], expected: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no model")
    places = {kind: trained(kind).root for kind in ("digits", "pictures", "points")}
    places |= {name: tmp_path / name for name in ("empty", "text")}
    message = run_here("evaluate", [argument.format(**places) for argument in given])
    assert isinstance(message, str)
    assert message.startswith("error: ")
    assert "\n" not in message
    assert re.search(expected, message), message


def test_a_damaged_export_is_named(tmp_path: Path) -> None:
    shutil.copytree(trained("digits").export, tmp_path / "export")
    (tmp_path / "export" / "saved_model.pb").write_bytes(b"half")
    shutil.copy(trained("digits").model, tmp_path / "model.keras")
    with (tmp_path / "model.keras").open("r+b") as file:
        file.seek(30_000)
        file.write(b"damage" * 100)
    for name in ("export", "model.keras"):
        message = run_here("evaluate", [f"--saved_model={tmp_path / name}", "--dataset=digits"])
        assert f"{tmp_path / name} cannot be loaded" in str(message)


def test_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status, streams and log as a user sees them."""
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    workdir: Workdir = trained("points")
    right = start("evaluate", [f"--workdir={workdir.root}", f"--output={tmp_path / 'metrics.json'}"])
    wrong = start("evaluate", [f"--workdir={workdir.root}", "--checkpoint=best"])
    output, errors = right.communicate(timeout=300)
    assert right.returncode == 0
    assert errors == ""
    assert output.startswith("two_moons: 50 test examples, step 6\n")
    output, errors = wrong.communicate(timeout=300)
    assert wrong.returncode == 1
    assert output == ""
    assert errors.startswith("error: ")
    assert len(errors.splitlines()) == 1
