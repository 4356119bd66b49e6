"""`--init_from` and `--init_teacher_from`: begin with the weights of another run, and with nothing else of it."""

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from metassl_tf.engine.checkpoints import first_line
from metassl_tf.engine.interface import FILE_NAME, from_json
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.variables import statistics

_EXPECTED = "Expected a workdir, a checkpoint in one (such as DIR/best/step-100), or a .keras file"


def initialize(
    learner: Learner,
    source: str,
    *,
    flag: str = "--init_from",
    model_flag: str = "--model",
    classes: Sequence[str] | None = None,
) -> None:
    """Copies weights into a learner's model and its moving average.

    Of a run, the averaged weights are taken. The last layer is left as initialised where its shape differs.

    Args:
      learner: freshly initialised.
      source: workdir, checkpoint prefix, or `.keras` file.
      flag: that names it, for messages.
      model_flag: that names the learner's model, for messages.
      classes: names in the order of the model's outputs, for a model that is not to learn them: then the last layer has
        to fit as well, and the source, where it says so, to have these classes.

    Raises:
      UserError: there is nothing to read, or the model differs in more than its last layer, or in its classes.
    """
    try:
        if classes is not None:
            _check_classes(source, classes, flag)
        values = (_from_keras if source.endswith(".keras") else _from_checkpoint)(source, flag)
    except PermissionError as error:
        raise UserError(f"{flag}={source} cannot be read: {error.strerror}. {_EXPECTED}, that you may read.") from error
    model_variables = learner.state_variables["model"]
    if len(values) != len(model_variables):
        raise UserError(
            f"{flag}={source} has {len(values)} variables, the model has {len(model_variables)}. "
            f"Expected the same {model_flag} with the same settings."
        )
    head = {id(variable.value) for variable in learner.model.layers[-1].trainable_variables}
    for variable, average, value in zip(model_variables, learner.state_variables["ema"], values, strict=True):
        if variable.shape == value.shape:
            variable.assign(value)
            average.assign(value)
        elif id(variable) in head and classes is None:
            logging.warning(
                "%s: %s has shape %s there and %s here; it starts from random values.",
                flag,
                variable.name,
                list(value.shape),
                variable.shape.as_list(),
            )
        else:
            raise UserError(
                f"{flag}={source}: variable {variable.name} has shape {list(value.shape)} there and "
                f"{variable.shape.as_list()} here. Expected the same {model_flag} with the same settings."
            )


def _check_classes(source: str, expected: Sequence[str], flag: str) -> None:
    """Compares with the classes that a run or a file of one has stored beside its weights."""
    text = _interface_text(source)
    if text is None:
        return
    classes = from_json(text, source=f"{FILE_NAME} of {source}").class_names
    if classes == tuple(expected):
        return
    place = next((k for k, pair in enumerate(zip(classes, expected, strict=False)) if pair[0] != pair[1]), None)
    difference = "" if place is None else f", the first other one {classes[place]!r} there and {expected[place]!r} here"
    raise UserError(
        f"{flag}={source} tells {len(classes)} classes apart and the data have {len(expected)}{difference}. Expected "
        "the same ones in the same order: a teacher that does not learn labels with what it has."
    )


def _interface_text(source: str) -> bytes | None:
    """What a source says of its classes: a `.keras` file in itself, a workdir beside its checkpoints."""
    path = Path(source)
    if source.endswith(".keras"):
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            return archive.read(FILE_NAME) if FILE_NAME in archive.namelist() else None
    places = (folder / FILE_NAME for folder in (path, *path.parents[:2]))  # DIR, or DIR/best/step-100
    return next((place.read_bytes() for place in places if place.is_file()), None)


def _from_checkpoint(source: str, flag: str) -> list[np.ndarray]:
    path = source
    if Path(source).is_dir():
        path = tf.train.latest_checkpoint(str(Workdir(source).checkpoints)) or source
    if not Path(f"{path}.index").is_file():
        raise UserError(f"{flag}={source} holds no weights. {_EXPECTED}.")
    values: list[np.ndarray] = []
    try:
        reader = tf.train.load_checkpoint(path)
        while reader.has_tensor(name := f"ema/{len(values)}/.ATTRIBUTES/VARIABLE_VALUE"):
            values.append(reader.get_tensor(name))
    except (tf.errors.OpError, RuntimeError, ValueError, LookupError) as error:
        raise UserError(f"{flag}={source} is damaged: {first_line(error)}. {_EXPECTED}.") from error
    return values


def _from_keras(source: str, flag: str) -> list[np.ndarray]:
    if not Path(source).is_file():
        raise UserError(f"{flag}={source} does not exist. {_EXPECTED}.")
    try:
        model = keras.models.load_model(source, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError, LookupError, zipfile.BadZipFile) as error:
        raise UserError(f"{flag}={source} cannot be read: {first_line(error)}. {_EXPECTED}.") from error
    return [variable.numpy() for variable in (*model.trainable_variables, *statistics(model))]
