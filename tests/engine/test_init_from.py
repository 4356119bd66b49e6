"""`--init_from` takes weights from whatever holds them, re-initialises another head, and refuses another body."""

import dataclasses
import errno
import logging
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.augment.normalize import Normalization
from metassl_tf.config import Config
from metassl_tf.engine import run
from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.init_from import initialize
from metassl_tf.engine.interface import FILE_NAME, Interface
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from metassl_tf.learner.learner import Learner
from tests.learner import tiny

HEAD = 2  # the last variables that are trained: kernel and bias


def network(*, hidden: int = 5, classes: int = 3, batch_norm: bool = True) -> keras.Model:
    inputs = keras.Input((4,))
    features = keras.layers.Dense(hidden)(inputs)
    if batch_norm:
        features = keras.layers.BatchNormalization()(features)
    return keras.Model(inputs, keras.layers.Dense(classes)(features))


def learner(model: keras.Model | None = None) -> Learner:
    return Learner(model or network(), tiny.optimization(), seed=0)


def different(source: Learner) -> Learner:
    """Gives a learner weights that no other has, and averages that are not its weights."""
    for role, factor in (("model", 1.0), ("ema", 2.0)):
        for position, variable in enumerate(source.state_variables[role]):
            variable.assign(tf.fill(variable.shape, factor + position))
    return source


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """A workdir with two checkpoints, the newer one with weights of its own, and a best one."""
    workdir = Workdir(tmp_path / "run")
    source = learner()
    checkpoints = Checkpoints(workdir.checkpoints, source.state_variables)
    checkpoints.save(9)
    different(source)
    checkpoints.save(10)
    Checkpoints(workdir.best, source.state_variables).save(7)
    return workdir


def keras_file(folder: Path, *, wrapped: bool) -> Path:
    """The averages of `different` in a Keras file, alone or as one layer between others, as runs export them."""
    model = network()
    for position, variable in enumerate([*model.trainable_variables, *model.non_trainable_variables]):
        variable.assign(tf.fill(variable.shape, 2.0 + position))
    if wrapped:
        inputs = keras.Input((4,))
        model = keras.Model(inputs, keras.layers.Softmax()(model(keras.layers.Rescaling(0.5)(inputs))))
    path = folder / "model.keras"
    model.save(path)
    return path


def assert_starts_from_the_averages(started: Learner) -> None:
    fresh = learner()
    for role in ("model", "ema"):
        for position, variable in enumerate(started.state_variables[role]):
            np.testing.assert_array_equal(variable, tf.fill(variable.shape, 2.0 + position))
    for slot, untouched in zip(started.state_variables["slots"], fresh.state_variables["slots"], strict=True):
        np.testing.assert_array_equal(slot, untouched)


@pytest.mark.parametrize("kind", ["workdir", "checkpoint", "best", "keras", "exported"])
def test_weights_and_averages_start_from_the_averages(kind: str, workdir: Workdir, tmp_path: Path) -> None:
    source = {
        "workdir": lambda: workdir.root,
        "checkpoint": lambda: workdir.checkpoints / "step-10",
        "best": lambda: workdir.best / "step-7",
        "keras": lambda: keras_file(tmp_path, wrapped=False),
        "exported": lambda: keras_file(tmp_path, wrapped=True),
    }[kind]()
    started = learner()
    initialize(started, str(source))
    assert_starts_from_the_averages(started)


