"""A run's network with its trained weights, on the plain variables of this process: what is exported and predicts.

The devices of the run do not matter here, nor do its training data.
"""

import dataclasses
from pathlib import Path
from typing import Literal, get_args

import keras
import tensorflow as tf

from metassl_tf.algorithms.base import Parameters
from metassl_tf.config import Config
from metassl_tf.data.views import ImageViews
from metassl_tf.engine import interface as interface_lib
from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.interface import Interface
from metassl_tf.engine.networks import build_network
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from metassl_tf.learner.variables import statistics

Checkpoint = Literal["last", "best", "fine_tuned"]
CHECKPOINTS: tuple[Checkpoint, ...] = get_args(Checkpoint)

# What a learner calls these weights in its checkpoints.
_ROLES = {"raw": "model", "ema": "ema"}


def interface_of(experiment: Experiment) -> Interface:
    """Returns what a run's model takes and returns."""
    views = experiment.views
    return Interface(
        shape=experiment.dataset.train.shape,
        class_names=experiment.dataset.class_names,
        normalization=views.normalization if isinstance(views, ImageViews) else None,
    )


def averaged_network(experiment: Experiment) -> keras.Model:
    """Returns a run's network with the moving average of its weights, batch norm's statistics included."""
    network = _untrained(experiment.config, interface_of(experiment))
    for variable, average in zip(_variables(network), experiment.learner.state_variables["ema"], strict=True):
        variable.assign(average.numpy())
    return network


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedRun:
    """A workdir, to take networks from.

    Attributes:
      workdir: the folder.
      config: of the run.
      interface: of the run.
    """

    workdir: Workdir
    config: Config
    interface: Interface

    def network(self, *, checkpoint: Checkpoint, parameters: Parameters) -> tuple[keras.Model, int]:
        """Builds the network with the weights of a checkpoint.

        Args:
          checkpoint: `last`, the newest intact one, `best`, the one that did best on validation, or `fine_tuned`, what
            the phase behind the training has made.
          parameters: `raw` for the trained weights, `ema` for their moving average.

        Returns:
          A model from normalised inputs to logits, and the step that its weights are of.

        Raises:
          UserError: there is no such checkpoint, or it is damaged or not of this run.
        """
        folder = {
            "last": self.workdir.checkpoints,
            "best": self.workdir.best,
            "fine_tuned": self.workdir.fine_tuned,
        }[checkpoint]
        network = _untrained(self.config, self.interface)
        path = Checkpoints(folder, {_ROLES[parameters]: _variables(network)}).restore_newest()
        if path is None:
            raise UserError(self._missing(checkpoint, folder))
        return network, int(path.rsplit("-", 1)[1])

    def _missing(self, checkpoint: Checkpoint, folder: Path) -> str:
        if checkpoint == "last" or not any(self.workdir.checkpoints.glob("step-*.index")):
            return (
                f"{folder} holds no checkpoint yet. Expected one that metassl_tf.train wrote: train with "
                f"--workdir={self.workdir.root} first."
            )
        if checkpoint == "fine_tuned":
            return (
                f"{folder} holds no checkpoint: the run has no such phase, or has not come to it. Expected one with a "
                "teacher and --fine_tune_steps; take --checkpoint=last of this one."
            )
        return (
            f"{folder} holds no checkpoint: the run has no validation set to choose the best by, or has not evaluated "
            "yet. Take the last one with --checkpoint=last, or train in another --workdir with --num_validation."
        )


def open_run(workdir: Workdir, config: Config) -> TrainedRun:
    """Opens a workdir whose run has started; it need not have ended.

    Args:
      workdir: the folder.
      config: what its `config.flags` says.

    Returns:
      The run.

    Raises:
      UserError: the run has not come far enough to have weights, or `interface.json` is damaged.
    """
    if not workdir.interface.is_file():
        raise UserError(
            f"{workdir.root} holds no {interface_lib.FILE_NAME}, so its run has not begun. Expected a workdir with at "
            f"least one checkpoint: train with --workdir={workdir.root} first."
        )
    interface = interface_lib.from_json(workdir.interface.read_bytes(), source=str(workdir.interface))
    return TrainedRun(workdir=workdir, config=config, interface=interface)


def _untrained(config: Config, interface: Interface) -> keras.Model:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.run.precision)
    try:
        return build_network(config.student, interface.shape, len(interface.class_names))
    finally:
        keras.config.set_dtype_policy(policy)


def _variables(network: keras.Model) -> list[tf.Variable]:
    """What a checkpoint has of a network, in the learner's order: trainable variables, then moving statistics."""
    return [variable.value for variable in (*network.trainable_variables, *statistics(network))]
