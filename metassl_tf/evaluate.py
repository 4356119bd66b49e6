"""Scores a trained model on a test set, or predicts a folder of images.

    python -m metassl_tf.evaluate --workdir=runs/quickstart
    python -m metassl_tf.evaluate --saved_model=runs/quickstart/export --images=photos --predictions=photos.csv

Of a workdir, the trained weights (raw) and their moving average (ema) are both scored; the average predicts.
"""

import dataclasses
from pathlib import Path

from absl import flags

from metassl_tf import flag_definitions
from metassl_tf.config import Config
from metassl_tf.data.sources import SOURCES
from metassl_tf.engine import predict, score
from metassl_tf.engine.predictor import Predictor, from_saved
from metassl_tf.engine.trained import CHECKPOINTS, open_run
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run, as given to metassl_tf.train.")
_SAVED_MODEL = flags.DEFINE_string("saved_model", None, "Instead of it, an export folder or a .keras file.")
_CHECKPOINT = flags.DEFINE_enum("checkpoint", None, CHECKPOINTS, "Of the workdir; default: last.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of images to predict, instead of a test set; needs no labels.")
_PREDICTIONS = flags.DEFINE_string("predictions", None, "CSV file for class, confidence and probabilities.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the metrics.")

_FOR_IMAGES = {"strict_data", "eval_batch_size"}
_OF_SOURCES = {field.name for source in SOURCES.values() for field in dataclasses.fields(source)}
_FOR_OWN_SET = _FOR_IMAGES | {"data_dir", "download", "memory_limit"}
_FOR_OTHER_DATA = _FOR_OWN_SET | _OF_SOURCES | {"dataset", "split_seed", "unknown_classes"}
for _name in sorted(_FOR_OTHER_DATA):
    flags.declare_key_flag(_name)


def _given() -> list[str]:
    """The settings of the data on the command line."""
    if _IMAGES.value:
        return flag_definitions.given(_FOR_IMAGES, why="a folder of images")
    if flags.FLAGS["dataset"].present:
        return flag_definitions.given(_FOR_OTHER_DATA, why="an evaluation")
    if _SAVED_MODEL.value:
        raise UserError("--saved_model needs a --dataset to be scored on, or --images. Neither is given.")
    return flag_definitions.given(_FOR_OWN_SET, why="a run's own set")


def _load() -> tuple[Predictor, Config]:
    """The model, and the config that names the data."""
    if bool(_WORKDIR.value) == bool(_SAVED_MODEL.value):
        received = "both" if _WORKDIR.value else "neither"
        raise UserError(
            f"Expected a run's --workdir or a --saved_model (export folder, .keras file). Received {received}."
        )
    given = _given()
    if _SAVED_MODEL.value:
        if _CHECKPOINT.value:
            raise UserError("--checkpoint has no effect on --saved_model, which holds one model. Leave it out.")
        return from_saved(Path(_SAVED_MODEL.value)), flag_definitions.parse(given)
    workdir = Workdir(_WORKDIR.value)
    own = [f"--flagfile={workdir.existing_config()}"]
    predictor = predict.from_run(open_run(workdir, flag_definitions.parse(own)), _CHECKPOINT.value or "last")
    return predictor, flag_definitions.parse(given if flags.FLAGS["dataset"].present else own + given)


def main() -> None:
    """Runs the command line."""
    if _IMAGES.value and (not _PREDICTIONS.value or _OUTPUT.value):
        raise UserError("--images have no labels to measure by. Expected --predictions=FILE.csv and no --output.")
    predictor, config = _load()
    if _IMAGES.value:
        count = predict.predict_folder(predictor, config, _IMAGES.value, Path(_PREDICTIONS.value))
        print(f"predicted {count:,} images")
    else:
        scores = score.evaluate(predictor, config)
        print(scores.describe())
        scores.write(predictions=_PREDICTIONS.value, metrics=_OUTPUT.value)
    for path in filter(None, (_PREDICTIONS.value, _OUTPUT.value)):
        print(f"written to {path}")


if __name__ == "__main__":
    flag_definitions.run_binary(main)
