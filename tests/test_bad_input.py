"""Whatever a user gets wrong: one clear line before the first step, no traceback, and nothing lost."""

import json
import re
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.trainer import Trainer
from metassl_tf.engine.workdir import Workdir
from tests.command_line import ROOT, arguments, run_here, start
from tests.engine.conftest import TINY

Changes = dict[str, Any]

# An MLP is built in no time.
QUICK: Changes = {**TINY, "model": "mlp", "filters": None}
SUPERVISED: Changes = {"algorithm": "supervised", "threshold": None, "unlabeled_ratio": None}
FOLDER: Changes = {"dataset": "image_folder", "num_labeled": None, "num_validation": None, "batch_size": 2}
OWN_MODEL: Changes = {"dropout": None}

MODELS = """
import keras

def ending_in(*layers):
    def build(input_shape, num_classes):
        return keras.Sequential([keras.Input(input_shape), *layers, keras.layers.Dense(num_classes)][: 1 + len(layers)])
    return build

images = ending_in(keras.layers.Conv2D(10, 3))
three_logits = ending_in(keras.layers.Flatten(), keras.layers.Dense(3))
probabilities = ending_in(keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax"))

def nothing(input_shape, num_classes):
    return None

def two_outputs(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    flat = keras.layers.Flatten()(inputs)
    return keras.Model(inputs, [flat, keras.layers.Dense(num_classes)(flat)])
"""


class ReachedTraining(BaseException):
    """The first training step would begin here."""


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the first training step an exception that nothing catches."""
    train = Trainer.train

    def refuse(self: Trainer, num_steps: tf.Tensor) -> Any:
        if int(num_steps):
            raise ReachedTraining
        return train(self, num_steps)

    monkeypatch.setattr(Trainer, "train", refuse)


def write_images(folder: Path, count: int, channels: int = 3) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, channels), np.uint8)
        (folder / f"{number}.png").write_bytes(tf.io.encode_png(pixels).numpy())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders and files, most of them wrong in some way."""
    root = tmp_path_factory.mktemp("data")
    for folder, channels in (("pets", (3, 3)), ("mixed", (1, 3)), ("damaged", (3, 3)), ("one_class", (3,))):
        for name, depth in zip(("cat", "dog"), channels, strict=False):
            write_images(root / folder / "labeled" / name, 4, depth)
    for folder in ("pets", "damaged"):
        write_images(root / folder / "unlabeled", 6)
    half = (root / "damaged/unlabeled/0.png").read_bytes()[:70]
    (root / "damaged/unlabeled/half.png").write_bytes(half)
    (root / "damaged/labeled/cat/text.jpg").write_text("no image")
    (root / "empty").mkdir()
    (root / "file").write_text("no folder")
    (root / "weights.keras").write_text("no weights")
    labels = {"y_train": np.array([0, 1] * 5), "x_test": np.zeros((4, 2)), "y_test": np.array([0, 1] * 2)}
    np.savez(root / "pickled.npz", x_train=np.array([{}] * 10), **labels)
    np.savez(root / "labels.npz", x_train=np.zeros((10, 2)), class_names=np.array(["no"]), **labels)
    np.savez(root / "points.npz", x_train=np.zeros((10, 2)), **labels)
    np.savez(root / "nan.npz", x_train=np.full((10, 2), np.nan), **labels)
    (root / "own_models.py").write_text(MODELS)
    return root


@pytest.fixture
def failing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Changes], str]:
    """Runs a command that must end with an error, and returns that."""
    monkeypatch.syspath_prepend(str(data))

    def run(changes: Changes) -> str:
        given = {**QUICK, "workdir": tmp_path / "run", **changes}
        texts = {name: value.format(data=data) if isinstance(value, str) else value for name, value in given.items()}
        message = run_here("train", arguments(texts))
        assert isinstance(message, str), message
        return message

    return run


@pytest.fixture
def refused(failing: Callable[[Changes], str], monkeypatch: pytest.MonkeyPatch) -> Callable[[Changes], str]:
    """The same, for an error that must come before the first step."""
    forbid_training(monkeypatch)
    return failing


