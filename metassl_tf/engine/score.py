"""How good a trained model is on a test set: that of its own run, or any other with the same classes."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metassl_tf.config import Config
from metassl_tf.data.examples import Dataset, Examples
from metassl_tf.data.images import resize_images
from metassl_tf.data.pollution import separate_unknown_classes
from metassl_tf.data.sources import load_dataset
from metassl_tf.engine.interface import Interface
from metassl_tf.engine.load import check_sources
from metassl_tf.engine.metrics import evaluate_logits
from metassl_tf.engine.predict import write_predictions
from metassl_tf.engine.predictor import Predictor, predict_examples
from metassl_tf.engine.results import to_json
from metassl_tf.engine.workdir import write_atomically
from metassl_tf.errors import UserError, near_match

# Above this number the recalls stand in the JSON only.
_CLASSES_SHOWN = 20


def load_test_set(config: Config, interface: Interface) -> Examples:
    """Loads a test set for a model.

    Args:
      config: names the data; its other settings do not matter.
      interface: of the model. Images are resized and recolored to its shape.

    Returns:
      The test examples, labeled in the order of the model's classes.

    Raises:
      UserError: the data are missing, have no labeled test examples or classes that the model does not know, or are
        images for a model of points, or the other way round.
    """
    data = config.data
    dataset = _load(config, interface)
    if data.unknown_classes:
        dataset, _ = separate_unknown_classes(dataset, data.unknown_classes)
    test = dataset.test
    if not np.any(test.labels >= 0):
        raise UserError(
            f"--dataset={data.dataset} has no labeled test examples: there is nothing to score. Expected a test set, "
            "in an image folder DIR/test/<class>/. To predict images without labels use --images and --predictions."
        )
    if test.shape != interface.shape:
        test = _reshaped(test, interface, data.dataset)
    return test.relabeled(_class_positions(dataset.class_names, interface.class_names, data.dataset))


def _load(config: Config, interface: Interface) -> Dataset:
    data, shape = config.data, interface.shape
    check_sources(data)
    square = interface.takes_images and shape[0] == shape[1]
    try:
        return load_dataset(
            data.dataset,
            settings=config.source,
            data_dir=data.data_dir,
            # Asked of the source, which resizes from the original. Only a source's own size can be other than square.
            image_size=shape[0] if square else 0,
            channels=shape[-1] if interface.takes_images else 0,
            download=data.download,
            strict_data=data.strict_data,
            memory_limit=data.memory_limit,
            split_seed=data.split_seed,
        )
    except UserError as error:
        if not interface.takes_images:
            raise
        # Else a message about --image_size, which nobody gave, would be a riddle.
        raise UserError(f"{error} (The model takes images of shape {list(shape)}.)") from error


def _reshaped(test: Examples, interface: Interface, name: str) -> Examples:
    if test.streamed:
        return dataclasses.replace(test, shape=interface.shape)  # decoded to that shape when they are read
    if len(test.shape) != 3 or not interface.takes_images:
        raise UserError(
            f"--dataset={name} has examples of shape {list(test.shape)}, the model takes {list(interface.shape)}. "
            "Expected the same shape, or images for a model of images: choose another --dataset."
        )
    height, width, channels = interface.shape
    inputs = resize_images(test.inputs, (height, width, channels))
    return dataclasses.replace(test, inputs=inputs, shape=interface.shape)


def _class_positions(found: Sequence[str], known: Sequence[str], name: str) -> np.ndarray:
    """Position in the model's classes of each class of a dataset, int64 [classes of the dataset]."""
    for class_name in found:
        if class_name not in known:
            raise UserError(
                f"--dataset={name} has the class {class_name!r}, which the model does not know. Expected only: "
                f"{', '.join(known)}.{near_match(class_name, list(known))}"
            )
    return np.array([known.index(class_name) for class_name in found], np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """A model's predictions for a test set, and what they are worth.

    Attributes:
      predictor: the model.
      dataset: name of the data.
      test: the test set.
      logits: kind of weights -> float32 [N, classes].
      metrics: kind of weights -> metrics; see `metrics.evaluate_logits`.
    """

    predictor: Predictor
    dataset: str
    test: Examples
    logits: Mapping[str, np.ndarray]
    metrics: Mapping[str, Mapping[str, Any]]

    def describe(self) -> str:
        """Returns a heading and the metrics as a table."""
        step = "" if self.predictor.step is None else f", step {self.predictor.step:,}"
        heading = f"{self.dataset}: {len(self.test):,} test examples{step}"
        return f"{heading}\n{table(self.metrics, self.predictor.interface.class_names)}"

    def write(self, *, predictions: str | None = None, metrics: str | None = None) -> None:
        """Writes what is wanted of them.

        Args:
          predictions: CSV file of what the exported weights predict; see `predict.write_predictions`. Examples that
            are not files are named by their place in the test set.
          metrics: JSON file; the metrics are named as in `result.json`.

        Raises:
          UserError: a file cannot be written.
        """
        classes = self.predictor.interface.class_names
        if predictions:
            names = np.arange(len(self.test)).astype(str) if self.test.names is None else self.test.names
            logits = self.logits[self.predictor.exported]
            write_predictions(Path(predictions), classes, zip(names.tolist(), logits, strict=True))
        if metrics:
            content = {
                "dataset": self.dataset,
                "num_examples": len(self.test),
                "step": self.predictor.step,
                "classes": list(classes),
                "test": self.metrics,
            }
            try:
                write_atomically(Path(metrics), lambda file: file.write(to_json(content)))
            except OSError as error:
                raise UserError(
                    f"--output={metrics} cannot be written: {error.strerror}. Expected a file in an existing folder."
                ) from error


def evaluate(predictor: Predictor, config: Config) -> Scores:
    """Scores a model on a test set.

    Args:
      predictor: the model.
      config: names the data, and the batch size; its other settings do not matter.

    Returns:
      The scores.

    Raises:
      UserError: the data do not fit the model; see `load_test_set`.
    """
    test = load_test_set(config, predictor.interface)
    logits = predict_examples(predictor, test, batch_size=config.run.eval_batch_size)
    metrics = {kind: evaluate_logits(values, test.labels) for kind, values in logits.items()}
    return Scores(predictor=predictor, dataset=config.data.dataset, test=test, logits=logits, metrics=metrics)


def table(metrics: Mapping[str, Mapping[str, Any]], class_names: Sequence[str]) -> str:
    """Writes metrics as lines of text, a column for each kind of weights.

    Args:
      metrics: kind of weights -> metrics.
      class_names: of the model. With more than 20 the recall of each class is left out.

    Returns:
      The lines.
    """
    columns = list(metrics.values())
    rows = [("", list(metrics))]
    rows += [(name, [f"{column[name]:.4f}" for column in columns]) for name in columns[0] if name != "recall"]
    if len(class_names) <= _CLASSES_SHOWN:
        for label, class_name in enumerate(class_names):
            recalls = [column["recall"][label] for column in columns]
            rows.append((f"recall of {class_name}", ["-" if value is None else f"{value:.4f}" for value in recalls]))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}" + "".join(f"{value:>10}" for value in values) for name, values in rows)
