"""The table of weights: rows of a batch move, all others stay; on replicas, on the host, from a checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.errors import UserError
from metassl_tf.meta.weight_table import WeightTable

SIZE, RATE = 6, 0.1


def table(strategy: tf.distribute.Strategy | None = None, **settings: Any) -> WeightTable:
    plain = {"rule": "sgd", "learning_rate": RATE, "strategy": strategy or tf.distribute.get_strategy()}
    return WeightTable(settings.pop("size", SIZE), **(plain | settings))


def update(own: WeightTable, index: list[int], influence: list[float]) -> None:
    """In a graph, as a run does it."""

    @tf.function(autograph=False)
    def once() -> None:
        own.update(tf.constant(index, tf.int64), tf.constant(influence))

    once()


def weights(own: WeightTable) -> np.ndarray:
    return own.columns()["weight"].numpy()


def state(own: WeightTable) -> list[np.ndarray]:
    return [variable.numpy() for variable in own.state_variables]


def test_rows_of_the_batch_move_and_no_others() -> None:
    own = table(initial_weight=2.0)
    np.testing.assert_array_equal(own.weights(tf.constant([4, 0], tf.int64)), [2.0, 2.0])
    update(own, [4, 1], [1.0, -3.0])
    update(own, [1, 3], [0.5, 0.0])
    np.testing.assert_allclose(weights(own), [2.0, 2.25, 2.0, 2.0, 1.9, 2.0])
    np.testing.assert_allclose(own.weights(tf.constant([4, 1, 4], tf.int64)), [1.9, 2.25, 1.9])
    columns = own.columns()
    np.testing.assert_array_equal(columns["updates"], [0, 2, 0, 0, 1, 0])
    np.testing.assert_allclose(columns["latest_influence"], [0.0, 0.5, 0.0, 0.0, 1.0, 0.0])
    assert int(own.updates) == 2
    assert int(own.skipped) == 0


@pytest.mark.parametrize("rule", ["masked_adam", "masked_adam_global_step", "adam", "sgd"])
def test_example_twice_in_a_batch_moves_once_by_the_sum(rule: str) -> None:
    twice, once = (table(rule=rule, initial_weight=3.0) for _ in range(2))
    for _ in range(2):
        update(twice, [5, 2, 5, 2, 5], [0.25, 1.0, 0.5, -1.0, 0.25])
        update(once, [5], [1.0])
    for found, expected in zip(state(twice), state(once), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert int(once.columns()["updates"][5]) == 2


def test_weights_stay_between_zero_and_the_largest() -> None:
    own = table(max_weight=1.5, initial_weight=1.0)
    update(own, [0, 1, 2], [20.0, -20.0, -4.0])
    np.testing.assert_allclose(weights(own), [0.0, 1.5, 1.4, 1.0, 1.0, 1.0])
    update(own, [0, 1], [-2.0, 2.0])  # and leave the bounds again
    np.testing.assert_allclose(weights(own)[:2], [0.2, 1.3])
    unbounded = table()
    update(unbounded, [0], [-1e4])
    np.testing.assert_allclose(weights(unbounded)[0], 1001.0)


@pytest.mark.parametrize("rule", ["masked_adam", "adam", "sgd"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_influence_that_is_not_finite_skips_the_whole_update(bad: float, rule: str) -> None:
    own = table(rule=rule)
    update(own, [0, 1], [1.0, 2.0])
    before = state(own)
    update(own, [0, 1, 2], [1.0, bad, 3.0])
    for found, expected in zip(state(own)[:-1], before[:-1], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (int(own.updates), int(own.skipped)) == (1, 1)
    update(own, [0, 1], [1.0, 2.0])
    assert (int(own.updates), int(own.skipped)) == (2, 1)
    assert np.all(np.isfinite(weights(own)))
    assert weights(own)[0] != before[0][0, 0]


def test_dense_adam_moves_rows_that_are_not_in_the_batch() -> None:
    leaking, masked = table(rule="adam"), table(rule="masked_adam")
    for own in (leaking, masked):
        update(own, [0], [1.0])
        update(own, [1], [1.0])
    assert weights(masked)[0] == pytest.approx(1 - RATE, rel=1e-5)
    assert weights(leaking)[0] < 1 - 1.5 * RATE
    np.testing.assert_array_equal(weights(leaking)[2:], np.ones(SIZE - 2))


def test_single_weight_is_shared_and_moves_by_the_sum() -> None:
    own = table(size=1, initial_weight=2.0)
    index = tf.constant([70, 3, 1_000_000], tf.int64)
    np.testing.assert_array_equal(own.weights(index), [2.0, 2.0, 2.0])
    update(own, [70, 3, 1_000_000], [1.0, 2.0, 0.5])
    np.testing.assert_allclose(own.weights(index), [1.65] * 3)
    assert own.columns()["updates"].numpy().tolist() == [1]


@pytest.mark.parametrize("on_host", [False, True])
def test_replicas_read_and_move_the_rows_that_one_device_does(on_host: bool, mirrored: tf.distribute.Strategy) -> None:
    one, two = table(rule="masked_adam"), table(mirrored, rule="masked_adam", on_host=on_host)

    @tf.function(autograph=False)
    def step(index: tf.Tensor, influence: tf.Tensor) -> list[tf.Tensor]:
        def read() -> tf.Tensor:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return two.weights(tf.gather(tf.reshape(index, [2, 2]), replica))

        seen = mirrored.experimental_local_results(mirrored.run(read))
        two.update(index, influence)
        return [tf.concat(seen, axis=0), two.weights(index)]

    generator = np.random.default_rng(0)
    for _ in range(4):
        index = tf.constant(generator.integers(SIZE, size=4))
        influence = tf.constant(generator.normal(size=4), tf.float32)
        expected = one.weights(index).numpy()
        one.update(index, influence)
        before, after = step(index, influence)
        np.testing.assert_array_equal(before, expected)
        np.testing.assert_allclose(after, one.weights(index), rtol=1e-6)
    for left, right in zip(one.state_variables, two.state_variables, strict=True):
        for copy in mirrored.experimental_local_results(right):
            np.testing.assert_allclose(copy.numpy(), left.numpy(), rtol=1e-6)
    operations = {operation.type for operation in step.get_concrete_function(index, influence).graph.get_operations()}
    assert "ResourceGather" in operations  # rows alone are read, however long the table


def test_table_on_the_host_is_on_the_host(mirrored: tf.distribute.Strategy) -> None:
    for strategy in (tf.distribute.get_strategy(), mirrored):
        own = table(strategy, on_host=True)
        assert all(variable.device.endswith("CPU:0") for variable in own.state_variables)
        assert not any(hasattr(variable, "values") for variable in own.state_variables)  # one copy


def test_state_survives_a_checkpoint_and_belongs_to_its_split(tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    first = table(rule="masked_adam", split_hash="a" * 64)
    update(first, [1, 2], [0.5, -1.0])
    update(first, [1, 2], [float("nan"), -1.0])
    tf.train.Checkpoint(weights=first.state_variables).write(path)
    again, other = table(rule="masked_adam", split_hash="a" * 64), table(rule="masked_adam", split_hash="b" * 64)
    for own in (again, other):
        own.check_key()
        tf.train.Checkpoint(weights=own.state_variables).read(path)
    again.check_key()
    with pytest.raises(UserError, match=r"another split of the examples.*new --workdir"):
        other.check_key()
    for own in (first, again):
        update(own, [1, 3], [0.5, 1.0])
    for left, right in zip(state(first), state(again), strict=True):
        np.testing.assert_array_equal(left, right)
    assert (int(again.updates), int(again.skipped)) == (2, 1)
