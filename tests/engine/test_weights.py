"""Learned weights in a run: what is refused or warned of before the first step, and that a kill changes nothing."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.config import Config
from metassl_tf.data.examples import Examples
from metassl_tf.engine import run, setup
from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.weights import build_weighting, meta_validation_batch_size
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from metassl_tf.learner.step import Training
from metassl_tf.meta.weighting import Weighting
from tests.run_results import assert_same_run, final_variables

SMALL = {"model": "mlp", "filters": None, "hidden_units": "16", "threshold": 0.12, "meta": "per_example_weights"}
# Every unlabeled example of digits (1,180) is in a batch of 16 about 13 times.
MOVING = {"steps": 1000, "weight_updates_per_example": 12}


@pytest.fixture(scope="module")
def weighted_config(tiny_config: Callable[..., Config]) -> Callable[..., Config]:
    return lambda **changes: tiny_config(**{**SMALL, **MOVING, **changes})


@pytest.fixture(scope="module")
def experiment(weighted_config: Callable[..., Config]) -> Experiment:
    return setup.build(weighted_config())


@pytest.fixture
def build(experiment: Experiment, weighted_config: Callable[..., Config]) -> Callable[..., Weighting | None]:
    """Builds the rule for some flags, on the data and the model of one experiment."""

    def make(examples: Examples | None = None, **changes: Any) -> Weighting | None:
        config = weighted_config(**changes)
        return build_weighting(
            config,
            Training(experiment.learner, config.algorithm),
            experiment.dataset,
            experiment.split,
            experiment.meta_validation if examples is None else examples,
            experiment.strategy,
        )

    return make


def test_rule_has_a_row_for_every_unlabeled_example(
    experiment: Experiment, build: Callable[..., Weighting | None]
) -> None:
    rule = experiment.weighting
    assert rule.table.size == len(experiment.unlabeled) == len(experiment.split.unlabeled)
    assert rule.every == 1
    built = build(initial_weight=0.5, max_weight=2, weight_update_steps=7, weight_updates_per_example=None)
    assert built.every == 7
    assert set(np.unique(built.table.columns()["weight"])) == {0.5}
    assert build(single_weight="true").table.size == 1
    assert build(meta=None, weight_updates_per_example=None) is None


def test_validation_examples_serve_one_purpose(weighted_config: Callable[..., Config]) -> None:
    """Weights are fitted to them, so that they cannot choose the best step as well."""
    only = setup.build(weighted_config())
    assert (len(only.meta_validation), len(only.validation)) == (20, 0)
    both = setup.build(weighted_config(num_meta_validation=30))
    assert (len(both.meta_validation), len(both.validation)) == (30, 20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial_weight": 3, "max_weight": 2}, r"--initial_weight=3 is above --max_weight=2\. Expected it to lie"),
        ({"weight_warmup_steps": 1000}, r"--weight_warmup_steps=1000 does not end before --steps=1000.*fewer"),
        ({"weights_on_host": "true", "xla": "true"}, r"--weights_on_host does not go with --xla.*Expected one"),
        ({"influence_scope": "all"}, r"--inverse_hessian=exact.*--influence_scope=all.*Expected"),
        (
            {"algorithm": "supervised", "threshold": None, "unlabeled_ratio": None},
            r"--algorithm=supervised has no unlabeled loss\. Expected an algorithm with one, such as fixmatch",
        ),
    ],
    ids=["initial_weight", "warmup", "host", "scope", "algorithm"],
)
def test_settings_that_cannot_work_are_refused(
    changes: dict[str, Any], message: str, build: Callable[..., Weighting | None]
) -> None:
    with pytest.raises(UserError, match=message):
        build(**changes)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_validation_examples_are_refused(
    count: int, experiment: Experiment, build: Callable[..., Weighting | None]
) -> None:
    with pytest.raises(UserError, match=rf"there are {count}\. Expected at least 2.*--num_validation"):
        build(experiment.meta_validation.take(slice(count)))


def test_run_without_validation_examples_is_refused(weighted_config: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"validation examples, and there are 0.*--num_meta_validation"):
        setup.build(weighted_config(num_validation=None))


def test_classes_without_a_validation_example_are_named(
    experiment: Experiment, build: Callable[..., Weighting | None], caplog: pytest.LogCaptureFixture
) -> None:
    build()
    assert not caplog.records
    examples = experiment.meta_validation
    build(examples.take(np.flatnonzero(~np.isin(examples.labels, [3, 8]))))
    assert "have none of: 3, 8." in caplog.text


@pytest.mark.parametrize(
    ("changes", "warns"),
    [
        ({}, False),
        ({"weight_update_steps": 2, "weight_updates_per_example": None}, True),  # 6.8 updates of 0.01
        ({"weight_update_steps": 2, "weight_updates_per_example": None, "weight_learning_rate": 0.1}, False),
        ({"weight_update_steps": 2, "weight_updates_per_example": None, "weight_optimizer": "sgd"}, False),
        ({"weight_warmup_steps": 900, "weight_updates_per_example": 1}, True),
        ({"weight_update_steps": 50, "weight_updates_per_example": None, "single_weight": "true"}, False),
        ({"weight_update_steps": 500, "weight_updates_per_example": None, "single_weight": "true"}, True),
        # The first multiple of 600 after the warm-up lies behind the end.
        (
            {"weight_update_steps": 600, "weight_warmup_steps": 601, "weight_updates_per_example": None}
            | {"weight_optimizer": "sgd"},
            True,
        ),
    ],
)
def test_weights_that_will_hardly_move_are_warned_of(
    changes: dict[str, Any], warns: bool, build: Callable[..., Weighting | None], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        build(**changes)
    assert ("The weights will hardly move" in caplog.text) == warns


def test_number_of_validation_examples_per_update(
    experiment: Experiment, weighted_config: Callable[..., Config], mirrored: tf.distribute.Strategy
) -> None:
    one, examples = tf.distribute.get_strategy(), experiment.meta_validation  # 20 of them
    assert meta_validation_batch_size(weighted_config(), examples, one) == 16  # like the unlabeled ones
    assert meta_validation_batch_size(weighted_config(meta_validation_batch_size=5), examples, one) == 5
    assert meta_validation_batch_size(weighted_config(meta_validation_batch_size=5), examples, mirrored) == 4
    assert meta_validation_batch_size(weighted_config(meta_validation_batch_size=500), examples, one) == 20
    assert meta_validation_batch_size(weighted_config(meta_validation_batch_size=1), examples, mirrored) == 2


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the package catches it."""


