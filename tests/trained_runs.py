"""Runs of seconds that the tests of exporting and predicting share; each is trained once, when first asked for."""

import functools
import tempfile
from pathlib import Path

import numpy as np

from metassl_tf import flag_definitions
from metassl_tf.config import Config
from metassl_tf.engine import run
from metassl_tf.engine.workdir import Workdir
from tests.command_line import arguments

# Neither square nor grey, and with class names that need quoting.
PICTURE_SHAPE = (12, 10, 3)
PICTURE_CLASSES = ("cat", 'dog, "spotted"', "=frog")

_SHORT = {"steps": 6, "batch_size": 6, "eval_steps": 3, "unlabeled_ratio": 2, "ema_decay": 0.5, "learning_rate": 0.1}
_SETTINGS = {
    "digits": {
        "dataset": "digits",
        "num_labeled": 20,
        "num_validation": 30,
        "normalization": "mean_std",
        "filters": 4,
        "dropout": 0.2,
    },
    "pictures": {"dataset": "npz", "filters": 4},
    "taught": {
        "dataset": "digits",
        "num_labeled": 20,
        "model": "mlp",
        "meta": "meta_pseudo_labels",
        "feedback": "none",
        "fine_tune_steps": 4,
        "fine_tune_learning_rate": 0.1,
    },
    "points": {"dataset": "two_moons", "num_labeled": 6, "num_test": 50, "model": "mlp"},
}

_FOLDER = tempfile.TemporaryDirectory(prefix="trained_runs")


@functools.cache
def pictures_file() -> Path:
    """An .npz file of 30 noise images for training, 9 for testing."""
    generator = np.random.default_rng(0)
    path = Path(_FOLDER.name) / "pictures.npz"
    arrays = {}
    for part, count in (("train", 30), ("test", 9)):
        arrays[f"x_{part}"] = generator.integers(0, 256, (count, *PICTURE_SHAPE), np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % len(PICTURE_CLASSES)
    np.savez(path, class_names=np.array(PICTURE_CLASSES), **arrays)
    return path


def config_of(kind: str) -> Config:
    """The config of a run: `digits` (grey, with validation), `pictures` (color, without), `taught` or `points`."""
    data = {"data_dir": pictures_file()} if kind == "pictures" else {}
    return flag_definitions.parse(arguments({**_SHORT, **_SETTINGS[kind], **data}))


@functools.cache
def trained(kind: str) -> Workdir:
    """The workdir of a finished run. Tests leave it as it is."""
    workdir = Workdir(Path(_FOLDER.name) / kind)
    run.train(config_of(kind), workdir)
    return workdir
