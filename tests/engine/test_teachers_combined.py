"""A teacher, learned weights of its student's examples, and what they run on: together they do what each does alone.

Convolutions with batch normalisation; dropout where masks do not belong to a replica.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.config import Config
from metassl_tf.engine import run
from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.workdir import Workdir
from tests.run_results import assert_same_run, assert_same_variables, evaluations, final_variables

WEIGHTED = {
    "meta": "meta_pseudo_labels,per_example_weights",
    "num_meta_validation": 20,
    "weight_update_steps": 2,
    "weight_learning_rate": 0.1,
}
PLAIN = {"meta": "meta_pseudo_labels"}


@pytest.fixture
def config(tiny_config: Callable[..., Config]) -> Callable[..., Config]:
    """Makes configs of a UDA teacher whose learning rate is another one than its student's."""

    def make(**changes: Any) -> Config:
        common = {"algorithm": "uda", "threshold": 0.15, "temperature": 0.5, "teacher_learning_rate": 0.01, "steps": 6}
        return tiny_config(**{**common, "eval_steps": 3, "student_wait_steps": 2, **changes})

    return make


class Killed(BaseException):
    """The process died."""


def trained(config: Config, folder: Path, strategy: tf.distribute.Strategy | None = None) -> Workdir:
    workdir = Workdir(folder)
    run.train(config, workdir, strategy=strategy)
    return workdir


@pytest.fixture(autouse=True)
def _without_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reporting and exporting is the same for all."""
    monkeypatch.setattr(run.Run, "finish", lambda _: {})


def test_killed_run_with_weights_ends_the_same_to_the_last_bit(
    config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished, killed = trained(config(**WEIGHTED), tmp_path / "finished"), Workdir(tmp_path / "killed")
    save = Checkpoints.save

    def deadly(self: Checkpoints, step: int) -> None:
        save(self, step)
        if step == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", deadly)
        with pytest.raises(Killed):
            run.train(config(**WEIGHTED), killed)
    run.train(config(**WEIGHTED), killed)
    assert_same_run(finished, killed)
    roles = {name.split("/")[0] for name in final_variables(killed)}
    assert {"model", "slots", "ema", "teacher_model", "teacher_slots", "teacher_ema", "teaching", "weights"} <= roles


@pytest.mark.parametrize(
    ("kind", "rules"),
    [
        ("replicas", PLAIN),
        ("xla", PLAIN),
        ("replicas", WEIGHTED),
        pytest.param("xla", WEIGHTED, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_devices_do_not_matter(
    kind: str,
    rules: dict[str, Any],
    config: Callable[..., Config],
    mirrored: tf.distribute.Strategy,
    tmp_path: Path,
) -> None:
    settings = {**rules, "dropout": None, "gradient_clip_norm": 1.0, "l2_weight_decay": 0.01}
    plain = trained(config(**settings), tmp_path / "plain")
    if kind == "xla":
        other = trained(config(**settings, xla=True), tmp_path / "other")
    else:
        other = trained(config(**settings), tmp_path / "other", mirrored)
    for row, found in zip(evaluations(plain), evaluations(other), strict=True):
        assert found["train"] == pytest.approx(row["train"], rel=1e-3, abs=1e-5)
    assert_same_variables(plain, other, tolerance=1e-3)


@pytest.mark.parametrize("feedback", ["soft_jvp", "hard_cosine"])
def test_a_teacher_learns_in_lower_precision(feedback: str, config: Callable[..., Config], tmp_path: Path) -> None:
    """bfloat16 has 8 bits: both networks train, and the losses are those of float32 up to these."""
    settings = {**PLAIN, "feedback": feedback, "dropout": None, "student_wait_steps": None, "steps": 4}
    rows = [
        evaluations(trained(config(**settings, precision=precision), tmp_path / precision))[0]["train"]
        for precision in ("float32", "mixed_bfloat16")
    ]
    for name in ("loss", "student/loss"):
        assert rows[1][name] == pytest.approx(rows[0][name], rel=0.03)
    assert rows[1].keys() == rows[0].keys()
    assert np.isfinite(list(rows[1].values())).all()
    assert rows[1]["teacher/gradient_norm"] > 0 < rows[1]["student/gradient_norm"]
