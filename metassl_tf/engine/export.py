"""What a run is for: a model that others load, as a SavedModel (`export/`) and as a Keras file (`model.keras`).

Both take raw examples, with the normalisation inside, and return probabilities. The SavedModel needs nothing but
TensorFlow to load, and takes batches of any size:

* `serving_default`: uint8 `images` [N, H, W, C], or float32 `points` [N, D];
* `serving_bytes`, for images: `encoded` [N], the contents of image files of any size, decoded and resized by the
  function that training uses;
* both return `probabilities` float32 [N, classes], `class_id` int64 [N] and `class_name` string [N].

The Keras file maps uint8 `images` (or `points`) to probabilities: Rescaling, the network as one layer (normalised
inputs to logits), Softmax. The layers around the network have no variables, so `--init_from` reads it too.

Beside the model lies the `Interface`: in `export/assets.extra/interface.json` and as `interface.json` in the Keras
file, which is a zip archive.
"""

import dataclasses
import logging
import shutil
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from metassl_tf.data.images import decode_image
from metassl_tf.engine import interface as interface_lib
from metassl_tf.engine.interface import Interface
from metassl_tf.errors import UserError

_logger = logging.getLogger(__name__)

# TensorFlow's folder for files that travel with a SavedModel and that it does not read itself.
_EXTRA = "assets.extra"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """What an export wrote.

    Attributes:
      saved_model: folder of the SavedModel.
      keras_model: the Keras file; None where the model cannot be written as one.
    """

    saved_model: Path
    keras_model: Path | None


def serving_model(network: keras.Model, interface: Interface) -> keras.Model:
    """Puts normalisation before a network and the softmax behind it.

    Args:
      network: from normalised inputs to logits.
      interface: of the run.

    Returns:
      A model from raw examples, uint8 [N, H, W, C] or float32 [N, D], to probabilities float32 [N, classes].
    """
    raw = interface.raw
    inputs = keras.Input(interface.shape, dtype=raw.dtype.name, name=raw.name)
    normalized = inputs
    if interface.normalization is not None:
        scale, offset = interface.normalization.scale_and_offset(interface.shape[-1])
        normalized = keras.layers.Rescaling(
            scale.tolist(),
            offset.tolist(),
            dtype="float32",  # also where the network computes in lower precision
            name="normalization",
        )(inputs)
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(network(normalized))
    return keras.Model(inputs, probabilities, name="classifier")


def export_network(network: keras.Model, interface: Interface, *, saved_model: Path, keras_model: Path) -> Exported:
    """Writes a trained network in both formats, each in the place of an older one.

    Args:
      network: from normalised inputs to logits.
      interface: of the run.
      saved_model: folder of the SavedModel.
      keras_model: the Keras file.

    Returns:
      What was written.

    Raises:
      UserError: the disk is full or cannot be written, or `saved_model` is a folder of something else.
    """
    model = serving_model(network, interface)
    try:
        saved_model.parent.mkdir(parents=True, exist_ok=True)
        _replace_folder(saved_model, lambda folder: _write_saved_model(model, interface, folder))
        written = _write_keras(model, interface, keras_model)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"The model could not be exported to {saved_model.parent}: {_reason(error)}. Expected a folder that "
            "can be written and enough space. The checkpoints are intact; export them with metassl_tf.export."
        ) from error
    return Exported(saved_model=saved_model, keras_model=keras_model if written else None)


def _reason(error: Exception) -> str:
    """An error of TensorFlow or Keras, which may be a page, in one line."""
    return textwrap.shorten(str(error).rstrip(". \n"), 200, placeholder=" ...")


