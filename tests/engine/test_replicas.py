"""A run on two replicas is the run on one device: the same examples, losses, weights and measurements."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from metassl_tf.algorithms import ALGORITHMS
from metassl_tf.config import Config
from metassl_tf.data.splits import load_split
from metassl_tf.engine import run
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from tests.run_results import assert_same_variables, evaluations
from tests.stored import store_labels

# What makes each algorithm's terms depend on the whole batch.
SETTINGS: dict[str, dict[str, Any]] = {
    "supervised": {"mixup": 0.5, "label_smoothing": 0.1, "labeled_view": "strong"},
    "pseudo_label": {"threshold": 0.15, "unlabeled_ratio": 2},
    "uda": {"threshold": 0.15, "annealing": "linear", "unlabeled_ratio": 2, "unlabeled_ramp": "linear"}
    | {"unlabeled_ramp_steps": 4},
    "fixmatch": {"threshold": 0.15, "unlabeled_ratio": 2},
    "given_labels": {"given_labels": "truth", "flip_labels": 0.3, "unlabeled_ratio": 2},
    "noisy_student": {"unlabeled_ratio": 2},
}


@pytest.fixture
def config(tiny_config: Callable[..., Config]) -> Callable[..., Config]:
    """Makes configs of six steps without dropout, whose masks belong to a replica."""

    def make(algorithm: str, **changes: Any) -> Config:
        own = {"threshold": None, "unlabeled_ratio": None, **SETTINGS[algorithm]}
        common = {"dropout": None, "steps": 6, "eval_steps": 3, "eval_batch_size": 101, "gradient_clip_norm": 1.0}
        return tiny_config(algorithm=algorithm, **{**common, "l2_weight_decay": 0.01, **own, **changes})

    return make


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_replicas_equal_one_device(
    algorithm: str,
    config: Callable[..., Config],
    mirrored: tf.distribute.Strategy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if algorithm != "fixmatch":  # reporting and exporting is the same for all
        monkeypatch.setattr(run.Run, "finish", lambda _: {})
    one, two = Workdir(tmp_path / "one"), Workdir(tmp_path / "two")
    stored = {"stored_labels": str(tmp_path / "labels")} if algorithm == "noisy_student" else {}
    if stored:
        store_labels(config(algorithm, **stored))
    run.train(config(algorithm, **stored), one)
    run.train(config(algorithm, **stored), two, strategy=mirrored)
    assert load_split(str(one.splits)).hash == load_split(str(two.splits)).hash
    for row, other in zip(evaluations(one), evaluations(two), strict=True):
        assert other["step"] == row["step"]
        assert other["train"] == pytest.approx(row["train"], rel=1e-4, abs=1e-6)
        for part in ("validation", "test"):
            for kind in ("raw", "ema"):
                assert other[part][kind]["loss"] == pytest.approx(row[part][kind]["loss"], rel=1e-4)
                assert other[part][kind]["accuracy"] == pytest.approx(row[part][kind]["accuracy"], abs=0.005)
    assert_same_variables(one, two, tolerance=1e-4)


@pytest.mark.parametrize("algorithm", ["supervised", "fixmatch"])
def test_batch_that_replicas_cannot_share_is_refused(
    algorithm: str, config: Callable[..., Config], mirrored: tf.distribute.Strategy, tmp_path: Path
) -> None:
    changes = {"batch_size": 7, "mixup": None} if algorithm == "supervised" else {"batch_size": 7}
    with pytest.raises(
        UserError, match=r"--batch_size is 7, which 2 replicas cannot share evenly. Expected a multiple"
    ):
        run.train(config(algorithm, **changes), Workdir(tmp_path), strategy=mirrored)
