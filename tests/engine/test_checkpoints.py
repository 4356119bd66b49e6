import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.engine.checkpoints import MAX_TO_KEEP, Checkpoints
from metassl_tf.errors import UserError


def variables(*values: float) -> dict[str, list[tf.Variable]]:
    return {"model": [tf.Variable([value, value]) for value in values], "run": [tf.Variable(1)]}


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def test_newest_is_restored(tmp_path: Path) -> None:
    state = variables(1.0, 2.0)
    checkpoints = Checkpoints(tmp_path, state)
    assert checkpoints.restore_newest() is None
    for step in range(9, 12):  # 10 sorts before 9 as text
        state["model"][0].assign([step, step])
        checkpoints.save(step)
    fresh = variables(0.0, 0.0)
    assert Checkpoints(tmp_path, fresh).restore_newest() == str(tmp_path / "step-11")
    np.testing.assert_array_equal(fresh["model"][0], [11, 11])
    np.testing.assert_array_equal(fresh["model"][1], [2, 2])
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "step-11")


def test_old_ones_are_deleted(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, variables(1.0))
    for step in range(6):
        checkpoints.save(step)
    assert len(list(tmp_path.glob("*.index"))) == MAX_TO_KEEP


@pytest.mark.parametrize("suffix", [".data-00000-of-00001", ".index"])
def test_damaged_one_is_named_and_passed_over(suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = variables(1.0)
    checkpoints = Checkpoints(tmp_path, state)
    checkpoints.save(1)
    state["model"][0].assign([5.0, 5.0])
    checkpoints.save(2)
    spoil(tmp_path / f"step-2{suffix}")
    fresh = variables(0.0)
    assert Checkpoints(tmp_path, fresh).restore_newest() == str(tmp_path / "step-1")
    assert "step-2 is damaged" in caplog.text
    np.testing.assert_array_equal(fresh["model"][0], [1, 1])


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, variables(1.0))
    checkpoints.save(1)
    spoil(tmp_path / "step-1.data-00000-of-00001")
    with pytest.raises(UserError, match="All 1 checkpoints"):
        checkpoints.restore_newest()


def test_foreign_shapes_are_an_error(tmp_path: Path) -> None:
    Checkpoints(tmp_path, variables(1.0)).save(1)
    state = {"model": [tf.Variable(np.zeros(3, np.float32))], "run": [tf.Variable(1)]}
    with pytest.raises(UserError, match=r"shape \[2\] there and \[3\] here"):
        Checkpoints(tmp_path, state).restore_newest()
    with pytest.raises(UserError, match="none there"):
        Checkpoints(tmp_path, variables(1.0, 1.0)).restore_newest()


_FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np, tensorflow as tf
from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.errors import UserError
folder = Path(sys.argv[1])
variable = tf.Variable(np.zeros(100_000, np.float32))
checkpoints = Checkpoints(folder, {"model": [variable]})
checkpoints.save(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
variable.assign(tf.ones_like(variable))
try:
    checkpoints.save(2)
except UserError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert Checkpoints(folder, {"model": [variable]}).restore_newest() == str(folder / "step-1")
assert variable.numpy().sum() == 0
"""


def test_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    # A limit on file size makes writing fail as a full disk does, without filling one.
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "The checkpoint of step 2 could not be written" in done.stdout
    assert "step-1 is intact" in done.stdout
