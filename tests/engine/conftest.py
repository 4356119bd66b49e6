"""A run of seconds: digits, a tiny network, a dozen steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metassl_tf import flag_definitions
from metassl_tf.config import Config

TINY = {
    "dataset": "digits",
    "num_labeled": "20",
    "num_validation": "20",
    "algorithm": "fixmatch",
    "threshold": "0.5",
    "model": "convnet",
    "filters": "4",
    "dropout": "0.2",
    "steps": "12",
    "batch_size": "8",
    "unlabeled_ratio": "2",
    "eval_steps": "5",
    "checkpoint_steps": "4",
    "log_steps": "3",
}


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., Config]:
    """Makes the config of a tiny run with some flags replaced; None leaves a flag out."""

    def make(**changes: str | int | float | None) -> Config:
        flags = {**TINY, **changes}
        return flag_definitions.parse([f"--{name}={value}" for name, value in flags.items() if value is not None])

    return make


# The data of the run that `tests.trained_runs.trained` makes of digits.
_STORED = {"num_validation": 30, "normalization": "mean_std", "threshold": None, "algorithm": "noisy_student"}


@pytest.fixture
def student(tiny_config: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    """Makes the config of a student of labels that are stored in a folder of the test."""

    def make(**changes: Any) -> Config:
        return tiny_config(
            **{**_STORED, "stored_labels": str(tmp_path / "labels"), "steps": 6, "eval_steps": 3, **changes}
        )

    return make
