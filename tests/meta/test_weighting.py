"""The step with learned weights: what it uses, what it moves, and that the network does not notice."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.errors import UserError
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.step import Training
from metassl_tf.meta import weighting
from metassl_tf.meta.influence import Influence
from metassl_tf.meta.per_example_weights import PerExampleWeights
from metassl_tf.meta.weighting import Weighting
from tests import weight_rows
from tests.learner import tiny
from tests.meta import reference
from tests.meta.reference import UNLABELED_WEIGHT, WEIGHTS, relative_error
from tests.meta.weighted import DAMPING, FIXMATCH, Made, make


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.4},
        {"influence_batch_norm": "inference"},
        {"influence_scope": "all", "inverse_hessian": "neumann", "solver_iterations": 2, "dropout": 0.4},
    ],
    ids=["exact", "inference", "all"],
)
def test_network_does_not_notice_that_its_weights_are_measured(settings: dict[str, Any]) -> None:
    """Weights, momentum, statistics and their averages are those after a plain step, bit for bit."""
    plain, moving = make(**settings), make(**settings)
    for step in range(2):
        expected = plain.plain(step)
        weight_rows.assign(moving.rule.table, weight=WEIGHTS)  # the step before has moved them
        sums, derivative = moving.moving(step)
        for left, right in zip(moving.network(), plain.network(), strict=True):
            np.testing.assert_array_equal(left, right)
        assert np.any(derivative != 0)
        assert sums.keys() == expected.keys()
        own = ("weights/validation_loss", "weights/influence_size")
        for name, value in expected.items():
            if name in own:
                assert value.numpy().tolist() == [0.0, 0.0]  # measured nothing
            else:
                np.testing.assert_array_equal(sums[name], value)
        assert float(sums["weights/influence_size"][0]) == pytest.approx(np.abs(derivative).mean(), rel=1e-5)
        assert float(sums["weights/validation_loss"][1]) == 1.0


def test_weights_and_network_are_those_from_before_the_step() -> None:
    made = make(weight_learning_rate=10.0)
    problem = reference.last_layer_problem(reference.learner().model, FIXMATCH)
    sums, derivative = made.moving()
    assert relative_error(derivative, problem.influence(DAMPING)) < 1e-5
    assert float(sums["weights/validation_loss"][0]) == pytest.approx(problem.validation_loss, rel=1e-5)
    assert float(sums["loss"][0]) == pytest.approx(problem.training_loss, rel=1e-5)
    moved = np.maximum(WEIGHTS - 10.0 * derivative, 0.0)  # Eq. 4
    np.testing.assert_allclose(made.weights(), moved, rtol=1e-5)
    assert float(make(weights=moved).plain()["loss"][0]) != pytest.approx(problem.training_loss, rel=1e-3)


def test_influence_in_inference_mode_is_of_the_moving_statistics() -> None:
    made = make(influence_batch_norm="inference", dropout=0.4)  # and of no dropout
    problem = reference.last_layer_problem(made.own.model, FIXMATCH, training=False)
    sums, derivative = made.moving()
    assert relative_error(derivative, problem.influence(DAMPING)) < 1e-5
    assert float(sums["weights/validation_loss"][0]) == pytest.approx(problem.validation_loss, rel=1e-5)


def test_stochastic_estimates_are_a_function_of_seed_and_step() -> None:
    made = make(inverse_hessian="stochastic", solver_iterations=3)

    def estimate(seed: int, step: int) -> np.ndarray:
        rule = Weighting(made.rule.settings, made.rule.table, Training(made.own, FIXMATCH), every=1, seed=seed)
        batch, context = tiny.batch_for(FIXMATCH), tiny.context(step)
        calls = made.own.begin(context.step)
        FIXMATCH.losses(calls, batch, context)
        weight = tf.constant(UNLABELED_WEIGHT)
        return rule.influence_of(batch, reference.validation(), context, weight, calls.calls).derivative.numpy()

    first = estimate(0, 0)
    np.testing.assert_array_equal(estimate(0, 0), first)
    for seed, step in ((1, 0), (0, 1), (2**32 - 1, 0)):
        assert relative_error(estimate(seed, step), first) > 1e-3


def test_masked_examples_stay_unless_asked_for() -> None:
    mask = reference.last_layer_problem(reference.learner().model, FIXMATCH).mask
    made = make(weight_optimizer="masked_adam")
    _, derivative = made.moving()
    np.testing.assert_array_equal(derivative != 0, mask)
    np.testing.assert_array_equal(made.weights()[~mask], WEIGHTS[~mask])
    assert np.all(made.weights()[mask & (WEIGHTS > 0)] != WEIGHTS[mask & (WEIGHTS > 0)])
    np.testing.assert_array_equal(made.rule.table.columns()["updates"], mask)
    everyone = make(weight_optimizer="masked_adam", move_masked=True)
    _, all_derivatives = everyone.moving()
    assert np.all(all_derivatives != 0)
    np.testing.assert_allclose(all_derivatives[mask], derivative[mask], rtol=1e-5)
    np.testing.assert_array_equal(everyone.rule.table.columns()["updates"], np.ones(tiny.UNLABELED))


def test_weight_of_zero_grows_where_that_helps() -> None:
    made = make(weights=np.zeros(tiny.UNLABELED, np.float32), weight_optimizer="masked_adam", move_masked=True)
    _, derivative = made.moving()
    assert 0 < np.sum(derivative < 0) < tiny.UNLABELED
    np.testing.assert_allclose(made.weights(), np.where(derivative < 0, 0.01, 0.0), rtol=1e-4)


REPLICATED = [
    {"weight_optimizer": "masked_adam"},
    {"influence_scope": "last_block", "inverse_hessian": "identity"},
]


@pytest.mark.parametrize("settings", REPLICATED, ids=["last_layer", "last_block"])
def test_two_replicas_equal_one_device(settings: dict[str, Any], mirrored: tf.distribute.Strategy) -> None:
    one, two = make(**settings), make(mirrored, **settings)
    for step in range(2):
        sums, derivative = one.moving(step)
        other_sums, other_derivative = two.moving(step)
        assert relative_error(other_derivative, derivative) < 1e-4
        for name, value in sums.items():
            np.testing.assert_allclose(other_sums[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    for left, right in zip(two.network(), one.network(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)
    for left, right in zip(two.rule.state_variables, one.rule.state_variables, strict=True):
        np.testing.assert_allclose(left.numpy(), right.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("scope", ["last_layer", "all"])
def test_body_in_bfloat16(scope: str) -> None:
    """The last layer computes in float32; what it sees is coarse, and the same in the replay."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    inputs = keras.Input((tiny.FEATURES,))
    hidden = keras.layers.BatchNormalization(synchronized=True)(keras.layers.Dense(tiny.HIDDEN)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(tiny.CLASSES, dtype="float32")(keras.layers.ReLU()(hidden)))
    own = Learner(model, tiny.optimization(l2_weight_decay=reference.L2), seed=0)
    made = make()
    inverse = "exact" if scope == "last_layer" else "conjugate_gradient"
    settings = PerExampleWeights(influence_scope=scope, inverse_hessian=inverse, damping=DAMPING, move_masked=True)
    rule = Weighting(settings, made.rule.table, Training(own, FIXMATCH), every=1, seed=0)
    problem = reference.last_layer_problem(model, FIXMATCH, masked=False)
    sums, derivative = Made(rule, own, made.strategy).moving()
    assert np.all(np.isfinite(derivative))
    assert np.all(derivative != 0)
    if scope == "last_layer":
        assert relative_error(derivative, problem.influence(DAMPING)) < 1e-4
    assert float(sums["weights/validation_loss"][0]) == pytest.approx(problem.validation_loss, rel=1e-4)


