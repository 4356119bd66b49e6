"""Files that tools write."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from metassl_tf.engine.workdir import write_atomically
from metassl_tf.errors import UserError


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file in one go, so that nothing is ever half there."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


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
