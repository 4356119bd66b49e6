"""A workdir belongs to one config, and its files are whole."""

import errno
import fcntl
import os
from pathlib import Path
from typing import IO
from unittest import mock

import pytest
import tensorflow as tf

from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.workdir import Workdir, disk_errors, write_atomically
from metassl_tf.errors import UserError

SETTINGS = "--steps=10\n--learning_rate=0.5\n"


def started(root: Path) -> Workdir:
    """A workdir whose run has reached a checkpoint."""
    workdir = Workdir(root)
    workdir.claim(SETTINGS)
    Checkpoints(workdir.checkpoints, {"run": [tf.Variable(1)]}).save(1)
    return workdir


def test_all_paths_lie_in_the_folder(tmp_path: Path) -> None:
    paths = {name: path for name, path in vars(Workdir(tmp_path)).items() if name != "root"}
    assert {path.parent for path in paths.values()} == {tmp_path}
    assert len(set(paths.values())) == len(paths)
    assert not any(tmp_path.iterdir())


def test_new_folder_is_made_and_recognised(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path / "runs" / "first")
    workdir.claim(SETTINGS)
    assert workdir.config.read_text() == SETTINGS
    assert workdir.existing_config() == workdir.config
    workdir.claim(SETTINGS)
    assert [path.name for path in workdir.root.iterdir()] == ["config.flags"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("--steps=20\n--learning_rate=0.5\n", "it has --steps=10, this command has --steps=20"),
        ("--steps=10\n", "it has --learning_rate=0.5, this command has no --learning_rate"),
        (SETTINGS + "--threshold=0.9\n", "it has no --threshold, this command has --threshold=0.9"),
    ],
)
def test_run_of_another_config_is_kept(settings: str, expected: str, tmp_path: Path) -> None:
    workdir = started(tmp_path)
    with pytest.raises(UserError, match=expected) as raised:
        workdir.claim(settings)
    assert "Choose another --workdir, or repeat the settings in" in str(raised.value)
    assert workdir.config.read_text() == SETTINGS


def test_order_of_settings_does_not_matter(tmp_path: Path) -> None:
    started(tmp_path).claim("".join(reversed(SETTINGS.splitlines(keepends=True))))


def test_data_may_have_moved(tmp_path: Path) -> None:
    """Whether they are the same says the stored split, before the settings on the disk change."""
    workdir = started(tmp_path)
    workdir.claim(SETTINGS + "--data_dir=elsewhere\n--download=true\n")
    assert workdir.config.read_text() == SETTINGS


def test_folder_without_a_checkpoint_takes_other_settings(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    workdir.claim(SETTINGS)
    workdir.splits.write_text("of the first settings")
    workdir.claim("--steps=20\n")
    assert workdir.config.read_text() == "--steps=20\n"
    assert not workdir.splits.exists()


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path / "runs" / "first")
    for _ in range(2):
        # A lock of its own for every opening: another process is refused as this one is.
        with (
            workdir.alone(),
            pytest.raises(UserError, match=r"--workdir=.*/first is in use: .* Expected one process.*: wait"),
            Workdir(workdir.root).alone(),
        ):
            pass
    assert not any(workdir.root.iterdir())


def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))))
    with Workdir(tmp_path).alone(), Workdir(tmp_path).alone():
        assert "let no other process train in it" in caplog.text


def test_folder_that_is_no_workdir_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a workdir: it has no config.flags. Expected a folder that"):
        Workdir(tmp_path).existing_config()


@pytest.mark.parametrize("operation", ["mkdir", "open"])
def test_folder_that_cannot_be_written_is_told(operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, operation, refuse)
    with pytest.raises(
        UserError, match=r"--workdir=.* cannot be made or written: Permission denied. Expected a folder"
    ):
        Workdir(tmp_path / "new").claim(SETTINGS)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EACCES])
def test_full_disk_is_told(number: int, tmp_path: Path) -> None:
    reason = os.strerror(number)
    expected = f"file could not be written: {reason}.*same command again"
    with pytest.raises(UserError, match=expected), disk_errors(tmp_path):
        raise OSError(number, reason, "file")
    with pytest.raises(UserError, match=f"{tmp_path} could not be written"), disk_errors(tmp_path):
        raise OSError(number, reason)


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "none").read_text()


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, lambda file: file.write(b"old"))

    def half(file: IO[bytes]) -> None:
        file.write(b"ne")
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["result.json"]
