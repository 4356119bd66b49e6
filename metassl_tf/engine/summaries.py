"""TensorBoard: scalars, images of the views, histograms of the weights, and HParams."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from metassl_tf.data.pipeline import Pipeline
from metassl_tf.data.views import ImageViews
from metassl_tf.engine.checkpoints import first_line
from metassl_tf.engine.history import Row
from metassl_tf.engine.results import SETS
from metassl_tf.engine.setup import Experiment
from metassl_tf.errors import UserError

_GRID_IMAGES = 16
# Of a picture of distributions, in pixels.
_MAP_WIDTH, _MAP_HEIGHT = 480, 160


class Summaries:
    """Writes the event files of one start of a run."""

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        """Opens an event file.

        Args:
          folder: TensorBoard's log folder.
          experiment: the run.

        Raises:
          UserError: the disk is full or cannot be written; so in every method.
        """
        self._experiment = experiment
        self._folder = folder
        with _disk_errors(folder):
            self._writer = tf.summary.create_file_writer(str(folder))

    def training(self, step: int, metrics: dict[str, float]) -> None:
        """Writes the training metrics of the last steps, and the learning rate."""
        with self._writing(step):
            for name, value in metrics.items():
                tf.summary.scalar(f"train/{name}", value)
            rates = self._experiment.training.learning_rates(tf.constant(step, tf.int64))
            for name, value in rates.items():
                tf.summary.scalar(f"train/{name}", value)

    def evaluation(self, step: int, row: Row) -> None:
        """Writes the metrics of one evaluation and histograms of the weights."""
        with self._writing(step):
            for name in (*SETS, *(f"teacher_{name}" for name in SETS)):
                for kind, metrics in row.get(name, {}).items():
                    for metric, value in metrics.items():
                        if isinstance(value, float):
                            tf.summary.scalar(f"{name}/{kind}/{metric}", value)
            for name, value in row.get("weights", {}).items():
                tf.summary.scalar(f"weights/{name}", value)
            for name, value in row.get("lessons", {}).items():
                if isinstance(value, float):
                    tf.summary.scalar(f"lessons/{name}", value)
            if "lessons" in row:
                targets = row["lessons"]["targets"]
                tf.summary.image("lessons/targets", target_map(targets, self._experiment.dataset.num_classes))
            if self._experiment.weighting:
                tf.summary.histogram("weights/weight", self._experiment.weighting.table.columns()["weight"])
            for variable in self._experiment.learner.model.trainable_variables:
                tf.summary.histogram(variable.path, variable.value)

    def views(self, pipeline: Pipeline) -> None:
        """Writes what the first batch looks like: a row of images per view."""
        grid = view_grid(self._experiment, pipeline)
        with self._writing(0):
            for name, images in grid.items():
                tf.summary.image(f"views/{name}", images, max_outputs=_GRID_IMAGES)

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the run's settings and final metrics for the HParams page."""
        config = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in self._experiment.config.values().items()
        }
        with self._writing(result["step"]):
            hparams.hparams(config)
            if result["test_accuracy"] is not None:
                tf.summary.scalar("test_accuracy", result["test_accuracy"])
        self._writer.close()

    @contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        """Makes the event file the default one; what was written is on the disk at the end."""
        with _disk_errors(self._folder), self._writer.as_default(step=step):
            yield


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turns what TensorFlow raises when it cannot write an event into an error that the user can mend."""
    try:
        yield
    except tf.errors.OpError as error:
        raise UserError(
            f"TensorBoard's events could not be written in {folder}: {first_line(error)}. The checkpoints are intact. "
            "Free some space and give the same command again to resume."
        ) from error


def target_map(targets: Sequence[Mapping[str, Any]], num_classes: int) -> np.ndarray:
    """Draws distributions, the brighter the more probable: a row for each example, a column for each class.

    Args:
      targets: what `lessons.plain_targets` has written of them.
      num_classes: number of columns.

    Returns:
      float32 [1, H, W, 1] in [0, 1].
    """
    grid = np.zeros((len(targets), num_classes), np.float32)
    for row, target in zip(grid, targets, strict=True):
        row[target["classes"]] = target["probabilities"]
    cell = np.ones((_MAP_HEIGHT // len(targets), max(1, _MAP_WIDTH // num_classes)), np.float32)
    return np.kron(grid, cell)[np.newaxis, :, :, np.newaxis]


def view_grid(experiment: Experiment, pipeline: Pipeline) -> dict[str, np.ndarray]:
    """The first images of the first batch under each view.

    Args:
      experiment: the run.
      pipeline: its batches.

    Returns:
      `labeled/<view>` and `unlabeled/<view>` -> uint8 [N, H, W, C]; empty where examples are no images.
    """
    if not isinstance(experiment.views, ImageViews):
        return {}
    batch = pipeline.batch_function()(tf.constant(0, tf.int64))
    return {
        f"{side}/{name}": experiment.views.normalization.denormalize(
            tf.convert_to_tensor(inputs)[:_GRID_IMAGES]
        ).numpy()
        for side, examples in (("labeled", batch.labeled), ("unlabeled", batch.unlabeled))
        for name, inputs in examples.views.items()
    }
