"""Files that a tool writes where its user says."""

from pathlib import Path

from absl import flags

from metassl_tf.errors import UserError


def output_file(flag: flags.FlagHolder[str]) -> Path:
    """Returns the file that a flag names, before anything is computed for it.

    Raises:
      UserError: there is no folder for it, or it is a folder.
    """
    path = Path(flag.value)
    if path.is_dir():
        raise UserError(f"--{flag.name}={path} is a folder. Expected the file to write.")
    if not path.parent.is_dir():
        raise UserError(f"--{flag.name}={path} cannot be written: there is no folder {path.parent}. Make it first.")
    return path
