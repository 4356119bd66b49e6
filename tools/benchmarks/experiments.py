"""Experiments of the tracked flagfiles, built for a benchmark: by the package's own code, from the command line on."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from metassl_tf import flag_definitions
from metassl_tf.engine import run, setup
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.trainer import Trainer

_ROOT = Path(__file__).parent.parent.parent
_TRAIN_IMAGES, _TEST_IMAGES, _CLASSES = 5_000, 100, 10


def build(flagfile: str, changes: Sequence[str] = ()) -> Experiment:
    """Builds the experiment of a flagfile of this repository.

    Args:
      flagfile: path below the repository's root.
      changes: flags that win over the file's, such as `["--batch_size=8"]`.

    Returns:
      The experiment, at step 0.
    """
    return setup.build(flag_definitions.parse([f"--flagfile={_ROOT / flagfile}", *changes]))


def build_on_noise(flagfile: str, changes: Sequence[str] = ()) -> Experiment:
    """Builds the experiment of a CIFAR-10 flagfile on random images of the same shape, so that no data are needed."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.npz"
        arrays: dict[str, Any] = {}
        for part, count in (("train", _TRAIN_IMAGES), ("test", _TEST_IMAGES)):
            arrays[f"x_{part}"] = generator.integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
            arrays[f"y_{part}"] = np.arange(count) % _CLASSES
        np.savez(path, allow_pickle=False, **arrays)
        return build(flagfile, ["--dataset=npz", f"--data_dir={path}", *changes])


def trainer_without_input(experiment: Experiment) -> Trainer:
    """The experiment's trainer, whose every step sees the same ready batch."""
    trainer = run.make_trainer(experiment)
    batch = next(iter(experiment.pipeline().batches(start_step=0, strategy=experiment.strategy)))
    trainer.train_dataset = tf.data.Dataset.from_tensors(batch).repeat()
    return trainer


def steps(trainer: Trainer, count: int) -> Callable[[], float]:
    """The work of taking so many steps in one call."""

    def work() -> float:
        trainer.train(tf.constant(count))
        return float(count)

    return work
