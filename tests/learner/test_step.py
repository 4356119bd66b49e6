"""Terms are reduced over the global batch, and every metric leaves a step as (sum, count)."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.base import Algorithm, Average, Context, Forward, Losses, Needs, Term
from metassl_tf.algorithms.batch import Batch, Side
from metassl_tf.algorithms.supervised import Supervised
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.step import Sums, Training, reduce_terms
from metassl_tf.learner.update_rules import Sgd
from tests.learner import tiny


def test_terms_are_divided_by_their_counts_and_weighed() -> None:
    losses = Losses(
        labeled={
            "plain": Term(tf.constant([1.0, 2.0, 6.0])),
            "masked": Term(tf.constant([4.0, 0.0, 2.0]), counts=tf.constant([1.0, 0.0, 1.0])),
        },
        unlabeled={
            "weighed": Term(tf.constant([5.0, 3.0, 1.0, 1.0, 0.0]), mask=tf.constant([1.0, 1.0, 0.0, 0.0, 0.0])),
            "empty": Term(tf.zeros([2]), counts=tf.zeros([2])),
        },
        metrics={},
    )
    share, sums = reduce_terms(losses, tf.constant(10.0))
    assert float(share) == pytest.approx(3 + 3 + 10 * 8 / 5)
    # Terms are logged before the weight, so that their size can be read off.
    assert {name: value.numpy().tolist() for name, value in sums.items()} == {
        "loss": [22, 1],
        "loss/plain": [9, 3],
        "loss/masked": [6, 2],
        "loss/weighed": [8, 5],
        "loss/empty": [0, 1],
    }


VALUES, COUNTS = [[1.0, 2.0], [3.0, 10.0]], [[1.0, 0.0], [1.0, 1.0]]  # of the first and the second replica


def test_replicas_reduce_over_the_global_batch_and_their_shares_add_up(mirrored: tf.distribute.Strategy) -> None:
    def reduce() -> tuple[tf.Tensor, Sums]:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        values, counts = tf.gather(VALUES, replica), tf.gather(COUNTS, replica)
        losses = Losses({"counted": Term(values * counts, counts=counts)}, {"plain": Term(values)}, {})
        return reduce_terms(losses, tf.constant(0.5))

    @tf.function
    def both() -> Any:
        return tf.nest.map_structure(mirrored.experimental_local_results, mirrored.run(reduce))

    shares, sums = both()
    # 14 / 3, not the mean of 1 / 1 and 13 / 2: counts are added up before they divide.
    assert float(shares[0] + shares[1]) == pytest.approx(14 / 3 + 0.5 * 16 / 4)
    for name, expected in {"loss": [14 / 3 + 2, 1], "loss/counted": [14, 3], "loss/plain": [16, 4]}.items():
        np.testing.assert_allclose(sums[name][0] + sums[name][1], expected, rtol=1e-6)


class Logging:
    """An algorithm with a metric whose counts differ between examples."""

    def needs(self) -> Needs:
        return Needs(labeled_views={"weak": "weak"})

    def losses(self, forward: Forward, batch: Batch, context: Context) -> Losses:
        logits = forward({"labeled": batch.labeled.views["weak"]})["labeled"]
        index = tf.cast(batch.labeled.index, tf.float32)
        return Losses(
            labeled={"square": Term(tf.reduce_sum(tf.square(logits), axis=1))},
            unlabeled={},
            metrics={"index": Average(index, tf.cast(index >= 2.0, tf.float32))},
        )


@pytest.mark.parametrize("replicas", [1, 2])
def test_metrics_are_sums_over_the_global_batch(replicas: int, mirrored: tf.distribute.Strategy) -> None:
    strategy = mirrored if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        learner = Learner(tiny.network(), tiny.optimization(rule=Sgd(momentum=0.0)), seed=0)
    algorithm: Algorithm = Logging()
    batch = tiny.batch_for(algorithm)

    @tf.function
    def step_once(batch: Batch) -> Any:
        def one(batch: Batch) -> Sums:
            part = tiny.replica_part(batch)
            return Training(learner, algorithm).begin_step(part, tiny.context(), tf.ones([])).apply()

        return tiny.first_replica(strategy, strategy.run(one, args=(batch,)))

    logits = learner.predict(batch.labeled.views["weak"], parameters="raw").numpy()
    sums = {name: value.numpy() for name, value in step_once(batch).items()}
    assert set(sums) == {"loss", "loss/square", "gradient_norm", "index"}
    assert sums["index"].tolist() == [2 + 3, 2]
    np.testing.assert_allclose(sums["loss/square"], [(logits**2).sum(), tiny.LABELED], rtol=1e-5)
    np.testing.assert_allclose(sums["loss"], [(logits**2).sum() / tiny.LABELED, 1], rtol=1e-5)
    assert sums["gradient_norm"][1] == 1


def test_step_follows_the_gradient_of_the_loss_and_reports_its_norm() -> None:
    learner = Learner(tiny.network(), tiny.optimization(rule=Sgd(momentum=0.0), learning_rate=0.25), seed=0)
    before = [variable.numpy() for variable in learner.trainable_variables]
    batch = tiny.batch_for(Supervised())
    with tf.GradientTape() as tape:
        logits = learner.model(batch.labeled.views["weak"], training=True)
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=batch.labeled.label, logits=logits)
        loss = tf.reduce_mean(each)
    gradients = tape.gradient(loss, learner.trainable_variables)
    sums = Training(learner, Supervised()).begin_step(batch, tiny.context(), tf.ones([])).apply()
    assert float(sums["loss"][0]) == pytest.approx(float(loss), rel=1e-6)
    expected_norm = np.sqrt(sum((gradient.numpy() ** 2).sum() for gradient in gradients))
    assert sums["gradient_norm"].numpy() == pytest.approx([expected_norm, 1.0], rel=1e-5)
    for old, gradient, variable in zip(before, gradients, learner.trainable_variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), old - 0.25 * gradient, rtol=1e-5, atol=1e-6)


def test_embedding_learns_the_rows_that_its_examples_use(mirrored: tf.distribute.Strategy) -> None:
    """Its gradient is of some rows only, and each replica uses others."""
    with mirrored.scope():
        tokens = keras.Input((2,), dtype="int32")
        pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(6, 3)(tokens))
        model = keras.Model(tokens, keras.layers.Dense(2)(pooled))
        learner = Learner(model, tiny.optimization(gradient_clip_norm=1.0), seed=0)
    before = model.trainable_variables[0].numpy()
    labeled = Side({"weak": tf.constant([[0, 1], [1, 3]])}, tf.constant([0, 1], tf.int64), tf.range(2), {})
    none = Side({}, tf.zeros([0], tf.int64), tf.zeros([0], tf.int64), {})

    @tf.function
    def step_once() -> None:
        def one() -> Sums:
            part = tiny.replica_part(Batch(labeled, none, {}))
            return Training(learner, Supervised()).begin_step(part, tiny.context(), tf.ones([])).apply()

        mirrored.run(one)

    step_once()
    moved = np.abs(model.trainable_variables[0].numpy() - before).max(axis=1) > 0
    assert moved.tolist() == [True, True, False, True, False, False]


def test_model_that_normalises_its_inputs_and_has_a_frozen_layer_takes_a_step() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((tiny.FEATURES,))
    normalization = keras.layers.Normalization()
    normalization.adapt(tf.random.normal([20, tiny.FEATURES]))
    frozen = keras.layers.Dense(tiny.HIDDEN, trainable=False)
    model = keras.Model(inputs, keras.layers.Dense(tiny.CLASSES)(frozen(normalization(inputs))))
    before = [variable.numpy() for variable in model.non_trainable_variables]
    learner = Learner(model, tiny.optimization(), seed=0)
    kernel = model.trainable_variables[0].numpy()
    Training(learner, Supervised()).begin_step(tiny.batch_for(Supervised()), tiny.context(), tf.ones([])).apply()
    assert np.abs(model.trainable_variables[0].numpy() - kernel).max() > 1e-4
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
