"""The trainer traces a step once, keeps sums between readings, and knows what left the real numbers first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.base import Context
from metassl_tf.config import Config
from metassl_tf.engine import run
from metassl_tf.engine.steps import PlainStep
from metassl_tf.engine.trainer import Trainer, check_finite_state
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from metassl_tf.learner.step import Training
from tests.run_results import assert_same_variables

BAD = float("nan")


def fake_trainer(step_sums: Callable[[tf.Tensor, tf.Tensor], dict[str, Any]], *, xla: bool = False) -> Trainer:
    """A trainer whose batches are 0, 1, 2, ... and whose step returns what a function of (batch, step) says."""

    def replica_step(batch: tf.Tensor, context: Context) -> dict[str, tf.Tensor]:
        sums = step_sums(tf.cast(batch, tf.float32), context.step)
        return {name: tf.stack([tf.cast(part, tf.float32) for part in pair]) for name, pair in sums.items()}

    dataset = tf.data.Dataset.range(1000)
    step = PlainStep(replica_step, strategy=tf.distribute.get_strategy(), xla=xla)
    return Trainer(step, dataset, total_steps=1000)


def take(trainer: Trainer, steps: int) -> None:
    trainer.train(tf.constant(steps))


@pytest.mark.parametrize("calls", [[6], [1, 2, 3], [1] * 6])
def test_metrics_are_means_since_the_last_reading(calls: list[int]) -> None:
    trainer = fake_trainer(lambda batch, _: {"loss": (batch, 1), "share": (2 * batch, 4)})
    for count in calls:
        take(trainer, count)
    assert int(trainer.step) == 6
    assert trainer.read_metrics() == {"loss": 2.5, "share": 1.25}
    assert trainer.read_metrics() == {}
    take(trainer, 2)
    assert trainer.read_metrics() == {"loss": 6.5, "share": 3.25}


def test_metric_without_an_example_is_left_out() -> None:
    trainer = fake_trainer(lambda batch, _: {"loss": (batch, 1), "accuracy": (0, 0)})
    take(trainer, 3)
    assert trainer.read_metrics() == {"loss": 1.0}


def test_step_knows_where_it_is_and_construction_takes_none() -> None:
    trainer = fake_trainer(lambda batch, step: {"step": (step, 1), "batch": (batch, 1)})
    assert int(trainer.step) == 0
    assert trainer.read_metrics() == {}
    take(trainer, 1)
    assert trainer.read_metrics() == {"step": 0.0, "batch": 0.0}
    trainer.step.assign(500)
    trainer.train_dataset = tf.data.Dataset.range(7, 1000)
    take(trainer, 2)
    assert trainer.read_metrics() == {"step": 500.5, "batch": 7.5}


def test_step_is_traced_once_however_many_are_taken() -> None:
    traces = []
    trainer = fake_trainer(lambda batch, _: traces.append(1) or {"loss": (batch, 1)})
    for count in (1, 5, 2):
        take(trainer, count)
        trainer.read_metrics()
    assert len(traces) == 1


@pytest.mark.parametrize("bad", [BAD, float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("first_bad_steps", "expected"),
    [
        ({"gradient_norm": 4, "loss": 4, "loss/consistency": 4}, "loss/consistency became infinite or NaN at step 4"),
        ({"gradient_norm": 4, "loss": 4}, "loss became infinite or NaN at step 4"),
        ({"gradient_norm": 2, "loss": 4, "loss/consistency": 4}, "gradient_norm became infinite or NaN at step 2"),
        ({"loss/consistency": 3, "loss/cross_entropy": 5}, "loss/consistency became infinite or NaN at step 3"),
    ],
)
def test_first_term_that_leaves_the_reals_is_named(first_bad_steps: dict[str, int], expected: str, bad: float) -> None:
    names = ("loss", "loss/cross_entropy", "loss/consistency", "gradient_norm")
    trainer = fake_trainer(
        lambda _, step: {name: (tf.where(step >= first_bad_steps.get(name, 99), bad, 1.0), 1) for name in names}
    )
    take(trainer, 2)
    trainer.check_finite()
    take(trainer, 5)
    with pytest.raises(UserError, match=rf"^{expected}\. Expected a finite loss.* Lower --learning_rate"):
        trainer.check_finite()


def test_one_bad_step_is_not_forgotten() -> None:
    trainer = fake_trainer(lambda _, step: {"loss": (tf.where(step == 1, BAD, 1.0), 1)})
    take(trainer, 4)
    trainer.read_metrics()
    take(trainer, 1)
    with pytest.raises(UserError, match="loss became infinite or NaN at step 1"):
        trainer.check_finite()


def test_bad_weight_is_named() -> None:
    state = {"model": [tf.Variable([1.0, 2.0])], "slots": [tf.Variable([1.0], name="momentum"), tf.Variable(3)]}
    check_finite_state(state, 5)
    state["slots"][0].assign([np.inf])
    with pytest.raises(UserError, match=r"A weight \(momentum.* of slots\) became infinite or NaN before step 5"):
        check_finite_state(state, 5)


def test_state_of_the_trainer_is_complete() -> None:
    trainers = [fake_trainer(lambda batch, _: {"loss": (batch, 1)}) for _ in range(2)]
    take(trainers[0], 3)
    for variable, saved in zip(trainers[1].state_variables, trainers[0].state_variables, strict=True):
        variable.assign(saved)
    trainers[1].train_dataset = tf.data.Dataset.range(3, 1000)
    for trainer in trainers:
        take(trainer, 2)
    assert trainers[1].read_metrics() == trainers[0].read_metrics() == {"loss": 2.0}
    assert int(trainers[1].step) == 5


def test_mistake_inside_the_step_keeps_its_message() -> None:
    def refuse(batch: tf.Tensor, _: tf.Tensor) -> dict[str, Any]:
        raise UserError(f"{batch.shape} is wrong.")

    for settings in ({}, {"xla": True}):
        with pytest.raises(UserError, match=r"^\(\) is wrong\.$"):
            fake_trainer(refuse, **settings)


def test_whole_run_is_traced_once_and_agrees_with_xla(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = []
    begin_step = Training.begin_step
    monkeypatch.setattr(Training, "begin_step", lambda *args: traces.append(1) or begin_step(*args))
    workdirs = {xla: Workdir(tmp_path / str(xla)) for xla in (False, True)}
    for xla, workdir in workdirs.items():
        # Compiled, dropout draws other numbers.
        result = run.train(tiny_config(steps=6, eval_steps=2, dropout=0, num_validation=None, xla=xla), workdir)
        assert result["step"] == 6
    assert len(traces) == 2
    assert_same_variables(workdirs[False], workdirs[True], tolerance=1e-4)
