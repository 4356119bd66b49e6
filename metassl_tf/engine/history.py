"""`metrics.jsonl`: a line per evaluation, in step with the checkpoints.

A line is on the disk before the checkpoint of its step is written, so that the file always reaches at least as far
as the newest checkpoint; what lies behind the restored step is cut off on resume and written again, the same.
"""

import json
from pathlib import Path
from typing import Any

from metassl_tf.engine.workdir import write_atomically

Row = dict[str, Any]


class History:
    """The evaluations of a run so far.

    Attributes:
      rows: one dict per evaluation, by rising `step`.
    """

    def __init__(self, path: Path, *, restored_step: int) -> None:
        """Reads the file and cuts it to the restored step.

        Args:
          path: `metrics.jsonl`; need not exist.
          restored_step: steps taken before this start; rows behind it are dropped.
        """
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        rows = [row for row in map(_parsed, lines) if row]
        self.rows: list[Row] = [row for row in rows if row["step"] <= restored_step and restored_step > 0]
        text = "".join(_line(row) for row in self.rows)
        if lines and path.read_text() != text:
            write_atomically(path, lambda file: file.write(text.encode()))

    def append(self, row: Row) -> None:
        """Adds one evaluation, on the disk when this returns."""
        self.rows.append(row)
        with self._path.open("ab") as file:
            file.write(_line(row).encode())
            file.flush()


def _parsed(line: str) -> Row | None:
    """A row, or None for the half line that a kill or a full disk can leave at the end."""
    try:
        row: Row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"
