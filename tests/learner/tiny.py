"""A two-layer network, batches for it and steps on them: what the tests of algorithms and learners share."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from metassl_tf.algorithms.base import Algorithm, Context
from metassl_tf.algorithms.batch import TEACHER_LABEL, Batch, Side
from metassl_tf.learner.learner import Learner, Optimization
from metassl_tf.learner.schedules import Constant
from metassl_tf.learner.step import Training
from metassl_tf.learner.update_rules import Sgd

FEATURES, HIDDEN, CLASSES = 4, 5, 3
LABELED, UNLABELED = 4, 8
STEPS = 10


def network(*, batch_norm: bool = False, dropout: float = 0.0, seed: int = 0) -> keras.Model:
    """Dense, perhaps batch norm, tanh, perhaps dropout, Dense.

    The weights are so large that some predictions are confident and some are not.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((FEATURES,))
    # Batch norm subtracts a bias again, which would then get no gradient.
    hidden = keras.layers.Dense(
        HIDDEN, use_bias=not batch_norm, kernel_initializer=keras.initializers.RandomNormal(stddev=0.7)
    )(inputs)
    if batch_norm:
        hidden = keras.layers.BatchNormalization(synchronized=True, momentum=0.9)(hidden)
    hidden = keras.layers.Activation("tanh")(hidden)
    if dropout:
        hidden = keras.layers.Dropout(dropout)(hidden)
    logits = keras.layers.Dense(CLASSES, kernel_initializer=keras.initializers.RandomNormal(stddev=1.5))(hidden)
    return keras.Model(inputs, logits)


def dense_float64() -> keras.Model:
    """One Dense layer in float64; by default weight decay covers its kernel and not its bias."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,), dtype="float64")
    return keras.Model(inputs, keras.layers.Dense(2, bias_initializer="ones", dtype="float64")(inputs))


def random_gradients(model: keras.Model, *, steps: int = 5) -> list[list[tf.Tensor]]:
    """Gradients of several steps in the dtype of the model's variables."""
    generator = np.random.default_rng(0)
    return [
        [tf.constant(generator.normal(size=variable.shape), variable.dtype) for variable in model.trainable_variables]
        for _ in range(steps)
    ]


def in_numpy(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """The network without batch norm as a function of float64 arrays."""
    kernel_1, bias_1, kernel_2, bias_2 = (variable.numpy().astype(np.float64) for variable in model.variables)
    return lambda inputs: np.tanh(inputs @ kernel_1 + bias_1) @ kernel_2 + bias_2


def optimization(**settings: Any) -> Optimization:
    """Gradient descent with momentum at a constant rate, unless `settings` say otherwise."""
    plain = {"rule": Sgd(), "schedule": Constant(), "learning_rate": 0.1, "total_steps": STEPS}
    return Optimization(**(plain | settings))


def batch_for(algorithm: Algorithm, *, seed: int = 0, labeled: int = LABELED, unlabeled: int = UNLABELED) -> Batch:
    """Random examples with exactly the views, columns and draws that the algorithm says it needs."""
    needs = algorithm.needs()

    def generator(name: str) -> np.random.Generator:
        return np.random.default_rng([seed, zlib.crc32(name.encode())])

    def side(name: str, views: Sequence[str], size: int, columns: Sequence[str] = ()) -> Side:
        size = size if views else 0
        return Side(
            views={
                view: tf.constant(generator(f"{name} {view}").normal(size=(size, FEATURES)), tf.float32)
                for view in views
            },
            label=tf.constant(generator(f"{name} label").integers(CLASSES, size=size), tf.int64),
            index=tf.range(size, dtype=tf.int64),
            columns={column: column_of(column, generator(f"{name} {column}"), size) for column in columns},
        )

    def column_of(column: str, draw: np.random.Generator, size: int) -> tf.Tensor:
        if column == TEACHER_LABEL:
            return tf.constant(draw.dirichlet(np.ones(CLASSES), size), tf.float32)
        return tf.constant(draw.integers(-1, CLASSES, size=size), tf.int64)

    draws = {
        name: tf.constant(generator(name).beta(beta.concentration, beta.concentration, size=labeled), tf.float32)
        for name, beta in needs.draws.items()
    }
    return Batch(
        labeled=side("labeled", list(needs.labeled_views), labeled, needs.labeled_columns),
        unlabeled=side("unlabeled", list(needs.unlabeled_views), unlabeled, needs.unlabeled_columns),
        draws=draws,
    )


def context(step: int = 0) -> Context:
    return Context(tf.constant(step, tf.int64), STEPS)


def replica_part(values: Any) -> Any:
    """This replica's share of a structure of global batches."""
    replica = tf.distribute.get_replica_context()

    def part(tensor: tf.Tensor) -> tf.Tensor:
        size = tensor.shape[0] // replica.num_replicas_in_sync
        start = replica.replica_id_in_sync_group * size
        return tf.slice(tensor, [start] + [0] * (tensor.shape.rank - 1), [size, *tensor.shape[1:]])

    return tf.nest.map_structure(part, values)


def first_replica(strategy: tf.distribute.Strategy, results: Any) -> Any:
    return tf.nest.map_structure(lambda result: strategy.experimental_local_results(result)[0], results)


class Run(NamedTuple):
    """What some steps leave: the metrics of each, the learner, and how often the step was traced."""

    metrics: list[dict[str, float]]
    learner: Learner
    traces: int

    def state(self) -> dict[str, list[np.ndarray]]:
        return {
            role: [variable.numpy() for variable in variables]
            for role, variables in self.learner.state_variables.items()
        }


def train(
    strategy: tf.distribute.Strategy,
    algorithm: Algorithm,
    *,
    steps: int = 4,
    jit: bool = False,
    batch_norm: bool = True,
    unlabeled_weight: float = 1.0,
    **settings: Any,
) -> Run:
    """Takes steps in a tf.function, each on a batch of its own that does not depend on the strategy."""
    with strategy.scope():
        learner = Learner(network(batch_norm=batch_norm), optimization(**settings), seed=3)

    def replica_step(batch: Batch, step: tf.Tensor) -> Any:
        weight = tf.constant(unlabeled_weight)
        return Training(learner, algorithm).begin_step(replica_part(batch), Context(step, STEPS), weight).apply()

    @tf.function(jit_compile=jit)
    def step_once(batch: Batch, step: tf.Tensor) -> Any:
        return first_replica(strategy, strategy.run(replica_step, args=(batch, step)))

    results = [step_once(batch_for(algorithm, seed=step), tf.constant(step, tf.int64)) for step in range(steps)]
    metrics = [{name: float(total / count) for name, (total, count) in sums.items() if count} for sums in results]
    return Run(metrics, learner, step_once.experimental_get_tracing_count())
