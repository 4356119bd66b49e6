"""Predictions of a trained model, whatever form it is kept in: a workdir, an export or a Keras file."""

import csv
import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy.special import softmax
from tqdm import tqdm

from metassl_tf.config import Config
from metassl_tf.data.examples import Examples
from metassl_tf.data.image_files import list_images
from metassl_tf.data.images import EXTENSIONS, decode_image
from metassl_tf.data.views import reader
from metassl_tf.engine.csv_names import file_cell
from metassl_tf.engine.export import read_keras, read_saved_model
from metassl_tf.engine.interface import Interface
from metassl_tf.engine.trained import PARAMETERS, Checkpoint, Parameters, TrainedRun
from metassl_tf.errors import UserError

_logger = logging.getLogger(__name__)

_NAMED_AT_MOST = 5


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """A model that predicts.

    Attributes:
      interface: what it takes and returns.
      logits: `raw` and `ema` for a run, `model` for a saved model -> function from a batch of raw examples to float32
        [N, classes] whose softmax are the probabilities. The last one is the one that is exported.
      step: training step of the weights; None where it is not known.
    """

    interface: Interface
    logits: Mapping[str, Callable[[tf.Tensor], tf.Tensor]]
    step: int | None = None


def from_run(run: TrainedRun, checkpoint: Checkpoint) -> Predictor:
    """Makes the predictor of a workdir, with the trained weights and with their moving average.

    Args:
      run: the workdir.
      checkpoint: whose weights, `last` or `best`.

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


def from_saved(path: Path) -> Predictor:
    """Makes the predictor of an export folder or a Keras file.

    Args:
      path: what `metassl_tf.engine.export.export_network` wrote.

    Returns:
      The predictor.

    Raises:
      UserError: it is neither, or damaged.
    """
    if (path / "saved_model.pb").is_file():
        loaded, interface = read_saved_model(path)

        def probabilities(raw: tf.Tensor) -> tf.Tensor:
            return loaded.signatures["serving_default"](**{interface.raw.name: raw})["probabilities"]
    elif path.is_file():
        model, interface = read_keras(path)
        probabilities = tf.function(lambda raw: model(raw, training=False), input_signature=[interface.raw])
    else:
        hint = " It is a workdir: name it with --workdir." if (path / "config.flags").is_file() else ""
        found = "is no SavedModel: it has no saved_model.pb" if path.is_dir() else "does not exist"
        raise UserError(
            f"--saved_model={path} {found}.{hint} Expected an export folder or a .keras file, such as DIR/export or "
            "DIR/model.keras of a run."
        )
    smallest = np.finfo(np.float32).tiny  # a probability of 0 has no logarithm
    return Predictor(
        interface=interface, logits={"model": lambda raw: tf.math.log(tf.maximum(probabilities(raw), smallest))}
    )


def predict_examples(predictor: Predictor, examples: Examples, *, batch_size: int) -> dict[str, np.ndarray]:
    """Predicts examples of a dataset.

    Args:
      predictor: the model.
      examples: N examples of the model's shape.
      batch_size: examples per batch.

    Returns:
      Name of each kind of weights -> logits float32 [N, classes].
    """
    read = reader(examples)
    batches = tf.data.Dataset.range(len(examples)).batch(batch_size).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    parts: list[dict[str, np.ndarray]] = []
    with tqdm(total=len(examples), unit=" examples", disable=None) as progress:
        for raw in batches.prefetch(2):
            parts.append({kind: logits(raw).numpy() for kind, logits in predictor.logits.items()})
            progress.update(len(raw))
    return {kind: np.concatenate([part[kind] for part in parts]) for kind in predictor.logits}


def _predict_files(predictor: Predictor, paths: Sequence[str], batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the position and the logits of every image that can be decoded, in order."""
    height, width, channels = predictor.interface.shape
    logits = list(predictor.logits.values())[-1]

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
    listed = ", ".join(names[:_NAMED_AT_MOST])
    if len(names) > _NAMED_AT_MOST:
        listed += f" and {len(names) - _NAMED_AT_MOST:,} more"
    found = f"{len(names):,} of {total:,} images in {folder} cannot be decoded: {listed}."
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