CASES: dict[str, tuple[Changes, str]] = {
    # Names.
    "unknown algorithm": ({"algorithm": "fixmach"}, r"--algorithm=fixmach .*: supervised, .* Did you mean 'fixmatch'\?"),
    "unknown model": ({"model": "convnets", "dropout": None}, r"--model=convnets .*: mlp, .* Did you mean 'convnet'\?"),
    "unknown optimizer": ({"optimizer": "sdg"}, r"--optimizer=sdg .*: sgd, adam.* Did you mean 'sgd'\?"),
    "unknown schedule": ({"schedule": "cosin"}, r"--schedule=cosin .*: constant, .* Did you mean 'cosine'\?"),
    "unknown dataset": ({"dataset": "digit"}, r"--dataset=digit .*: digits, .* Did you mean 'digits'\?"),
    "unknown policy": ({"strong_policy": "fixmatsh"}, r"--strong_policy=fixmatsh .* Did you mean 'fixmatch'\?"),
    "unknown choice": ({"unlabeled_ramp": "linaer"}, r"--unlabeled_ramp=linaer .*: constant, .* Did you mean 'linear'\?"),
    "unknown pool": ({"unlabeled_dataset": "cifar"}, r"--unlabeled_dataset=cifar .* Did you mean 'cifar1"),
    "argument of a plain set": ({"dataset": "digits:test"}, r"digits takes nothing after a colon.*--dataset=digits\."),
    # Flags without an effect.
    "not the algorithm's": ({"temperature": 0.3}, r"--temperature is not .*--algorithm=fixmatch\. It uses: --threshold\."),
    "not the model's": ({"filters": 3}, r"--filters is not a setting of --model=mlp\. It uses: --activation, .*hidden"),
    "not the optimizer's": ({"beta_1": 0.9}, r"--beta_1 is not a setting of --optimizer=sgd\. It uses: .*--momentum"),
    "not the dataset's": ({"num_train": 9}, r"--num_train is not a setting of --dataset=digits\. It uses: none"),
    "no unlabeled examples": (
        {**SUPERVISED, "unlabeled_ratio": 3},
        r"--unlabeled_ratio has no effect here: --algorithm=supervised uses no unlabeled .* left out",
    ),
    "no strong view": (
        {"algorithm": "pseudo_label", "strong_layers": 2},
        r"--strong_layers has no effect here: --algorithm=pseudo_label uses no strong view",
    ),
    "no ramp": ({"unlabeled_ramp_steps": 4}, r"--unlabeled_ramp_steps has no effect here: --unlabeled_ramp=constant"),
    "no tpu": ({"tpu": "local"}, r"--tpu has no effect here: --distribution is not tpu"),
    # Numbers.
    "no batch": ({"batch_size": 0}, r"--batch_size=0 is out of range. Expected at least 1: Labeled examples"),
    "negative batch": ({"batch_size": -3}, r"--batch_size=-3 is out of range. Expected at least 1"),
    "no steps": ({"steps": 0}, r"--steps=0 is out of range. Expected at least 1"),
    "negative steps": ({"steps": -1}, r"--steps=-1 is out of range. Expected at least 1"),
    "no evaluation": ({"eval_steps": 0}, r"--eval_steps=0 is out of range. Expected at least 1"),
    "probability above 1": ({"threshold": 1.5}, r"--threshold=1.5 is out of range. Expected at least 0 and at most 1"),
    "negative rate": ({"learning_rate": -1}, r"--learning_rate=-1.0 is out of range. Expected at least 0"),
    "rate that is no number": ({"learning_rate": "nan"}, r"--learning_rate=nan is out of range"),
    "decay of 1": ({"ema_decay": 1}, r"--ema_decay=1.0 is out of range. Expected at least 0 and less than 1"),
    "momentum of 1": ({"momentum": 1}, r"--momentum=1.0 is out of range"),
    "negative seed": ({"seed": -1}, r"--seed=-1 is out of range. Expected at least 0 and at most 4294967295"),
    "huge seed": ({"split_seed": 2**32}, r"--split_seed=4294967296 is out of range.*at most 4294967295"),
    "letters for units": ({"hidden_units": "a"}, r"--hidden_units=a is not a list of int .*for example --hidden_units=1"),
    "no units": ({"hidden_units": "8,0"}, r"--hidden_units=0 is out of range. Expected at least 1"),
    "endless graph": ({"strong_layers": 100}, r"--strong_layers=100 is out of range. Expected at least 0 and at most 16"),
    "magnitude": ({"strong_magnitude": 31}, r"--strong_magnitude=31 is out of range. Expected 0 to 30"),
    "two channels": ({"channels": 2}, r"--channels=2 is not possible. Expected 1 \(grey\), 3 \(colour\)"),
    "warm-up to the end": ({"warmup_steps": 12}, r"--warmup_steps=12 does not end before --steps=12. Expected fewer"),
    # Who is labeled, and batches.
    "more labels than examples": ({"num_labeled": 1300}, r"--num_labeled=1300 asks for more.*at most 1200.*Lower it"),
    "fewer labels than classes": ({"num_labeled": 5}, r"--num_labeled=5 gives some of the 10 classes no.*at least 10"),
    "more validation than left": ({"num_validation": 1190}, r"--num_validation=1190 asks for more .* 1180 .*Lower it"),
    "batch above the set": ({"batch_size": 1201}, r"--batch_size=1201 is larger than the set.*Expected at most 1200"),
    "unlabeled batch above the pool": ({"batch_size": 700}, r"--batch_size x --unlabeled_ratio is 1400.* 1180 unlabeled"),
    "nothing unlabeled": (
        {"dataset": "npz", "data_dir": "{data}/points.npz", "num_labeled": 0, "labeled_in_unlabeled": "false"}
        | {"batch_size": 2, "num_validation": None},
        r"--algorithm=fixmatch learns from unlabeled examples and there are none.*--unlabeled_dataset",
    ),
    "odd batch under mixup": ({**SUPERVISED, "mixup": 0.5, "batch_size": 7}, r"--mixup pairs .* 7\. Expected an even"),
    # Folders of images.
    "no data folder": (FOLDER, r"image_folder needs a folder. Name it with --data_dir. Expected DIR/labeled/<class>"),
    "missing data folder": ({**FOLDER, "data_dir": "{data}/none"}, r"There is no folder .*/none. Correct --data_dir"),
    "file for a folder": ({**FOLDER, "data_dir": "{data}/file"}, r"There is no folder .*/file. Correct --data_dir"),
    "empty data folder": ({**FOLDER, "data_dir": "{data}/empty"}, r"/empty has no folder named labeled.*Expected DIR/"),
    "one class": ({**FOLDER, "data_dir": "{data}/one_class"}, r"labeled has 1 class folders \(cat\). Expected at least t"),
    "grey and colour": ({**FOLDER, "data_dir": "{data}/mixed"}, r"4 are grey, such as labeled/cat/0.png.*--channels=1"),
    "damaged images": (
        {**FOLDER, "data_dir": "{data}/damaged", "strict_data": "true"},
        r"2 of 16 images in .*damaged cannot be decoded: labeled/cat/text.jpg, unlabeled/half.png.*--nostrict_data",
    ),
    "more labels than images": ({**FOLDER, "data_dir": "{data}/pets", "num_labeled": 9}, r"--num_labeled=9 .*at most 8"),
    "a pixel": ({"image_size": 1}, r"images are 1 x 1 pixels. Expected at least 2 x 2: choose a larger --image_size"),
    # Other sources.
    "pickled objects": ({"dataset": "npz", "data_dir": "{data}/pickled.npz"}, r"pickled objects, which are refused"),
    "no npz": ({"dataset": "npz", "data_dir": "{data}/file"}, r"file is not an .npz file. Expected .*numpy.savez"),
    "label without a class": ({"dataset": "npz", "data_dir": "{data}/labels.npz"}, r"labels from 0 to 1. Expected -1 to 0"),
    "inputs that are no numbers": ({"dataset": "npz", "data_dir": "{data}/nan.npz"}, r"x_train holds .* not finite"),
    "unprepared set": ({"dataset": "cifar10", "data_dir": "{data}"}, r"'cifar10' is not prepared in .*--data_dir.*--down"),
    "size of points": ({"dataset": "two_moons", "num_labeled": 6, "image_size": 8}, r"neither --image_size.*leave them"),
    "points for images": ({"unlabeled_dataset": "two_moons"}, r"--unlabeled_dataset holds points.*Expected the same"),
    "images for points": (
        {"dataset": "two_moons", "num_labeled": 6, "unlabeled_dataset": "image_folder:{data}/pets"},
        r"--unlabeled_dataset holds images, but --dataset holds points.*leave it out",
    ),
    "points for a convolution": (
        {"dataset": "two_moons", "num_labeled": 6, "model": "convnet"},
        r"--model=convnet takes images .*Received examples of shape \[2\]. Use --model=mlp",
    ),
    # Models of one's own.
    "images as outputs": (OWN_MODEL | {"model": "own_models:images"}, r"Expected .* \[batch, 10\]. Received \[batch, 6, 6"),
    "other classes": (OWN_MODEL | {"model": "own_models:three_logits"}, r"one logit per class.*Received \[batch, 3\]"),
    "two outputs": (OWN_MODEL | {"model": "own_models:two_outputs"}, r"does not return one tensor"),
    "a softmax": (OWN_MODEL | {"model": "own_models:probabilities"}, r"returns probabilities.*softmax: leave it out"),
    "no model": (OWN_MODEL | {"model": "own_models:nothing"}, r"did not return a model.*Received None"),
    "no function": (OWN_MODEL | {"model": "own_models:image"}, r"has no 'image'.*Did you mean 'images'\?"),
    "no module": (OWN_MODEL | {"model": "nowhere:images"}, r"module nowhere cannot be imported.*PYTHONPATH"),
    # Weights to start from.
    "no weights": ({"init_from": "{data}/none"}, r"--init_from=.*/none holds no weights. Expected a workdir, a checkpo"),
    "no workdir": ({"init_from": "{data}/pets"}, r"--init_from=.*/pets holds no weights. Expected a workdir"),
    "no Keras file": ({"init_from": "{data}/weights.keras"}, r"--init_from=.*weights.keras cannot be read: .*Expected a w"),
    # Workdirs.
    "file for a workdir": ({"workdir": "{data}/file"}, r"--workdir=.*/file cannot be made .*File exists. Expected a folder"),
}