def _write_saved_model(model: keras.Model, interface: Interface, folder: Path) -> None:
    names = tf.constant(interface.class_names)

    def outputs(raw: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = model(raw, training=False)
        class_id = tf.argmax(probabilities, axis=1, output_type=tf.int64)
        return {"probabilities": probabilities, "class_id": class_id, "class_name": tf.gather(names, class_id)}

    def decoded_outputs(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        height, width, channels = interface.shape
        spec = tf.TensorSpec(interface.shape, tf.uint8)
        shape = (height, width, channels)
        return outputs(tf.map_fn(lambda content: decode_image(content, shape), encoded, fn_output_signature=spec))

    signatures = {"serving_default": tf.function(outputs, input_signature=[interface.raw])}
    if interface.takes_images:
        encoded_spec = tf.TensorSpec([None], tf.string, name="encoded")
        signatures["serving_bytes"] = tf.function(decoded_outputs, input_signature=[encoded_spec])
    module = tf.Module()
    # A SavedModel holds the variables that its root refers to; the Keras layers themselves stay behind.
    module.model_variables = [variable.value for variable in model.variables]
    tf.saved_model.save(module, str(folder), signatures=signatures)
    extra = folder / _EXTRA
    extra.mkdir()
    (extra / interface_lib.FILE_NAME).write_bytes(interface.to_json())


def _replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Writes a SavedModel's folder beside its place and then moves it there: a kill never leaves a half one."""
    if folder.exists() and not (folder / "saved_model.pb").is_file():
        raise UserError(
            f"{folder} exists and is not a SavedModel, so it is not replaced. Move it away, or choose another --output."
        )
    partial, old = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        write(partial)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    finally:
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _write_keras(model: keras.Model, interface: Interface, path: Path) -> bool:
    """Writes the Keras file; returns False, with a warning, where the model's own layers do not allow it."""
    partial = path.with_name(f".{path.stem}.partial.keras")  # Keras insists on the ending
    try:
        model.save(partial)
    # Saving calls get_config of the user's own layers, which nothing has called before. A layer has none
    # (NotImplementedError), or one that fails (AttributeError) or returns what JSON cannot hold: objects (TypeError),
    # bytes that are no text (ValueError). Tests show that Keras raises each, and no other kind is caught: a full disk
    # stays an error. A network that is trained, and served already, is worth more than this file: the warning says what
    # is missing, why, and how to have it, and the return value tells the caller.
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        _logger.warning(
            "%s is not written: a layer of the model cannot be serialised (%s). Give it get_config and "
            "keras.saving.register_keras_serializable to have the file. The SavedModel is not affected.",
            path,
            _reason(error),
        )
        return False
    else:
        with zipfile.ZipFile(partial, "a") as archive:
            archive.writestr(interface_lib.FILE_NAME, interface.to_json())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return True


def read_saved_model(folder: Path) -> tuple[Any, Interface]:
    """Loads a SavedModel that `export_network` wrote.

    Returns:
      The loaded object, to be kept as long as its signatures are used, and the interface.

    Raises:
      UserError: it is not one, or damaged.
    """
    extra = folder / _EXTRA / interface_lib.FILE_NAME
    if not extra.is_file():
        raise UserError(
            f"{folder} is a SavedModel without {_EXTRA}/{interface_lib.FILE_NAME}. Expected one that metassl_tf.train "
            "or metassl_tf.export wrote."
        )
    interface = interface_lib.from_json(extra.read_bytes(), source=str(extra))
    try:
        return tf.saved_model.load(str(folder)), interface
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        raise UserError(
            f"The SavedModel {folder} cannot be loaded: {_reason(error)}. Export it again with "
            "python -m metassl_tf.export."
        ) from error


def read_keras(path: Path) -> tuple[keras.Model, Interface]:
    """Loads a Keras file that `export_network` wrote.

    Returns:
      The model from raw examples to probabilities, and the interface.

    Raises:
      UserError: it is not one, or damaged, or has layers that are not Keras' own.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(interface_lib.FILE_NAME)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(
            f"{path} holds no {interface_lib.FILE_NAME}. Expected a .keras file that metassl_tf.train or "
            "metassl_tf.export wrote."
        ) from error
    interface = interface_lib.from_json(text, source=f"{interface_lib.FILE_NAME} in {path}")
    try:
        return keras.models.load_model(path, compile=False), interface
    except (AttributeError, OSError, TypeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be loaded: {_reason(error)}. A model with layers of its own needs "
            "their code: score its export folder instead."
        ) from error
