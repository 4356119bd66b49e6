"""How good a trained model is on a test set: that of its own run, or any other with the same classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metassl_tf.config import Config
from metassl_tf.data.examples import Examples
from metassl_tf.data.images import resize_images
from metassl_tf.data.sources import load_dataset
from metassl_tf.engine.interface import Interface
from metassl_tf.engine.metrics import evaluate_logits
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
    shape = interface.shape
    square = interface.takes_images and shape[0] == shape[1]
    dataset = load_dataset(
        data.dataset,
        settings=config.source,
        data_dir=data.data_dir,
        # Asked of the source, which resizes from the original. Only a source's own size can be other than square.
        image_size=shape[0] if square else 0,
        channels=shape[-1] if interface.takes_images else 0,
        download=data.download,
        strict_data=data.strict_data,
        split_seed=data.split_seed,
    )
    test = dataset.test
    if not np.any(test.labels >= 0):
        raise UserError(
            f"--dataset={data.dataset} has no labeled test examples, so there is nothing to score. Expected a test set: "
            "for an image folder, DIR/test/<class>/. Images without labels are predicted with --images and --predictions."
        )
    if test.shape != shape:
        test = _reshaped(test, interface, data.dataset)
    return test.relabeled(_class_positions(dataset.class_names, interface.class_names, data.dataset))


def _reshaped(test: Examples, interface: Interface, name: str) -> Examples:
    if len(test.shape) != len(interface.shape) or not interface.takes_images or test.streamed:
        raise UserError(
            f"--dataset={name} has examples of shape {list(test.shape)}, the model takes {list(interface.shape)}. "
            "Expected the same shape, or images for a model of images: choose another --dataset."
        )
    height, width, channels = interface.shape
    inputs = resize_images(test.inputs, (height, width, channels))
    return Examples(inputs, test.labels, interface.shape, test.names)


def _class_positions(found: Sequence[str], known: Sequence[str], name: str) -> np.ndarray:
    """Position in the model's classes of each class of a dataset, int64 [classes of the dataset]."""
    for class_name in found:
        if class_name not in known:
            raise UserError(
                f"--dataset={name} has the class {class_name!r}, which the model does not know. Expected only: "
                f"{', '.join(known)}.{near_match(class_name, list(known))}"
            )
    return np.array([known.index(class_name) for class_name in found], np.int64)


def score(logits: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, dict[str, Any]]:
    """Returns the metrics of each kind of weights; see `metrics.evaluate_logits`."""
    return {kind: evaluate_logits(values, labels) for kind, values in logits.items()}


def table(metrics: Mapping[str, Mapping[str, Any]], class_names: Sequence[str]) -> str:
    """Writes metrics as lines of text, a column for each kind of weights.

    Args:
      metrics: what `score` returned.
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
