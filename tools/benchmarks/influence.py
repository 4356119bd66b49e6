"""What learned weights cost: scores, an update of the weights, and the ways to apply the inverse Hessian."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms.base import Context
from metassl_tf.engine.run import make_step, training_data
from metassl_tf.engine.setup import Experiment
from metassl_tf.hypergrad import per_example, solvers
from metassl_tf.hypergrad.products import (
    Vector,
    combine,
    dot,
    forward_mode_product,
    gradient,
    hessian_vector_product,
)
from metassl_tf.learner.step import evaluate
from metassl_tf.meta.weight_table import WeightTable
from metassl_tf.meta.weighting import Weighting
from tools.benchmarks import experiments
from tools.benchmarks.compare import Side, rate_ratios, time_ratios

_FLAGFILE = "flags/cifar10/fixmatch_4000.flags"
_LEARNED = ("--meta=per_example_weights", "--weight_update_steps=100")
_BATCH = 64  # examples whose scores are taken
_SMALL = (*_LEARNED, "--batch_size=8", "--unlabeled_ratio=4", "--num_meta_validation=32")
_FULL = (*_LEARNED, "--num_meta_validation=448")


class Scores:
    """The scores v . grad loss_u of one batch of WRN-28-2, in all the ways there are."""

    def __init__(self, *, training: bool) -> None:
        """Builds the network, a batch of noise and a random direction v.

        Args:
          training: mode of the network; in training, examples interact through batch normalisation.
        """
        self._learner = experiments.build_on_noise(_FLAGFILE, _FULL).learner
        generator = tf.random.Generator.from_seed(0)
        self._inputs = generator.normal([_BATCH, 32, 32, 3])
        self._target = tf.one_hot(tf.range(_BATCH) % 10, 10)
        self._training = training
        self._parameters = self._learner.parameters
        self._direction = [generator.normal(parameter.shape) for parameter in self._parameters]

    def _values(self, at: Vector) -> tf.Tensor:
        forward = self._learner.begin(
            tf.zeros([], tf.int64), at=list(zip(self._parameters, at, strict=True)), training=self._training
        )
        logits = forward({"batch": self._inputs}, update_statistics=False)["batch"]
        return losses.cross_entropy(self._target, logits)

    def _present(self) -> Vector:
        return [tf.convert_to_tensor(parameter.value) for parameter in self._parameters]

    def batch_gradient(self) -> Vector:
        """The gradient of the mean loss: what a training step takes anyway."""
        return gradient(lambda at: tf.reduce_mean(self._values(at)), self._present())

    def jacobian_vector(self) -> tf.Tensor:
        """All scores at once, as an influence takes them."""
        return forward_mode_product(self._values, self._present(), self._direction, save_memory=True)

    def _loss_of_one(self, example: Any) -> tf.Tensor:
        inputs, target = example
        logits = self._learner.model(inputs[tf.newaxis], training=False)
        return losses.cross_entropy(target[tf.newaxis], logits)[0]

    def _per_example(self, method: Callable[..., list[tf.Tensor]]) -> tf.Tensor:
        gradients = method(self._loss_of_one, self._parameters, (self._inputs, self._target))
        return tf.vectorized_map(lambda parts: dot(parts, self._direction), gradients)

    def vectorized(self) -> tf.Tensor:
        """Scores from per-example gradients by `tf.vectorized_map`."""
        return self._per_example(per_example.vectorized)

    def serial(self) -> tf.Tensor:
        """Scores from per-example gradients, one example after the other."""
        return self._per_example(per_example.serial)


def _side(function: Callable[[], Any], amount: float = 1.0) -> Side:
    compiled = tf.function(function, autograph=False)

    def work() -> float:
        for part in tf.nest.flatten(compiled()):
            part.numpy()
        return amount

    return Side(work=work)


def scores_vs_batch_gradient(runs: int) -> Iterator[float]:
    """Time of the scores of 64 examples over all parameters, over one gradient of the same batch; training mode."""
    scores = Scores(training=True)
    return time_ratios(_side(scores.jacobian_vector), _side(scores.batch_gradient), runs)


def scores_vs_vectorized_map(runs: int) -> Iterator[float]:
    """Scores a second, by one Jacobian-vector product over by vectorised per-example gradients; inference mode."""
    scores = Scores(training=False)
    return rate_ratios(_side(scores.jacobian_vector), _side(scores.vectorized), runs)


def scores_vs_serial(runs: int) -> Iterator[float]:
    """Scores a second, by one Jacobian-vector product over by one gradient per example; inference mode."""
    scores = Scores(training=False)
    return rate_ratios(_side(scores.jacobian_vector), _side(scores.serial), runs)


class Update:
    """One update of the weights, apart from the training step whose forward pass it shares."""

    def __init__(self, changes: Sequence[str]) -> None:
        """Builds an experiment on noise and takes its first batches.

        Args:
          changes: flags that win over the flagfile's.
        """
        self.experiment: Experiment = experiments.build_on_noise(_FLAGFILE, changes)
        if self.experiment.weighting is None:
            raise TypeError("Expected a flagfile with learned weights.")
        self._weighting: Weighting = self.experiment.weighting
        data = training_data(self.experiment, 0)
        self._batch, self._validation = next(iter(data["training"])), next(iter(data["validation"]))
        self._context = Context(tf.zeros([], tf.int64), self.experiment.config.train.steps)
        # The training step's own pass, made once: an update is given what that has left behind.
        self._calls = evaluate(
            self.experiment.learner,
            self.experiment.config.algorithm,
            self._batch,
            self._context,
            unlabeled_weight=tf.ones([]),
        ).forward.calls

    def side(self) -> Side:
        """Validation pass, influence, and the table."""

        def update() -> tf.Tensor:
            found = self._weighting.influence_of(self._batch, self._validation, self._context, tf.ones([]), self._calls)
            self._weighting.table.update(self._batch.unlabeled.index, found.derivative)
            return found.derivative

        return _side(update)


def weight_update_vs_step(runs: int) -> Iterator[float]:
    """Time of an update of the weights over a FixMatch step: last layer, exact; 64 + 2 x 448 images, 448 validation."""
    update = Update(_FULL)
    step = tf.function(make_step(update.experiment).take, autograph=False)
    iterator = tf.nest.map_structure(iter, training_data(update.experiment, 0))
    # A step without an update: 1 is no multiple of N.
    context = Context(tf.ones([], tf.int64), update.experiment.config.train.steps)

    def plain() -> float:
        tf.nest.map_structure(lambda value: value.numpy(), step(iterator, context))
        return 1.0

    return time_ratios(update.side(), Side(work=plain), runs)


def exact_vs_identity(runs: int) -> Iterator[float]:
    """Time of an update with the exact inverse Hessian of the last layer, over one that takes the identity for it."""
    exact, identity = Update(_FULL), Update([*_FULL, "--inverse_hessian=identity"])
    return time_ratios(exact.side(), identity.side(), runs)


def exact_vs_neumann(runs: int) -> Iterator[float]:
    """Updates a second, exact over the last layer over 20 Neumann terms over the last block; small batches."""
    neumann = ["--influence_scope=last_block", "--inverse_hessian=neumann", "--series_step_size=1e-3"]
    return rate_ratios(Update(_SMALL).side(), Update([*_SMALL, *neumann]).side(), runs)


_CLASSES, _FEATURES, _ROWS, _ITERATIONS, _IMAGES = 1000, 2048, 512, 20, 16
_DAMPING = 1e-3


def many_classes_inputs() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """A last layer of 2048 features and 1000 classes: features and targets of 512 rows, and the kernel."""
    generator = tf.random.Generator.from_seed(0)
    features = tf.nn.relu(generator.normal([_ROWS, _FEATURES])) / _FEATURES**0.5
    return features, tf.one_hot(tf.range(_ROWS) % _CLASSES, _CLASSES), generator.normal([_FEATURES, _CLASSES])


def many_classes_solve(features: tf.Tensor, target: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """H^-1 g of that layer by 20 steps of conjugate gradients."""

    def loss(at: Vector) -> tf.Tensor:
        return tf.reduce_mean(losses.cross_entropy(target, features @ at[0]))

    def product(vector: Vector) -> Vector:
        return combine(hessian_vector_product(loss, [kernel], vector), _DAMPING, vector)

    return solvers.conjugate_gradient(product, gradient(loss, [kernel]), iterations=_ITERATIONS).vector[0]


def many_classes_vs_forward(runs: int) -> Iterator[float]:
    """Time of that solution, per image of its 512, over a forward pass of ResNet-50 on images of 224 x 224 pixels."""
    network = keras.applications.ResNet50(weights=None, classes=_CLASSES)
    images = tf.random.Generator.from_seed(1).normal([_IMAGES, 224, 224, 3])
    layer = many_classes_inputs()
    ours = _side(lambda: many_classes_solve(*layer), float(_ROWS))
    theirs = _side(lambda: network(images, training=False), float(_IMAGES))
    return time_ratios(ours, theirs, runs)


def weight_table_1e8_vs_1e4(runs: int) -> Iterator[float]:
    """Time of an update of 448 weights among 10^8, over one among 10^4."""

    def side(size: int) -> Side:
        table = WeightTable(size, strategy=tf.distribute.get_strategy(), rule="masked_adam", learning_rate=0.01)
        generator = tf.random.Generator.from_seed(0)

        @tf.function(autograph=False)
        def update() -> None:
            table.update(generator.uniform([448], 0, size, tf.int64), generator.normal([448]))

        def work() -> float:
            for _ in range(50):
                update()
            table.updates.numpy()
            return 50.0

        return Side(work=work)

    return time_ratios(side(10**8), side(10**4), runs)
