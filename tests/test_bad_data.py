"""Data, models and weights that are not as they should be: one clear line before the first step, and no traceback."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.command_line import ReachedTraining, error_of, forbid_training, run_here

# Flags behind these win over them. An MLP is built in no time.
DIGITS = "--dataset=digits --num_labeled=20 --batch_size=8 --model=mlp --steps=12"
FOLDER = "--dataset=image_folder --batch_size=2 --model=mlp --steps=12"
NPZ = "--dataset=npz --batch_size=2 --model=mlp --steps=12"
MOONS = "--dataset=two_moons --num_labeled=6 --batch_size=2 --model=mlp --steps=12"

MODELS = """
import keras

def build(input_shape, *layers):
    return keras.Sequential([keras.Input(input_shape), *layers])

def images(input_shape, num_classes):
    return build(input_shape, keras.layers.Conv2D(num_classes, 3))

def too_few(input_shape, num_classes):
    return build(input_shape, keras.layers.Flatten(), keras.layers.Dense(num_classes - 1))

def probabilities(input_shape, num_classes):
    return build(input_shape, keras.layers.Flatten(), keras.layers.Dense(num_classes, activation="softmax"))

def two_outputs(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, [inputs, keras.layers.Flatten()(inputs)])

def nothing(input_shape, num_classes):
    return None
"""

FOLDERS = {
    f"{FOLDER}": r"image_folder needs a folder. Name it with --data_dir. Expected DIR/labeled/<class>/",
    f"{FOLDER} --data_dir=DATA/none": r"There is no folder .*/none. Correct --data_dir. Expected DIR/labeled/",
    f"{FOLDER} --data_dir=DATA/file": r"There is no folder .*/file. Correct --data_dir. Expected DIR/labeled/",
    f"{FOLDER} --data_dir=DATA/empty": r"/empty has no folder named labeled; it has no folders. Expected DIR/",
    f"{FOLDER} --data_dir=DATA/hollow": r"labeled/cat holds no readable image. Expected at least one of each",
    f"{FOLDER} --data_dir=DATA/one_class": r"labeled has 1 class folders \(cat\). Expected at least two",
    f"{FOLDER} --data_dir=DATA/mixed": r"4 are grey, such as labeled/cat/0.png, and 4 are in color.*--channels=1",
    f"{FOLDER} --data_dir=DATA/damaged --strict_data": (
        r"2 of 16 images .*: labeled/cat/text.jpg, unlabeled/half.png\. Expected only whole images.*--nostrict_data"
    ),
    f"{FOLDER} --data_dir=DATA/pets --num_labeled=9": r"--num_labeled=9 asks for more .* Expected at most 8",
    f"{FOLDER} --data_dir=DATA/pets --batch_size=15": r"--batch_size=15 is larger than the set, which has 14 .*: lower",
    f"{MOONS} --unlabeled_dataset=image_folder:DATA/pets": r"--unlabeled_dataset holds images, but --dataset holds po",
}
OTHER_SOURCES = {
    f"{NPZ} --data_dir=DATA/pickled.npz": r"holds pickled objects, which are refused.*without dtype=object",
    f"{NPZ} --data_dir=DATA/file": r"/file is not an .npz file. Expected one written by numpy.savez",
    f"{NPZ} --data_dir=DATA/labels.npz": r"labels from 0 to 1. Expected -1 to 0, .* class_names",
    f"{NPZ} --data_dir=DATA/nan.npz": r"x_train holds values that are not finite. Expected finite numbers",
    f"{NPZ} --data_dir=DATA/points.npz --labeled_in_unlabeled=false": r"unlabeled examples and there are none",
    f"{DIGITS} --dataset=cifar10 --data_dir=DATA": r"'cifar10' is not prepared in .*--data_dir.*--download",
    f"{DIGITS} --data_dir=DATA/pets": r"--data_dir=.*/pets has no effect on --dataset=digits.* left out.*image_f",
    f"{DIGITS} --download": r"--download has no effect on --dataset=digits.* left out, or .*tfds:NAME",
    f"{DIGITS} --strict_data": r"--strict_data has no effect on --dataset=digits.* left out, or .*=image_folder",
    f"{FOLDER} --dataset=image_folder:DATA/pets --data_dir=DATA": r"--data_dir=.* no effect on --dataset=image_f",
    f"{DIGITS} --data_dir=DATA --unlabeled_dataset=cifar10": r"'cifar10' is not prepared in .*--data_dir",
    f"{DIGITS} --unlabeled_dataset=two_moons": r"--unlabeled_dataset holds points .* Expected the same shape",
    f"{MOONS} --image_size=8": r"two_moons holds points, which have neither --image_size nor .*leave them out",
    f"{MOONS} --weak_flip=on": r"--weak_flip has no effect on points, which --dataset holds. Expected .* left out",
    f"{DIGITS} --point_noise=0.3": r"--point_noise has no effect on images, which --dataset holds. Expected .* left",
    f"{MOONS} --model=convnet": r"--model=convnet takes images .*Received .* shape \[2\]. Use --model=mlp",
}
OWN_MODELS = {
    "images": r"Expected .* logits \[batch, 10\]. Received \[batch, 6, 6, 10\]",
    "too_few": r"Expected .* logits \[batch, 10\]. Received \[batch, 9\]",
    "probabilities": r"returns probabilities.*Received the output of a softmax: leave it out",
    "two_outputs": r"does not return one tensor. Expected .* logits \[batch, 10\]",
    "nothing": r"did not return a model. Expected a function .* Received None",
    "image": r"the module own_module has no 'image'.* Did you mean 'images'\?",
}
WEIGHTS = {
    "none": r"--init_from=.*/none holds no weights. Expected a workdir, a checkpoint",
    "pets": r"--init_from=.*/pets holds no weights. Expected a workdir, a checkpoint",
    "text.keras": r"--init_from=.*/text.keras cannot be read: .* Expected a workdir, a checkpoint .*or a .keras file",
}
CASES = (
    FOLDERS
    | OTHER_SOURCES
    | {f"{DIGITS} --model=own_module:{function}": expected for function, expected in OWN_MODELS.items()}
    | {f"{DIGITS} --model=nowhere:model": r"the module nowhere cannot be imported.* PYTHONPATH"}
    | {f"{DIGITS} --init_from=DATA/{source}": expected for source, expected in WEIGHTS.items()}
)


def write_images(folder: Path, count: int, channels: int = 3) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, channels), np.uint8)
        (folder / f"{number}.png").write_bytes(tf.io.encode_png(pixels).numpy())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders and files, most of them wrong in some way."""
    root = tmp_path_factory.mktemp("data")
    for folder, channels in {"pets": (3, 3), "damaged": (3, 3), "mixed": (1, 3), "one_class": (3,)}.items():
        for name, depth in zip(("cat", "dog"), channels, strict=False):
            write_images(root / folder / "labeled" / name, 4, depth)
    for folder in ("pets", "damaged"):
        write_images(root / folder / "unlabeled", 6)
    (root / "damaged/unlabeled/half.png").write_bytes((root / "damaged/unlabeled/0.png").read_bytes()[:70])
    (root / "damaged/labeled/cat/text.jpg").write_text("no image")
    (root / "empty").mkdir()
    for name in ("cat", "dog"):
        (root / "hollow/labeled" / name).mkdir(parents=True)
    for name in ("file", "text.keras"):
        (root / name).write_text("only text")
    (root / "own_module.py").write_text(MODELS)
    write_arrays(root)
    return root