def test_validation_loss_that_saturates() -> None:
    """The mean squared error of the validation batch, whose gradient the influence then starts from."""
    made, plain = (
        make(meta_validation_loss=loss, inverse_hessian="identity", damping=1e-3)
        for loss in ("squared_error", "cross_entropy")
    )
    examples = reference.validation()
    logits = made.own.begin(tf.constant(0, tf.int64))({"validation": examples.views["plain"]})["validation"]
    errors = tf.nn.softmax(logits).numpy() - np.eye(tiny.CLASSES)[examples.label]
    (sums, derivative), (_, other) = made.moving(), plain.moving()
    assert float(sums["weights/validation_loss"][0]) == pytest.approx(np.square(errors).sum(axis=1).mean(), rel=1e-5)
    assert relative_error(derivative, other) > 0.05


def test_influence_that_is_not_finite_stops_neither_network_nor_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tf.constant([1.0] * (tiny.UNLABELED - 1) + [float("nan")])
    monkeypatch.setattr(weighting, "influence", lambda *_, **__: Influence(bad, tf.constant(1.0), tf.constant(False)))
    made, plain = make(), make()
    plain.plain()
    sums, _ = made.moving()
    for left, right in zip(made.network(), plain.network(), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(made.weights(), WEIGHTS)
    assert int(made.rule.table.skipped) == 1
    assert all(np.all(np.isfinite(value)) for value in sums.values())
    assert sums["weights/influence_size"].numpy().tolist() == [0.0, 0.0]
    made.rule.check()


def test_series_that_grows_stops_the_run_and_names_the_step() -> None:
    made = make(inverse_hessian="neumann", series_step_size=1e3, weight_optimizer="masked_adam")
    made.rule.check()
    made.moving(4)
    made.moving(5)
    with pytest.raises(UserError, match=r"^Step 4: The series for the inverse Hessian grew.*--series_step_size"):
        made.rule.check()


@pytest.mark.parametrize("warmup", [0, 1, 5, 6, 7])
@pytest.mark.parametrize("every", [1, 3, 4])
def test_steps_that_are_due(every: int, warmup: int) -> None:
    rule = make(weight_warmup_steps=warmup).rule
    rule.every = every
    due = [bool(rule.is_due(tf.constant(step, tf.int64))) for step in range(30)]
    assert due == [step >= warmup and step % every == 0 for step in range(30)]
    for step in range(15):
        assert rule.first_due(step) == next(later for later in range(step, 30) if due[later])


def rule_for(model: keras.Model, **settings: Any) -> Weighting:
    own = Learner(model, tiny.optimization(), seed=0)
    return Weighting(PerExampleWeights(**settings), make().rule.table, Training(own, FIXMATCH), every=1, seed=0)


class Subclassed(keras.Model):
    """A model whose graph is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(tiny.CLASSES)
        self(tf.zeros([1, tiny.FEATURES]))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.dense(inputs)


def test_model_without_a_last_dense_layer_is_refused_and_told_what_works() -> None:
    with pytest.raises(UserError, match=r"--influence_scope=last_layer needs.*Expected.* all, with --inverse_hessian"):
        rule_for(Subclassed())
    rule = rule_for(Subclassed(), influence_scope="all", inverse_hessian="identity")
    _, derivative = Made(rule, rule._learner, tf.distribute.get_strategy()).moving()
    assert np.any(derivative != 0)


def test_exact_inverse_is_of_the_last_layer_and_of_a_size_that_can_be_factorised() -> None:
    with pytest.raises(UserError, match=r"--inverse_hessian=exact.*--influence_scope=all.*conjugate_gradient"):
        rule_for(tiny.network(), influence_scope="all")
    inputs = keras.Input((8192 // 4,))
    wide = keras.Model(inputs, keras.layers.Dense(4)(inputs))  # and the bias: 8196 rows
    with pytest.raises(UserError, match=r"matrix of 8196 rows. Expected at most 8192.*conjugate_gradient"):
        rule_for(wide)
    rule_for(wide, inverse_hessian="conjugate_gradient")
    rule_for(keras.Model(inputs, keras.layers.Dense(4, use_bias=False)(inputs)))
