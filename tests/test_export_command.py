"""`python -m metassl_tf.export`: any weights of a run, at any time, without its data."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.engine import setup
from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.workdir import Workdir
from tests.command_line import run_here
from tests.trained_runs import config_of, trained

IMAGES = np.random.default_rng(3).integers(0, 256, (5, 8, 8, 1), np.uint8)


def served(folder: Path, images: np.ndarray = IMAGES) -> np.ndarray:
    serve = tf.saved_model.load(str(folder / "export")).signatures["serving_default"]
    return serve(images=tf.constant(images))["probabilities"].numpy()


@pytest.fixture
def copy(tmp_path: Path) -> Workdir:
    """A copy of the digits run, to be changed."""
    shutil.copytree(trained("digits").root, tmp_path / "run")
    return Workdir(tmp_path / "run")


@pytest.mark.parametrize("checkpoint", ["last", "best"])
@pytest.mark.parametrize("parameters", ["raw", "ema"])
def test_the_weights_asked_for_are_exported(tmp_path: Path, checkpoint: str, parameters: str) -> None:
    workdir = trained("digits")
    given = [f"--workdir={workdir.root}", f"--checkpoint={checkpoint}", f"--parameters={parameters}"]
    assert run_here("export", [*given, f"--output={tmp_path}"]) is None
    experiment = setup.build(config_of("digits"))
    folder = workdir.best if checkpoint == "best" else workdir.checkpoints
    Checkpoints(folder, experiment.learner.state_variables).restore_newest()
    logits = experiment.learner.predict(experiment.views.plain(tf.constant(IMAGES)), parameters=parameters)
    np.testing.assert_allclose(served(tmp_path), tf.nn.softmax(logits), atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "model.keras"]


@pytest.mark.parametrize("parameters", ["raw", "ema"])
def test_the_fine_tuned_student_is_exported(tmp_path: Path, parameters: str) -> None:
    workdir = trained("taught")
    given = [f"--workdir={workdir.root}", "--checkpoint=fine_tuned", f"--parameters={parameters}"]
    assert run_here("export", [*given, f"--output={tmp_path}"]) is None
    experiment = setup.build(config_of("taught"))
    state = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(workdir.fine_tuned)))
    for place, variable in enumerate(experiment.learner.state_variables["model"]):
        variable.assign(state.get_tensor(f"model/{place}/.ATTRIBUTES/VARIABLE_VALUE"))
    logits = experiment.learner.predict(experiment.views.plain(tf.constant(IMAGES)), parameters="raw")
    np.testing.assert_allclose(served(tmp_path), tf.nn.softmax(logits), atol=1e-5)
    assert np.abs(served(tmp_path) - served(workdir.root)).max() > 1e-3  # what training itself has exported


def test_weights_differ() -> None:
    """Else the test above could not tell them apart."""
    state = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(trained("digits").checkpoints)))
    raw, average = (state.get_tensor(f"{role}/0/.ATTRIBUTES/VARIABLE_VALUE") for role in ("model", "ema"))
    assert np.abs(raw - average).max() > 1e-3


def test_by_default_the_workdir_gets_what_training_gave_it(copy: Workdir, capsys: pytest.CaptureFixture[str]) -> None:
    before = served(copy.root)
    shutil.rmtree(copy.export)
    copy.model.unlink()
    assert run_here("export", [f"--workdir={copy.root}"]) is None
    np.testing.assert_array_equal(served(copy.root), before)
    assert copy.model.is_file()
    assert str(copy.export) in capsys.readouterr().out


def test_no_data_are_needed(tmp_path: Path) -> None:
    shutil.copytree(trained("pictures").root, tmp_path / "run")
    config = tmp_path / "run" / "config.flags"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("--data_dir")]
    config.write_text("\n".join([*lines, "--data_dir=/gone/away.npz"]))
    assert run_here("export", [f"--workdir={tmp_path / 'run'}", f"--output={tmp_path}"]) is None
    images = np.zeros((2, 12, 10, 3), np.uint8)
    np.testing.assert_array_equal(served(tmp_path, images), served(trained("pictures").root, images))


def test_a_workdir_is_needed(tmp_path: Path) -> None:
    assert "--workdir is missing" in str(run_here("export", []))
    assert "is not a workdir" in str(run_here("export", [f"--workdir={tmp_path}"]))
    assert "is not a workdir" in str(run_here("export", [f"--workdir={tmp_path / 'nowhere'}"]))


def test_a_run_without_a_checkpoint_has_nothing_to_export(copy: Workdir) -> None:
    shutil.rmtree(copy.checkpoints)
    for checkpoint in ("last", "best"):
        shutil.rmtree(copy.best, ignore_errors=True)
        message = run_here("export", [f"--workdir={copy.root}", f"--checkpoint={checkpoint}"])
        assert "holds no checkpoint yet" in str(message)
    copy.interface.unlink()
    assert "its run has not begun" in str(run_here("export", [f"--workdir={copy.root}"]))


def test_without_validation_there_is_no_best() -> None:
    message = run_here("export", [f"--workdir={trained('pictures').root}", "--checkpoint=best"])
    assert "no validation set" in str(message)


def test_a_checkpoint_of_another_model_is_refused(copy: Workdir) -> None:
    copy.config.write_text(copy.config.read_text().replace("--filters=4", "--filters=5"))
    assert "is not of this run" in str(run_here("export", [f"--workdir={copy.root}"]))


def test_a_setting_of_the_run_is_refused(copy: Workdir) -> None:
    message = run_here("export", [f"--workdir={copy.root}", "--filters=8"])
    assert "--filters has no effect on an export" in str(message)