def write_arrays(root: Path) -> None:
    arrays = {"y_train": np.array([0, 1] * 5), "x_test": np.zeros((4, 2)), "y_test": np.array([0, 1] * 2)}
    np.savez(root / "pickled.npz", x_train=np.array([{}] * 10), **arrays)
    np.savez(root / "nan.npz", x_train=np.full((10, 2), np.nan), **arrays)
    np.savez(root / "points.npz", x_train=np.zeros((10, 2)), **arrays)
    np.savez(root / "labels.npz", x_train=np.zeros((10, 2)), class_names=np.array(["only one"]), **arrays)


@pytest.mark.parametrize("given", CASES)
def test_mistake_is_explained_before_the_first_step(
    given: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_training(monkeypatch)
    monkeypatch.syspath_prepend(str(data))
    message = error_of([*given.replace("DATA", str(data)).split(" "), f"--workdir={tmp_path / 'run'}"])
    assert re.search(CASES[given], message), message


def test_damaged_images_are_named_counted_and_skipped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forbid_training(monkeypatch)
    with pytest.raises(ReachedTraining):
        run_here(
            "train",
            [*FOLDER.split(" "), "--unlabeled_ratio=2", f"--data_dir={data / 'damaged'}", f"--workdir={tmp_path}"],
        )
    assert re.search(r"2 of 16 images .*: labeled/cat/text.jpg, unlabeled/half.png\. They are skipped", caplog.text)
