"""The folder of a run: what is in it, and that it belongs to this run alone."""

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from metassl_tf.errors import UserError

_logger = logging.getLogger(__name__)

# Where data lie, and how they get there, is not what they are.
_MAY_CHANGE = ("--data_dir", "--download")
# What a full, read-only or forbidden disk says, and a limit on the size of files.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class Workdir:
    """Paths inside a workdir, named once.

    Attributes:
      root: the folder itself.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Names the paths; creates nothing."""
        self.root = Path(root)
        self.config = self.root / "config.flags"
        self.splits = self.root / "splits.npz"
        self.interface = self.root / "interface.json"
        self.checkpoints = self.root / "checkpoints"
        self.best = self.root / "best"
        self.fine_tuned = self.root / "fine_tuned"
        self.tensorboard = self.root / "tensorboard"
        self.metrics = self.root / "metrics.jsonl"
        self.weights = self.root / "weights.csv"
        self.result = self.root / "result.json"
        self.report = self.root / "report"
        self.export = self.root / "export"
        self.model = self.root / "model.keras"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Creates the folder and keeps other processes from training in it meanwhile.

        It is the system that holds the lock, for this process: one that is killed leaves nothing to clean up.

        Raises:
          UserError: the folder is a file or cannot be written, or another process trains in it.
        """
        with self._made_or_told():
            self.root.mkdir(parents=True, exist_ok=True)
            folder = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(folder)
            raise UserError(
                f"--workdir={self.root} is in use: another process trains in it. Expected one process at a time: wait "
                "until it ends, stop it, or choose another --workdir."
            ) from error
        except OSError as error:  # some network file systems
            _logger.warning(
                "%s cannot be locked (%s): let no other process train in it meanwhile.", self.root, error.strerror
            )
        try:
            yield
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _made_or_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"--workdir={self.root} cannot be made or written: {error.strerror}. Expected a folder that can be "
                "written: choose another --workdir."
            ) from error

    def claim(self, flagfile: str) -> None:
        """Creates the folder for a run, or recognises it as this run's to resume.

        A folder whose run never reached a checkpoint has nothing to lose: it becomes this run's, so that a mistake in
        the first command can be mended in the same folder. Data may have moved meanwhile: the stored split tells
        whether they are the same, and then `write_config` says where they are.

        Args:
          flagfile: the run's config, as `flagfile.to_flagfile` writes it.

        Raises:
          UserError: the folder is a file, cannot be written, or holds a run of another config.
        """
        with self._made_or_told():
            self.root.mkdir(parents=True, exist_ok=True)
            present = self.config.read_text() if self.config.exists() else ""
            if present == flagfile:
                return
            if not any(self.checkpoints.glob("step-*.index")):
                self.splits.unlink(missing_ok=True)
                self.write_config(flagfile)
                return
        difference = _first_difference(present, flagfile)
        if difference:
            raise UserError(
                f"--workdir={self.root} holds a run with other settings: it has {difference[0]}, this command has "
                f"{difference[1]}. Choose another --workdir, or repeat the settings in {self.config} to resume."
            )

    def write_config(self, flagfile: str) -> None:
        """Stores the settings that a claimed folder's run goes on with."""
        write_atomically(self.config, lambda file: file.write(flagfile.encode()))

    def existing_config(self) -> Path:
        """Returns the path of `config.flags`.

        Raises:
          UserError: there is none, so that this is not a workdir.
        """
        if not self.config.is_file():
            raise UserError(
                f"{self.root} is not a workdir: it has no config.flags. Expected a folder that "
                "metassl_tf.train wrote with --workdir."
            )
        return self.config


def _first_difference(present: str, wanted: str) -> tuple[str, str] | None:
    present_lines, wanted_lines = (
        [line for line in text.splitlines() if line.split("=")[0] not in _MAY_CHANGE] for text in (present, wanted)
    )
    only_present = [line for line in present_lines if line not in wanted_lines]
    only_wanted = [line for line in wanted_lines if line not in present_lines]
    if not only_present and not only_wanted:
        return None
    first = (only_present or only_wanted)[0].split("=")[0]
    same = [[line for line in lines if line.split("=")[0] == first] for lines in (only_present, only_wanted)]
    return (same[0] or [f"no {first}"])[0], (same[1] or [f"no {first}"])[0]


@contextlib.contextmanager
def disk_errors(folder: Path, *, kept: str = "The checkpoints are intact.") -> Iterator[None]:
    """Turns what a full or forbidden disk raises into an error that the user can mend.

    Args:
      folder: named where the error names no file.
      kept: a sentence on what is not lost.

    Raises:
      UserError: the body could not write.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise UserError(
            f"{error.filename or folder} could not be written: {error.strerror}. {kept} Free some "
            "space, or make the folder writable, and give the same command again to resume."
        ) from error


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file so that a kill in the middle leaves the old one, or none, and never a part.

    Args:
      path: the file.
      write: called with the open temporary file beside it.

    Raises:
      OSError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