@pytest.mark.parametrize("case", CASES)
def test_mistake_is_explained_before_the_first_step(case: str, refused: Callable[[Changes], str]) -> None:
    changes, expected = CASES[case]
    message = refused(changes)
    assert message.startswith("error: ")
    assert re.search(expected, message), message
    assert "Traceback" not in message
    assert "in user code" not in message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--agorithm=uda"], r"Unknown command line flag 'agorithm'. Did you mean: algorithm"),
        (["--steps=many"], r"flag --steps=many: invalid literal"),
        (["--download=perhaps"], r"flag --download=perhaps: .*Non-boolean"),
        (["--flagfile=nowhere.flags"], r"Unable to open flagfile: .*nowhere.flags"),
    ],
)
def test_what_absl_cannot_parse_is_explained(given: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("train", given) == 1
    error = capsys.readouterr().err
    assert re.search(expected, error)
    assert "Traceback" not in error


@pytest.mark.parametrize("written", ["--flagfile={}", "-flagfile={}", "--flagfile {}"])
def test_flagfile_behind_other_flags_is_refused(written: str) -> None:
    file = ROOT / "flags/digits/quickstart.flags"
    message = run_here("train", ["--steps=3", *written.format(file).split(" ")])
    assert re.search(r"^error: -{1,2}flagfile.* stands behind --steps=3.* Put --flagfile first", str(message))


def test_stray_word_is_refused() -> None:
    assert re.search(r"^error: Unexpected argument 'digits'. Expected flags", str(run_here("train", ["digits"])))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write: /proc/self")
@pytest.mark.parametrize("folder", ["/proc/self", "/proc/new"])
def test_workdir_that_cannot_be_written_is_refused(folder: str, refused: Callable[[Changes], str]) -> None:
    message = refused({"workdir": folder})
    assert re.search(rf"^error: --workdir={folder} cannot be made or written: .*choose another --workdir", message)


def test_damaged_images_are_named_counted_and_skipped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forbid_training(monkeypatch)
    given = {**QUICK, **FOLDER, "data_dir": data / "damaged", "workdir": tmp_path}
    with pytest.raises(ReachedTraining):
        run_here("train", arguments(given))
    assert re.search(r"2 of 16 images .*: labeled/cat/text.jpg, unlabeled/half.png\. They are skipped", caplog.text)


def test_workdir_of_another_configuration_is_refused(refused: Callable[[Changes], str], tmp_path: Path) -> None:
    with pytest.raises(ReachedTraining):
        refused({})
    Checkpoints(tmp_path / "run/checkpoints", {"run": [tf.Variable(1)]}).save(4)
    message = refused({"learning_rate": 0.5})
    assert re.search(r"^error: --workdir=.* --learning_rate=0.03, .* --learning_rate=0.5\. Choose another", message)


def test_mistake_can_be_mended_in_the_same_workdir(refused: Callable[[Changes], str], tmp_path: Path) -> None:
    for mistake in ({"num_labeled": 5}, {"init_from": "{data}/none", "num_labeled": 40}):
        assert refused(mistake).startswith("error: ")
    with pytest.raises(ReachedTraining):
        refused({})
    assert "--num_labeled=20\n" in Workdir(tmp_path / "run").config.read_text()


def kept_steps(workdir: Workdir) -> list[int]:
    """Steps of the checkpoints in a workdir, after a look at each that everything in it is finite."""
    paths = [str(path.with_suffix("")) for path in workdir.checkpoints.glob("step-*.index")]
    for path in paths:
        reader = tf.train.load_checkpoint(path)
        for name, kind in reader.get_variable_to_dtype_map().items():
            if kind.is_floating:
                assert np.isfinite(reader.get_tensor(name)).all(), f"{name} in {path}"
    return sorted(int(path.rpartition("-")[2]) for path in paths)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize(
    ("changes", "expected", "kept"),
    [
        pytest.param({"learning_rate": 1e30}, r"loss/\w+ became infinite or NaN at step 1\.", [1], id="loss"),
        pytest.param({"l2_weight_decay": 1e30}, r"gradient_norm became infinite or NaN at step 0\.", [], id="gradient"),
        pytest.param(
            {"learning_rate": 1e30, "l2_weight_decay": 1e10}, r"A weight \(.* before step 1\.", [], id="weights"
        ),
        pytest.param(
            {"learning_rate": 30, "steps": 400}, r"gradient_norm became infinite or NaN at step 4\.", [2, 3, 4], id="late"
        ),
        pytest.param(
            {"learning_rate": 1e30, "eval_steps": 1}, r"predictions with the raw weights .* before step 1", [], id="tested"
        ),
    ],
)
def test_run_that_leaves_the_reals_stops_and_keeps_good_checkpoints(
    changes: Changes, expected: str, kept: list[int], failing: Callable[[Changes], str], tmp_path: Path
) -> None:
    message = failing({"eval_steps": 3, "checkpoint_steps": 1, **changes})
    assert re.search(rf"^error: .*{expected} Expected .*finite .* Lower --learning_rate", message), message
    workdir = Workdir(tmp_path / "run")
    assert kept_steps(workdir) == kept
    assert not workdir.result.exists()
    if workdir.metrics.exists():
        for line in workdir.metrics.read_text().splitlines():
            json.loads(line, parse_constant=refuse_constant)


def assert_one_error(process: subprocess.Popen[str], expected: str) -> None:
    """Waits for a program, which must end with status 1 and one error in one line."""
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    assert re.findall("^error: .*", errors, flags=re.MULTILINE) == [errors.splitlines()[-1]]
    assert re.search(expected, errors.splitlines()[-1])
    assert "Traceback" not in errors
    assert output == ""


def test_real_command_ends_with_status_1_and_one_line(tmp_path: Path) -> None:
    commands = {
        r"--algorithm=fixmach is not known.* Did you mean 'fixmatch'\?": ["--algorithm=fixmach"],
        r"--num_labeled=5 gives some of the 10 classes no label": arguments({**QUICK, "num_labeled": 5}),
    }
    processes = {expected: start("train", given, folder=tmp_path) for expected, given in commands.items()}
    for expected, process in processes.items():
        assert_one_error(process, expected)


class Killed(BaseException):
    """Stands for SIGKILL."""


def test_full_disk_ends_the_run_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = Workdir(tmp_path / "run")
    given = arguments({**QUICK, "num_validation": None, "eval_steps": 100, "workdir": workdir.root})
    with monkeypatch.context() as patch:
        save = Checkpoints.save

        def save_and_die(self: Checkpoints, step: int) -> None:
            save(self, step)
            raise Killed

        patch.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(Killed):
            run_here("train", given)
    process = start("train", given)
    # A limit on the size of files makes writing fail as a full disk does, without filling one.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    assert_one_error(
        process, r"The checkpoint of step 8 could not be written in .*: File too large\. step-4 is intact\. Free some space"
    )
    assert kept_steps(workdir) == [4]
    assert run_here("train", given) is None
    assert json.loads(workdir.result.read_text())["step"] == 12
    assert kept_steps(workdir) == [4, 8, 12]