@pytest.mark.parametrize("kind", ["workdir", "keras"])
def test_another_head_is_reported_and_left_as_initialised(
    kind: str, workdir: Workdir, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started = learner(network(classes=7))
    head = [variable.numpy() for variable in started.trainable_variables[-HEAD:]]
    source = workdir.root if kind == "workdir" else keras_file(tmp_path, wrapped=True)
    with caplog.at_level(logging.WARNING):
        initialize(started, str(source))
    assert "has shape [5, 3] there and [5, 7] here; it starts from random values" in caplog.text
    assert len(caplog.records) == HEAD
    number = len(started.trainable_variables)
    for role in ("model", "ema"):
        variables = started.state_variables[role]
        for position in (*range(number - HEAD), *range(number, len(variables))):
            np.testing.assert_array_equal(variables[position], tf.fill(variables[position].shape, 2.0 + position))
        for variable, initial in zip(variables[number - HEAD : number], head, strict=True):
            np.testing.assert_array_equal(variable, initial)


def store(interface: Interface, workdir: Workdir, file: Path) -> None:
    """Puts what a network takes and returns beside the weights of both sources."""
    workdir.interface.write_bytes(interface.to_json())
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(FILE_NAME, interface.to_json())


@pytest.mark.parametrize("kind", ["workdir", "best", "keras"])
def test_a_network_that_is_not_to_learn_has_the_same_classes(kind: str, workdir: Workdir, tmp_path: Path) -> None:
    file = keras_file(tmp_path, wrapped=True)
    source = {"workdir": workdir.root, "best": workdir.best / "step-7", "keras": file}[kind]
    with pytest.raises(UserError, match=r"has shape \[5, 3\] there and \[5, 7\] here. Expected the same --model"):
        initialize(learner(network(classes=7)), str(source), frozen=True)
    points = Interface(shape=(4,), class_names=("a", "b", "c"), normalization=None)
    store(points, workdir, file)
    for classes, expected in {
        ("a", "c", "b"): r"tells 3 classes apart and the data have 3, the first other one 'b' there and 'c' here",
        ("a", "b", "c", "d"): r"tells 3 classes apart and the data have 4. Expected the same ones in the same order",
    }.items():
        with pytest.raises(UserError, match=expected):
            initialize(learner(), str(source), interface=dataclasses.replace(points, class_names=classes), frozen=True)
    started = learner()
    initialize(started, str(source), interface=points, frozen=True)
    assert_starts_from_the_averages(started)


IMAGES = Interface(shape=(8, 8, 1), class_names=("a", "b", "c"), normalization=Normalization())


@pytest.mark.parametrize("kind", ["workdir", "keras"])
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"shape": (16, 16, 1)}, r"images of 16 x 16 x 1, .*this run has images of 8 x 8 x 1, normalised by mean 0.5 "),
        (
            {"normalization": Normalization(mean=(0.3,), std=(0.4,))},
            r"by mean 0.3 and standard deviation 0.4, and this run has .* by mean 0.5 and standard deviation 0.5",
        ),
        ({"shape": (4,), "normalization": None}, r"was trained on points of 4, and this run has images of 8 x 8 x 1"),
    ],
)
def test_other_inputs_are_told_and_refused_of_a_network_that_is_not_to_learn(
    kind: str,
    found: dict[str, Any],
    expected: str,
    workdir: Workdir,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = keras_file(tmp_path, wrapped=True)
    store(dataclasses.replace(IMAGES, **found), workdir, file)
    source = str(workdir.root if kind == "workdir" else file)
    with pytest.raises(UserError, match=rf"^--init_teacher_from=.*{expected}.*Expected the same: a teacher that does"):
        initialize(learner(), source, role="teacher", interface=IMAGES, frozen=True)
    started = learner()
    with caplog.at_level(logging.WARNING):
        initialize(started, source, interface=IMAGES)
    assert re.search(f"--init_from: it was trained on .*{expected.rpartition('and this run has ')[2]}", caplog.text)
    assert_starts_from_the_averages(started)


def test_statistics_of_another_sample_are_no_other_inputs(
    workdir: Workdir, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    near = dataclasses.replace(IMAGES, normalization=Normalization(mean=(0.505,), std=(0.49,)))
    store(near, workdir, keras_file(tmp_path, wrapped=True))
    initialize(learner(), str(workdir.root), interface=IMAGES, frozen=True)
    assert not caplog.text


@pytest.mark.parametrize("teacher", [network(), network(hidden=6), network(batch_norm=False)])
def test_a_teacher_starts_from_the_teacher_of_a_run_that_it_fits(
    teacher: keras.Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of another kind, such as one that calibrates, is none to start from: then the student is."""
    workdir, student, own = Workdir(tmp_path / "run"), different(learner()), learner(teacher)
    for variable in own.ema:
        variable.assign(variable + 7.0)
    state = {**student.state_variables, "teacher_ema": own.state_variables["ema"]}
    Checkpoints(workdir.checkpoints, state).save(3)
    started, other = learner(), learner()
    initialize(started, str(workdir.root), role="teacher")
    initialize(other, str(workdir.root))
    assert_starts_from_the_averages(other)
    if [variable.shape for variable in own.ema] != [variable.shape for variable in started.ema]:
        assert "the teacher of that run is another network" in caplog.text
        assert_starts_from_the_averages(started)
        return
    assert not caplog.text
    for variable, average in zip(started.state_variables["model"], own.ema, strict=True):
        np.testing.assert_array_equal(variable, average)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"hidden": 6}, r"has shape \[4, 5\] there and \[4, 6\] here. Expected the same --model"),
        ({"batch_norm": False}, r"has 8 variables, the model has 4. Expected the same --model"),
    ],
)
def test_another_body_is_refused(model: dict[str, int], expected: str, workdir: Workdir, tmp_path: Path) -> None:
    for source in (workdir.root, keras_file(tmp_path, wrapped=False)):
        with pytest.raises(UserError, match=expected):
            initialize(learner(network(**model)), str(source))


def test_what_holds_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.keras").write_text("no model")
    with (tmp_path / "text.keras.zip").open("wb") as file:
        np.savez(file, x=np.zeros(3))
    (tmp_path / "text.keras.zip").rename(tmp_path / "zip.keras")
    for source, expected in {
        tmp_path: r"holds no weights. Expected a workdir, a checkpoint in one .*, or a .keras file",
        tmp_path / "step-3": r"holds no weights. Expected a workdir",
        tmp_path / "none.keras": r"none.keras does not exist. Expected a workdir",
        tmp_path / "text.keras": r"text.keras cannot be read: .* Expected a workdir",
        tmp_path / "zip.keras": r"zip.keras cannot be read: .* Expected a workdir",
    }.items():
        with pytest.raises(UserError, match=expected):
            initialize(learner(), str(source))


@pytest.mark.parametrize("suffix", [".data-00000-of-00001", ".index"])
def test_damaged_checkpoint_is_named(suffix: str, workdir: Workdir) -> None:
    path = workdir.checkpoints / f"step-10{suffix}"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match=r"--init_from=.* is damaged: .*Expected a workdir"):
        initialize(learner(), str(workdir.root))


def test_folder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(UserError, match=r"^--init_from=.* cannot be read: Permission denied\. Expected a workdir"):
        initialize(learner(), str(tmp_path))


def test_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    prefix = tf.train.Checkpoint(other=tf.Variable(1.0)).write(str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"has 0 variables, the model has 8"):
        initialize(learner(), prefix)


def test_a_run_starts_from_another_runs_weights(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    first, second = Workdir(tmp_path / "first"), Workdir(tmp_path / "second")
    small = {"model": "mlp", "filters": None, "steps": 2, "num_validation": None}
    run.train(tiny_config(**small, learning_rate=0.5), first)
    run.train(tiny_config(**small, learning_rate=0.0, init_from=first.root), second)
    readers = [tf.train.load_checkpoint(str(workdir.checkpoints / "step-2")) for workdir in (first, second)]
    for position in range(6):
        key = f"{position}/.ATTRIBUTES/VARIABLE_VALUE"
        average = readers[0].get_tensor(f"ema/{key}")
        np.testing.assert_array_equal(readers[1].get_tensor(f"model/{key}"), average)
        assert np.abs(average - readers[0].get_tensor(f"model/{key}")).max() > 0
