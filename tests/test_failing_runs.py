"""A run that cannot go on says why, ends with status 1, and keeps what was good."""

import json
import re
import resource
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.workdir import Workdir
from tests.command_line import error_of, run_here, start

TINY = ("--dataset=digits", "--num_labeled=20", "--batch_size=8", "--model=mlp", "--steps=12", "--unlabeled_ratio=2")


def kept_steps(workdir: Workdir) -> list[int]:
    """Steps of the checkpoints in a workdir, after a look at each that everything in it is finite."""
    paths = [str(path.with_suffix("")) for path in workdir.checkpoints.glob("step-*.index")]
    for path in paths:
        reader = tf.train.load_checkpoint(path)
        for name, kind in reader.get_variable_to_dtype_map().items():
            if kind.is_floating:
                assert np.isfinite(reader.get_tensor(name)).all(), f"{name} in {path}"
    return sorted(int(path.rpartition("-")[2]) for path in paths)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize(
    ("given", "expected", "kept"),
    [
        ("--learning_rate=1e30 --eval_steps=3", r"loss/\w+ became infinite or NaN at step 1\.", [1]),
        ("--l2_weight_decay=1e30 --eval_steps=3", r"gradient_norm became infinite or NaN at step 0\.", []),
        ("--l2_weight_decay=1e10 --learning_rate=1e30 --eval_steps=3", r"A weight \(.* before step 1\.", []),
        ("--learning_rate=1e30 --eval_steps=1", r"predictions with the raw weights became .* before step 1\.", []),
        ("--learning_rate=100 --eval_steps=1 --steps=99", r"became infinite or NaN (at|before) step [3-9]\.", None),
    ],
)
def test_run_that_leaves_the_reals_stops_and_keeps_good_checkpoints(
    given: str, expected: str, kept: list[int] | None, tmp_path: Path
) -> None:
    message = error_of([*TINY, *given.split(" "), "--checkpoint_steps=1", f"--workdir={tmp_path}"])
    assert re.search(rf"{expected} Expected .*finite .* Lower --learning_rate", message), message
    workdir = Workdir(tmp_path)
    steps = kept_steps(workdir)
    assert steps == kept or (kept is None and len(steps) > 1)
    assert not workdir.result.exists()
    for line in workdir.metrics.read_text().splitlines() if workdir.metrics.exists() else ():
        json.loads(line, parse_constant=refuse_constant)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the package catches it."""


def test_full_disk_ends_the_run_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [*TINY, "--checkpoint_steps=4", f"--workdir={tmp_path}"]
    save = Checkpoints.save

    def save_and_die(self: Checkpoints, step: int) -> None:
        save(self, step)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(Killed):
            run_here("train", given)
    process = start("train", given)
    # A limit on the size of files makes writing fail as a full disk does, without filling one.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    expected = (
        r"^error: The checkpoint of step 8 could not be written in .* File too large\. step-4 is intact\. Free some"
    )
    assert re.search(expected, errors.splitlines()[-1]), errors
    assert "Traceback" not in errors
    assert output == ""
    assert kept_steps(Workdir(tmp_path)) == [4]
    assert run_here("train", given) is None
    assert json.loads(Workdir(tmp_path).result.read_text())["step"] == 12
    assert kept_steps(Workdir(tmp_path)) == [4, 8, 12]
