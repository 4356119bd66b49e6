"""Exports a run's model: `python -m metassl_tf.export --workdir=runs/quickstart --checkpoint=best --output=served`.

Training does this at its end, for the last checkpoint's averaged weights; this program takes others, or takes them
while the run goes on. No training data are needed.
"""

from pathlib import Path

from absl import flags

from metassl_tf import flag_definitions
from metassl_tf.engine.evaluator import PARAMETERS
from metassl_tf.engine.export import export_network
from metassl_tf.engine.trained import CHECKPOINTS, open_run
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, as given to metassl_tf.train.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint",
    "last",
    CHECKPOINTS,
    "Weights of the last step, of the best on validation, or after fine-tuning.",
)
_PARAMETERS = flags.DEFINE_enum("parameters", "ema", PARAMETERS, "Trained weights, or their moving average.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder that gets export/ and model.keras; default: the workdir.")


def main() -> None:
    """Runs the command line."""
    flag_definitions.given((), why="an export: the workdir's own settings hold")
    if not _WORKDIR.value:
        raise UserError("--workdir is missing. Expected the folder of a run, as given to metassl_tf.train.")
    workdir = Workdir(_WORKDIR.value)
    run = open_run(workdir, flag_definitions.parse([f"--flagfile={workdir.existing_config()}"]))
    network, step = run.network(checkpoint=_CHECKPOINT.value, parameters=_PARAMETERS.value)
    target = Workdir(_OUTPUT.value or workdir.root)
    exported = export_network(network, run.interface, saved_model=Path(target.export), keras_model=Path(target.model))
    print(f"step           {step}, {_CHECKPOINT.value} checkpoint, {_PARAMETERS.value} weights")
    print(f"export         {exported.saved_model}")
    if exported.keras_model:
        print(f"Keras model    {exported.keras_model}")


if __name__ == "__main__":
    flag_definitions.run_binary(main)
