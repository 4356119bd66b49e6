"""Predictions for files: of a workdir's model, or of any other, for a folder of images, as CSV."""

import csv
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy.special import softmax
from tqdm import tqdm

from metassl_tf.algorithms.base import Parameters
from metassl_tf.config import Config
from metassl_tf.data.image_files import list_images, listed
from metassl_tf.data.images import EXTENSIONS, decode_image
from metassl_tf.engine.csv_names import file_cell
from metassl_tf.engine.evaluator import PARAMETERS
from metassl_tf.engine.predictor import Predictor
from metassl_tf.engine.trained import Checkpoint, TrainedRun
from metassl_tf.errors import UserError

_logger = logging.getLogger(__name__)


def from_run(run: TrainedRun, checkpoint: Checkpoint) -> Predictor:
    """Makes the predictor of a workdir, with the trained weights and with their moving average.

    Args:
      run: the workdir.
      checkpoint: whose weights: `last`, `best` or `fine_tuned`.

    Returns:
      The predictor.

    Raises:
      UserError: there is no such checkpoint.
    """

    def function(parameters: Parameters) -> tuple[Callable[[tf.Tensor], tf.Tensor], int]:
        network, step = run.network(checkpoint=checkpoint, parameters=parameters)

        @tf.function(input_signature=[run.interface.raw])
        def logits(raw: tf.Tensor) -> tf.Tensor:
            return network(run.interface.normalize(raw), training=False)

        return logits, step

    functions = {kind: function(kind) for kind in PARAMETERS}
    steps = {step for _, step in functions.values()}
    return Predictor(
        interface=run.interface, logits={kind: logits for kind, (logits, _) in functions.items()}, step=max(steps)
    )


def _predict_files(predictor: Predictor, paths: Sequence[str], batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the position and the logits of every image that can be decoded, in order."""
    height, width, channels = predictor.interface.shape
    logits = predictor.logits[predictor.exported]

    def decode(position: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return position, decode_image(tf.io.read_file(path), (height, width, channels))

    images = tf.data.Dataset.from_tensor_slices(tf.constant(list(paths), tf.string)).enumerate()
    images = images.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).ignore_errors()
    with tqdm(total=len(paths), unit=" images", disable=None) as progress:
        for positions, raw in images.batch(batch_size).prefetch(2):
            yield from zip(positions.numpy().tolist(), logits(raw).numpy(), strict=True)
            progress.update(len(raw))


def predict_folder(predictor: Predictor, config: Config, folder: str, output: Path) -> int:
    """Writes predictions for every image in a folder and below it, a batch at a time.

    Args:
      predictor: the model; the weights that are exported predict.
      config: says the batch size, and with `strict_data` that an unreadable image is an error instead of being left out
        with a warning; its other settings do not matter.
      folder: of images in any size and format that `metassl_tf.data.images` decodes; their class is not needed.
      output: the CSV file; see `write_predictions`. Files are named relative to `folder`.

    Returns:
      Number of rows.

    Raises:
      UserError: no such folder, no images, a model of points, or an unreadable image where that is an error;
        `output` is then as it was before.
    """
    if not predictor.interface.takes_images:
        raise UserError("The model was trained on points, so it cannot score --images. Leave them out to score a set.")
    if not os.path.isdir(folder):
        raise UserError(f"There is no folder --images={folder}. Expected a folder of images.")
    paths = list_images(folder)
    if not paths:
        raise UserError(f"--images={folder} holds no images. Expected files that end in {' '.join(EXTENSIONS)}.")
    names = [os.path.relpath(path, folder) for path in paths]
    readable = np.zeros(len(paths), bool)

    def rows() -> Iterator[tuple[str, np.ndarray]]:
        for position, logits in _predict_files(predictor, paths, config.run.eval_batch_size):
            readable[position] = True
            yield names[position], logits
        unreadable = [names[position] for position in np.flatnonzero(~readable)]
        if unreadable:
            _report_unreadable(unreadable, len(paths), folder, strict_data=config.data.strict_data)

    return write_predictions(output, predictor.interface.class_names, rows())


def _report_unreadable(names: Sequence[str], total: int, folder: str, *, strict_data: bool) -> None:
    found = f"{len(names):,} of {total:,} images in {folder} cannot be decoded: {listed(names)}."
    if strict_data:
        raise UserError(f"{found} Expected only whole images: replace or delete these, or use --nostrict_data.")
    _logger.warning("%s They have no row; --strict_data makes this an error.", found)


def write_predictions(output: Path, class_names: Sequence[str], rows: Iterable[tuple[str, np.ndarray]]) -> int:
    """Writes predictions as CSV: `file`, `class`, `confidence`, and the probability of each class under its name.

    Args:
      output: the file; it appears when it is complete. A name that a spreadsheet would take for a formula is written
        with `./` before it, which names the same file.
      class_names: in the order of the logits.
      rows: name and logits [classes] of each example; may be read lazily.

    Returns:
      Number of rows, the header not counted.

    Raises:
      UserError: the file cannot be written.
    """
    partial = output.with_name(f".{output.name}.partial")
    count = 0
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "class", "confidence", *class_names])
            for name, logits in rows:
                probabilities = softmax(logits.astype(np.float64))
                best = int(probabilities.argmax())
                values = [f"{value:.7g}" for value in probabilities]
                writer.writerow([file_cell(name), class_names[best], values[best], *values])
                count += 1
        partial.replace(output)
    except OSError as error:
        raise UserError(
            f"--predictions={output} cannot be written: {error.strerror}. Expected a file in an existing folder with "
            "enough space."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return count
