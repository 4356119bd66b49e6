"""The step with learned weights in the trainer's loop: when it reads validation examples, what it computes where."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.base import Context
from metassl_tf.config import Config
from metassl_tf.engine import run, setup
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.steps import WeightedStep
from metassl_tf.engine.trainer import Trainer
from metassl_tf.errors import UserError
from metassl_tf.meta.weighting import Weighting

WEIGHTED = {
    "meta": "per_example_weights",
    "weight_update_steps": 2,
    "weight_warmup_steps": 1,
    "weight_learning_rate": 0.1,
    "model": "mlp",
    "filters": None,
    "hidden_units": "12",
    "threshold": 0.12,
    "dropout": None,
    "l2_weight_decay": 0.01,
}


class Spy:
    """Stands for the rule: due at multiples of 3 from step 4 on, and says what it was given."""

    def __init__(self) -> None:
        self.moves = tf.Variable(tf.zeros([0, 2], tf.int64), shape=[None, 2])
        self.traces: list[str] = []

    def is_due(self, step: tf.Tensor) -> tf.Tensor:
        return (step % 3 == 0) & (step >= 4)

    def plain_step(self, batch: tf.Tensor, context: Context, unlabeled_weight: tf.Tensor) -> dict[str, tf.Tensor]:
        self.traces.append("plain")
        return self._sums(batch, unlabeled_weight, tf.constant(-1, tf.int64))

    def moving_step(
        self, batch: tf.Tensor, validation: tf.Tensor, context: Context, unlabeled_weight: tf.Tensor
    ) -> tuple[Any, ...]:
        self.traces.append("moving")
        sums = self._sums(batch, unlabeled_weight, validation)
        return sums, validation[tf.newaxis], tf.zeros([1]), tf.constant(False)

    def move(self, step: tf.Tensor, index: tf.Tensor, derivative: tf.Tensor, grew: tf.Tensor) -> None:
        self.moves.assign(tf.concat([self.moves, tf.stack([step, index[0]])[tf.newaxis]], axis=0))

    def check(self) -> None:
        raise UserError("Asked.")

    @staticmethod
    def _sums(batch: tf.Tensor, unlabeled_weight: tf.Tensor, validation: tf.Tensor) -> dict[str, tf.Tensor]:
        values = {"batch": batch, "unlabeled_weight": unlabeled_weight, "validation": validation}
        return {name: tf.stack([tf.cast(value, tf.float32), 1.0]) for name, value in values.items()}


def spied(spy: Spy) -> Trainer:
    step = WeightedStep(
        spy, lambda step: 10.0 * tf.cast(step, tf.float32), strategy=tf.distribute.get_strategy(), xla=False
    )
    data = {"training": tf.data.Dataset.range(100), "validation": tf.data.Dataset.range(50, 100)}
    return Trainer(step, data, total_steps=100)


def test_validation_is_read_by_the_steps_that_are_due_and_by_no_others() -> None:
    spy = Spy()
    trainer = spied(spy)
    seen = []
    for count in (1, 1, 1, 1, 1, 1, 1, 5, 1):
        trainer.train(tf.constant(count))
        metrics = trainer.read_metrics()
        if count == 1:
            seen.append((metrics["batch"], metrics["unlabeled_weight"], metrics["validation"]))
    assert seen == [*((float(step), 10.0 * step, -1.0) for step in range(6)), (6.0, 60.0, 50.0), (12.0, 120.0, 52.0)]
    assert spy.moves.numpy().tolist() == [[6, 50], [9, 51], [12, 52]]
    assert sorted(spy.traces) == ["moving", "plain"]  # once each
    with pytest.raises(UserError, match="Asked"):
        trainer.check_finite()


def experiment_of(config: Config, strategy: tf.distribute.Strategy | None = None) -> Experiment:
    return setup.build(config, strategy=strategy)


def taken(experiment: Experiment, steps: int) -> Trainer:
    trainer = run.make_trainer(experiment)
    trainer.train(tf.constant(steps))
    trainer.check_finite()
    return trainer


def assert_same_state(left: Experiment, right: Experiment, *, tolerance: float) -> None:
    for role, variables in left.learner.state_variables.items():
        for one, other in zip(variables, right.learner.state_variables[role], strict=True):
            np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=tolerance, atol=tolerance / 10, err_msg=role)
    for one, other in zip(left.weighting.state_variables, right.weighting.state_variables, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=tolerance, atol=tolerance / 10, err_msg=one.name)


def test_replicas_and_xla_train_what_one_device_does(
    tiny_config: Callable[..., Config], mirrored: tf.distribute.Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces: list[str] = []

    def counting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def traced(self: Weighting, *args: Any) -> Any:
            traces.append(name)
            return original(self, *args)

        return traced

    for name in ("plain_step", "moving_step"):
        monkeypatch.setattr(Weighting, name, counting(name, getattr(Weighting, name)))
    one = experiment_of(tiny_config(**WEIGHTED))
    metrics = taken(one, 5).read_metrics()
    assert sorted(traces) == ["moving_step", "plain_step"]
    assert int(one.weighting.table.updates) == 2  # at steps 2 and 4
    columns = {name: value.numpy() for name, value in one.weighting.table.columns().items()}
    assert 5 < np.sum(columns["weight"] != 1.0) < len(columns["weight"]) / 2
    np.testing.assert_array_equal(columns["weight"] != 1.0, columns["updates"] > 0)
    assert metrics["weights/validation_loss"] > 0
    for changes, strategy in (({}, mirrored), ({"xla": True}, None)):
        other = experiment_of(tiny_config(**WEIGHTED, **changes), strategy)
        other_metrics = taken(other, 5).read_metrics()
        assert other_metrics == pytest.approx(metrics, rel=1e-4, abs=1e-6)
        assert_same_state(one, other, tolerance=1e-4)


def test_series_that_grows_ends_the_run_with_the_step_and_the_setting(tiny_config: Callable[..., Config]) -> None:
    settings = {"inverse_hessian": "neumann", "series_step_size": 1e4}
    experiment = experiment_of(tiny_config(**WEIGHTED | settings))
    with pytest.raises(UserError, match=r"^Step 2: The series for the inverse Hessian grew.*--series_step_size"):
        taken(experiment, 5)
