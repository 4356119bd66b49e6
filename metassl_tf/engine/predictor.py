"""A trained model that predicts, whatever form it is kept in: a workdir, an export or a Keras file."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from metassl_tf.data.examples import Examples
from metassl_tf.data.views import reader
from metassl_tf.engine.export import read_keras, read_saved_model
from metassl_tf.engine.interface import Interface
from metassl_tf.errors import UserError


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

    @property
    def exported(self) -> str:
        """Which of `logits` are those of the weights that are exported."""
        return list(self.logits)[-1]


def from_saved(path: Path, *, flag: str = "--saved_model") -> Predictor:
    """Makes the predictor of an export folder or a Keras file.

    Args:
      path: what `metassl_tf.engine.export.export_network` wrote.
      flag: that names it, for messages.

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
            f"{flag}={path} {found}.{hint} Expected an export folder or a .keras file, such as DIR/export or "
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
    with tqdm(total=len(examples), unit=" examples", disable=None) as progress:
        parts = []
        for part in predict_batches(predictor, examples, batch_size=batch_size):
            parts.append(part)
            progress.update(len(part[predictor.exported]))
    return {kind: np.concatenate([part[kind] for part in parts]) for kind in predictor.logits}


def predict_batches(predictor: Predictor, examples: Examples, *, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Predicts examples batch by batch; see `predict_examples`.

    Yields:
      Name of each kind of weights -> logits float32 [batch, classes].
    """
    read = reader(examples)
    batches = tf.data.Dataset.range(len(examples)).batch(batch_size).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    for raw in batches.prefetch(2):
        yield {kind: logits(raw).numpy() for kind, logits in predictor.logits.items()}


def of_task(path: Path, *, flag: str, shape: tuple[int, ...], class_names: tuple[str, ...]) -> Predictor:
    """Makes the predictor of a trained model that is to label examples.

    Args:
      path: a workdir, whose export it is, an export or a Keras file.
      flag: that names it, for messages.
      shape: of the examples.
      class_names: of the examples.

    Returns:
      The predictor.

    Raises:
      UserError: it is no model, or one of other examples or classes.
    """
    if (path / "config.flags").is_file() and not (path / "export").is_dir():
        raise UserError(
            f"{flag}={path} is the workdir of a run that has not ended, so that it holds no export. Expected one that "
            "has: give its training command again, or take what it has learned so far with python -m metassl_tf.export."
        )
    predictor = from_saved(path / "export" if (path / "export").is_dir() else path, flag=flag)
    interface = predictor.interface
    if interface.shape != shape or set(interface.class_names) != set(class_names):
        raise UserError(
            f"{flag}={path} is a model of examples {list(interface.shape)} and of the classes "
            f"{', '.join(interface.class_names)}; here they are {list(shape)} and {', '.join(class_names)}. "
            "Expected a model of the same: train it with the same --dataset and --image_size."
        )
    return predictor