def test_killed_run_ends_with_the_same_weights_to_the_last_bit(
    weighted_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = weighted_config(
        steps=12,
        weight_update_steps=3,
        weight_updates_per_example=None,
        weight_learning_rate=0.1,
        num_meta_validation=30,
    )
    monkeypatch.setattr(run.Run, "finish", lambda _: {})  # reporting and exporting are tested elsewhere
    whole, killed = Workdir(tmp_path / "whole"), Workdir(tmp_path / "killed")
    run.train(config, whole)
    save = Checkpoints.save

    def deadly(self: Checkpoints, step: int) -> None:
        save(self, step)
        if step == 8 and "best" not in str(self._folder):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", deadly)
        with pytest.raises(Killed):
            run.train(config, killed)
    run.train(config, killed)
    assert_same_run(whole, killed)
    state = final_variables(killed)
    rows, scalars = (state[f"weights/{place}/.ATTRIBUTES/VARIABLE_VALUE"] for place in range(2))
    weights, first, second, count, influence = rows.T
    assert scalars[:2].tolist() == [4, 0]  # updates at steps 0, 3, 6 and 9
    moved = count > 0
    assert 20 < moved.sum() <= 4 * 16
    for column, fresh in ((weights, 1.0), (first, 0.0), (second, 0.0), (influence, 0.0)):
        np.testing.assert_array_equal(column != fresh, moved)
