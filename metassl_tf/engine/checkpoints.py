"""Checkpoints of a run: written atomically, the newest intact one restored, a foreign one refused."""

import logging
import re
from pathlib import Path

import tensorflow as tf

from metassl_tf.errors import UserError

_logger = logging.getLogger(__name__)

MAX_TO_KEEP = 3


class Checkpoints:
    """Saves and restores everything that survives a step.

    The format is `tf.train.Checkpoint`'s. TensorFlow writes the data under a temporary name and the state file,
    which names the newest, last: a kill at any moment leaves the checkpoint before.
    """

    def __init__(self, folder: Path, state: dict[str, list[tf.Variable]], *, max_to_keep: int = MAX_TO_KEEP) -> None:
        """Prepares saving.

        Args:
          folder: of the checkpoints; made when the first is written.
          state: role -> variables in a fixed order; the role and the position name a variable in the file.
          max_to_keep: how many of the newest stay.
        """
        self._state = state
        self._folder = folder
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(**state), str(folder), max_to_keep=max_to_keep, checkpoint_name="step"
        )

    def save(self, step: int) -> None:
        """Writes a checkpoint.

        Raises:
          UserError: it cannot be written; the last one is as it was.
        """
        try:
            self._manager.save(checkpoint_number=step)
        except (OSError, tf.errors.OpError) as error:
            last = self._manager.latest_checkpoint
            raise UserError(
                f"The checkpoint of step {step} could not be written in {self._folder}: {first_line(error)}. "
                f"{f'{Path(last).name} is intact' if last else 'No earlier one is in that folder'}. "
                "Free some space and give the same command again to resume."
            ) from error

    def restore_newest(self) -> str | None:
        """Restores the newest intact checkpoint.

        Returns:
          Its path, or None where there is none.

        Raises:
          UserError: it does not fit the state, or checkpoints exist and all are damaged.
        """
        paths = _newest_first(self._folder)
        for path in paths:
            damage = _damage(path)
            if damage:
                _logger.warning("Checkpoint %s is damaged (%s); trying the one before it.", path, damage)
                continue
            self.restore(path)
            return path
        if paths:
            raise UserError(
                f"All {len(paths)} checkpoints in {self._folder} are damaged. Expected an intact one. "
                "Delete the folder to start over, or choose another --workdir."
            )
        return None

    def restore(self, path: str) -> None:
        """Restores one checkpoint.

        Raises:
          UserError: the variables in it are not those of this run.
        """
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        for role, variables in self._state.items():
            for position, variable in enumerate(variables):
                found = shapes.get(f"{role}/{position}/.ATTRIBUTES/VARIABLE_VALUE")
                if found is None or tf.TensorShape(found) != variable.shape:
                    raise UserError(
                        f"Checkpoint {path} is not of this run: variable {position} of {role} ({variable.name}) has "
                        f"shape {found or 'none'} there and {variable.shape.as_list()} here. Expected the same "
                        "model and optimizer; choose another --workdir."
                    )
        tf.train.Checkpoint(**self._state).restore(path).expect_partial()


def _newest_first(folder: Path) -> list[str]:
    """All checkpoints of a folder; the state file is not trusted, for it may be damaged as well."""
    prefixes = {str(path.with_suffix("")) for path in folder.glob("step-*.index")}
    return sorted(prefixes, key=lambda prefix: int(prefix.rsplit("-", 1)[1]), reverse=True)


def _damage(path: str) -> str | None:
    """Reads every tensor, which checks its checksum; returns what is wrong, or None."""
    try:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, RuntimeError, ValueError, LookupError) as error:
        return first_line(error)
    return None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without what only TensorFlow's own developers read.

    Args:
      error: any.

    Returns:
      The line without its full stop, or the name of the error's type where there is no message.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"\{\{function_node .*?\}\} | \[Op:\w+\].*", "", lines[0]).rstrip(".")
