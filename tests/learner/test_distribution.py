"""Sums over replicas and equal assignments on all of them; clipping and decay once, after the sum."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.learner import distribution
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.update_rules import Sgd
from tests.learner import tiny


def test_outside_a_replica_is_an_error_that_says_so(mirrored: tf.distribute.Strategy) -> None:
    with mirrored.scope(), pytest.raises(RuntimeError, match=r"strategy\.run"):
        distribution.replica_context()


def test_one_device_sums_to_itself() -> None:
    tensors = [tf.constant([1.0, 2.0]), tf.constant(3.0)]
    for summed, tensor in zip(distribution.all_reduce_sum(tensors), tensors, strict=True):
        np.testing.assert_array_equal(summed, tensor)


def test_replicas_sum_and_assign_the_same(mirrored: tf.distribute.Strategy) -> None:
    with mirrored.scope():
        variables = [keras.Variable(tf.zeros([2])), keras.Variable(tf.zeros([]))]

    @tf.function
    def assign() -> Any:
        def one() -> list[tf.Tensor]:
            number = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
            sums = distribution.all_reduce_sum([tf.stack([number, 10.0]), number + 1.0])
            distribution.assign_everywhere(variables, sums)
            return sums

        return tf.nest.map_structure(mirrored.experimental_local_results, mirrored.run(one))

    for received, expected in zip(assign(), ([1.0, 20.0], 3.0), strict=True):
        for value in received:
            np.testing.assert_array_equal(value, expected)
    for variable, expected in zip(variables, ([1.0, 20.0], 3.0), strict=True):
        for value in mirrored.experimental_local_results(variable.value):
            np.testing.assert_array_equal(value.numpy(), expected)


def test_there_may_be_nothing_to_sum_or_assign(mirrored: tf.distribute.Strategy) -> None:
    """As with the statistics of a model that has none."""

    @tf.function
    def nothing() -> None:
        def one() -> None:
            distribution.assign_everywhere([], distribution.all_reduce_sum([]))

        mirrored.run(one)

    nothing()


def test_gradients_are_summed_then_decayed_then_clipped(mirrored: tf.distribute.Strategy) -> None:
    options = tiny.optimization(rule=Sgd(momentum=0.0), l2_weight_decay=0.5, gradient_clip_norm=0.5)
    with mirrored.scope():
        learner = Learner(tiny.network(), options, seed=0)
    reference = Learner(tiny.network(), options, seed=0)
    total = [tf.random.stateless_normal(variable.shape, [1, 2]) for variable in reference.trainable_variables]

    @tf.function
    def update() -> Any:
        def one() -> tf.Tensor:
            # Shares far longer than their sum: clipping each would leave nothing of it.
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            sign = 1.0 - 2.0 * tf.cast(replica, tf.float32)
            shares = [gradient / 2.0 + 100.0 * sign for gradient in total]
            return learner.update(shares, [], step=tf.constant(0, tf.int64))

        return tiny.first_replica(mirrored, mirrored.run(one))

    norm = update()
    expected = reference.update(total, [], step=tf.constant(0, tf.int64))
    assert float(expected) > 2 * options.gradient_clip_norm
    assert float(norm) == pytest.approx(float(expected), rel=1e-4)
    for variable, other in zip(learner.trainable_variables, reference.trainable_variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)


def test_statistics_are_the_mean_over_replicas(mirrored: tf.distribute.Strategy) -> None:
    with mirrored.scope():
        learner = Learner(tiny.network(batch_norm=True), tiny.optimization(), seed=0)

    @tf.function
    def update() -> None:
        def one() -> None:
            number = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
            gradients = [tf.zeros(variable.shape) for variable in learner.trainable_variables]
            learner.update(gradients, [tf.fill([tiny.HIDDEN], number)] * 2, step=tf.constant(0, tf.int64))

        mirrored.run(one)

    update()
    for variable in learner.model.non_trainable_variables:
        np.testing.assert_array_equal(variable.numpy(), np.full(tiny.HIDDEN, 0.5))
