"""`--init_from` and `--init_teacher_from`: begin with the weights of another run, and with nothing else of it."""

import logging
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from metassl_tf.engine.checkpoints import first_line
from metassl_tf.engine.interface import FILE_NAME, Interface, from_json
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.variables import statistics

_logger = logging.getLogger(__name__)

# Of inputs whose standard deviation is about 1.
_SAME_INPUT = 0.1
_EXPECTED = "Expected a workdir, a checkpoint in one (such as DIR/best/step-100), or a .keras file"


def initialize(
    learner: Learner,
    source: str,
    *,
    role: str = "",
    interface: Interface | None = None,
    frozen: bool = False,
) -> None:
    """Copies weights into a learner's model and its moving average.

    Of a run, the averaged weights are taken. The last layer is left as initialised where its shape differs.

    Args:
      learner: freshly initialised.
      source: workdir, checkpoint prefix, or `.keras` file.
      role: `teacher` for one: it starts from the teacher where the source has one that it fits, as a workdir has and
        its best checkpoint has not. Empty for the run's own network.
      interface: what the learner takes and returns; compared with the source's, where it says what that was, and a
        difference in what it takes is a warning. None compares nothing.
      frozen: the learner is not to learn: then the last layer has to fit as well, and the source to take and to return
        the same.

    Raises:
      UserError: there is nothing to read, or the model differs in more than its last layer, or is frozen and differs in
        its classes or inputs.
    """
    flag, model_flag = (f"--init_{role}_from", f"--{role}_model") if role else ("--init_from", "--model")
    try:
        if interface is not None:
            _compare(source, interface, flag, frozen=frozen)
        values = (
            _from_keras(source, flag) if source.endswith(".keras") else _from_checkpoint(source, flag, role, learner)
        )
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
        elif id(variable) in head and not frozen:
            _logger.warning(
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


def _compare(source: str, expected: Interface, flag: str, *, frozen: bool) -> None:
    """Compares with what a run or a file of one has stored beside its weights."""
    text = _interface_text(source)
    if text is None:
        return
    found = from_json(text, source=f"{FILE_NAME} of {source}")
    if frozen:
        _check_classes(found, expected, f"{flag}={source}")
    taken = _what_it_takes(found), _what_it_takes(expected)
    if found.shape == expected.shape and _normalize_alike(found, expected):
        return
    if frozen:
        raise UserError(
            f"{flag}={source} was trained on {taken[0]}, and this run has {taken[1]}. Expected the same: a teacher "
            "that does not learn labels with what it has. Repeat its settings, such as --image_size and "
            "--normalization."
        )
    _logger.warning("%s: it was trained on %s, and this run has %s.", flag, *taken)


def _check_classes(found: Interface, expected: Interface, given: str) -> None:
    if found.class_names == expected.class_names:
        return
    pairs = list(zip(found.class_names, expected.class_names, strict=False))
    place = next((k for k, pair in enumerate(pairs) if pair[0] != pair[1]), None)
    difference = (
        "" if place is None else f", the first other one {pairs[place][0]!r} there and {pairs[place][1]!r} here"
    )
    raise UserError(
        f"{given} tells {len(found.class_names)} classes apart and the data have {len(expected.class_names)}"
        f"{difference}. Expected the same ones in the same order: a teacher that does not learn labels with what it "
        "has."
    )


def _what_it_takes(interface: Interface) -> str:
    kind, size = ("images" if interface.takes_images else "points"), " x ".join(map(str, interface.shape))
    if interface.normalization is None:
        return f"{kind} of {size}"
    mean, std = (
        ", ".join(f"{value:.3g}" for value in values)
        for values in (interface.normalization.mean, interface.normalization.std)
    )
    return f"{kind} of {size}, normalised by mean {mean} and standard deviation {std}"


def _normalize_alike(found: Interface, expected: Interface) -> bool:
    """Whether black and white are nearly the same to both networks: means of two samples never are quite the same."""
    if found.normalization is None or expected.normalization is None:
        return found.normalization is expected.normalization
    raw = tf.constant([0, 255], tf.uint8)[:, tf.newaxis] * tf.ones([expected.shape[-1]], tf.uint8)
    inputs = [normalization.normalize(raw) for normalization in (found.normalization, expected.normalization)]
    return bool(tf.reduce_all(tf.abs(inputs[0] - inputs[1]) < _SAME_INPUT))


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


def _from_checkpoint(source: str, flag: str, role: str, learner: Learner) -> list[np.ndarray]:
    path = source
    if Path(source).is_dir():
        path = tf.train.latest_checkpoint(str(Workdir(source).checkpoints)) or source
    if not Path(f"{path}.index").is_file():
        raise UserError(f"{flag}={source} holds no weights. {_EXPECTED}.")
    try:
        reader = tf.train.load_checkpoint(path)
        if role:
            values = _averages(reader, f"{role}_ema")
            if [value.shape for value in values[:1]] == [learner.ema[0].shape] and len(values) == len(learner.ema):
                return values
            if values:  # of another rule, one that calibrates stored labels
                _logger.warning("%s: the %s of that run is another network; the run's own one is taken.", flag, role)
        return _averages(reader, "ema")
    except (tf.errors.OpError, RuntimeError, ValueError, LookupError) as error:
        raise UserError(f"{flag}={source} is damaged: {first_line(error)}. {_EXPECTED}.") from error


def _averages(reader: Any, entry: str) -> list[np.ndarray]:
    values: list[np.ndarray] = []
    while reader.has_tensor(name := f"{entry}/{len(values)}/.ATTRIBUTES/VARIABLE_VALUE"):
        values.append(reader.get_tensor(name))
    return values


def _from_keras(source: str, flag: str) -> list[np.ndarray]:
    if not Path(source).is_file():
        raise UserError(f"{flag}={source} does not exist. {_EXPECTED}.")
    try:
        model = keras.models.load_model(source, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError, LookupError, zipfile.BadZipFile) as error:
        raise UserError(f"{flag}={source} cannot be read: {first_line(error)}. {_EXPECTED}.") from error
    return [variable.numpy() for variable in (*model.trainable_variables, *statistics(model))]
