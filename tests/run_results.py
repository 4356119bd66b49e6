"""What a run has left in its workdir, and whether two runs are the same."""

import json
from typing import Any

import numpy as np
import tensorflow as tf

from metassl_tf.data.splits import load_split
from metassl_tf.engine.workdir import Workdir

# What a run on another day, or in two parts, may differ in.
_CLOCKS = ("seconds", "examples_per_second")


def evaluations(workdir: Workdir) -> list[dict[str, Any]]:
    """All rows of `metrics.jsonl` but their times."""
    rows = [json.loads(line) for line in workdir.metrics.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in _CLOCKS} for row in rows]


def final_variables(workdir: Workdir) -> dict[str, np.ndarray]:
    """Everything in the newest checkpoint: weights, optimizer state, averages, step and sums."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(workdir.checkpoints)))
    # The counter counts the checkpoints that this and earlier starts have written.
    names = [
        name for name in reader.get_variable_to_dtype_map() if not name.startswith(("save_counter", "_CHECKPOINT"))
    ]
    return {name: reader.get_tensor(name) for name in names}


def assert_same_variables(left: Workdir, right: Workdir, *, tolerance: float = 0.0) -> None:
    """Asserts that the newest checkpoints of two runs hold the same, up to a relative tolerance."""
    expected, found = final_variables(left), final_variables(right)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance / 10, err_msg=name)


def assert_same_run(left: Workdir, right: Workdir) -> None:
    """Asserts that two runs are equal to the last bit."""
    assert load_split(str(left.splits)).hash == load_split(str(right.splits)).hash
    assert evaluations(left) == evaluations(right)
    assert_same_variables(left, right)
