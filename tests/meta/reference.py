"""Influences on the tiny network by other means: closed forms in NumPy, plain automatic differentiation of Keras."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import keras
import numpy as np
import tensorflow as tf

from metassl_tf import losses
from metassl_tf.algorithms.base import Algorithm, Context, Forward, Losses
from metassl_tf.algorithms.batch import Batch, Side
from metassl_tf.algorithms.fixmatch import FixMatch
from metassl_tf.algorithms.pseudo_label import PseudoLabel
from metassl_tf.algorithms.uda import Uda
from metassl_tf.learner.learner import Learner
from metassl_tf.meta.scopes import LastLayer, Objective, StepLosses, head_inputs, network_objective, validation_share
from tests.learner import tiny


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquaredErrorMatch(FixMatch):
    """FixMatch with soft labels and the squared error of probabilities, which is not convex in the logits."""

    def losses(self, forward: Forward, batch: Batch, context: Context) -> Losses:
        logits: dict[str, tf.Tensor] = {}

        def remember(*arguments: Any, **options: Any) -> dict[str, tf.Tensor]:
            logits.update(forward(*arguments, **options))
            return logits

        found = super().losses(cast(Forward, remember), batch, context)
        values = losses.squared_error(tf.stop_gradient(tf.nn.softmax(logits["weak"])), logits["strong"])
        return found._replace(unlabeled={"consistency": found.unlabeled["consistency"]._replace(values=values)})


ALGORITHMS: dict[str, Algorithm] = {
    "fixmatch": FixMatch(threshold=0.82),
    "uda": Uda(threshold=0.82, temperature=0.5),
    "pseudo_label": PseudoLabel(threshold=0.82),
    "squared_error": SquaredErrorMatch(threshold=0.82),
}
L2, UNLABELED_WEIGHT, VALIDATION = 0.03, 1.5, 6
# Of every size, 0 among them.
WEIGHTS = np.linspace(0.0, 2.0, tiny.UNLABELED).astype(np.float32)


def learner(strategy: tf.distribute.Strategy | None = None, *, dropout: float = 0.0, l2: float = L2) -> Learner:
    """A network with batch norm; the same each time."""
    with (strategy or tf.distribute.get_strategy()).scope():
        model = tiny.network(batch_norm=True, dropout=dropout)
        return Learner(model, tiny.optimization(l2_weight_decay=l2), seed=3)


def validation() -> Side:
    """A batch of validation examples."""
    generator = np.random.default_rng(5)
    return Side(
        views={"plain": tf.constant(generator.normal(size=(VALIDATION, tiny.FEATURES)), tf.float32)},
        label=tf.constant(generator.integers(tiny.CLASSES, size=VALIDATION), tf.int64),
        index=tf.range(VALIDATION, dtype=tf.int64),
        columns={},
    )


def step_losses(
    algorithm: Algorithm,
    *,
    batch: Batch | None = None,
    weights: np.ndarray | tf.Tensor = WEIGHTS,
    unlabeled_weight: float = UNLABELED_WEIGHT,
    masked: bool = True,
    step: int = 0,
) -> StepLosses:
    return StepLosses(
        algorithm=algorithm,
        batch=batch or tiny.batch_for(algorithm),
        context=tiny.context(step),
        unlabeled_weight=tf.constant(unlabeled_weight),
        example_weights=tf.convert_to_tensor(weights),
        masked=masked,
    )


def objective(
    own: Learner, scope: str, step: StepLosses, examples: Side, *, training: bool = True
) -> tuple[Objective, LastLayer | None]:
    """The losses by the parameters of a scope; of the last layer by replaying the step's passes."""
    inputs = {"validation": examples.views["plain"]}
    if scope != "last_layer":
        whole = network_objective(
            own,
            scope,
            step,
            validation=inputs,
            validation_loss=lambda logits: validation_share(logits, examples.label),
            training=training,
        )
        return whole, None
    forward = own.begin(step.context.step, training=training)
    step.terms(forward)
    apart = own.begin(step.context.step, training=training)
    apart(inputs, update_statistics=False)
    layer = LastLayer(
        head=own.head,
        step=step,
        calls=forward.calls,
        validation_features=head_inputs(own.head, apart.calls[0].features),
        validation_loss=lambda logits: validation_share(logits, examples.label),
    )
    return layer.objective(own), layer


class Problem(NamedTuple):
    """The pieces of Eq. 6 in float64, and the losses they belong to.

    Attributes:
      unlabeled: g_u of every unlabeled example, [unlabeled, parameters].
      hessian: H with L2 and without damping, [parameters, parameters]; of the squared error, Gauss' and Newton's.
      validation: g_val, [parameters].
      training_loss: without L2.
      validation_loss: mean.
      mask: bool [unlabeled].
    """

    unlabeled: np.ndarray
    hessian: np.ndarray
    validation: np.ndarray
    training_loss: float
    validation_loss: float
    mask: np.ndarray

    def influence(self, damping: float) -> np.ndarray:
        damped = self.hessian + damping * np.eye(len(self.hessian))
        return -self.unlabeled @ np.linalg.solve(damped, self.validation)


def last_layer_problem(
    model: keras.Model,
    algorithm: Algorithm,
    *,
    training: bool = True,
    masked: bool = True,
    unlabeled_weight: float = UNLABELED_WEIGHT,
) -> Problem:
    """Closed forms of softmax regression on the features in front of the last layer, example by example."""
    batch, examples = tiny.batch_for(algorithm), validation()
    body = keras.Model(model.inputs, model.layers[-1].input)
    kernel, bias = (variable.numpy().astype(np.float64) for variable in model.layers[-1].variables)
    matrix = np.concatenate([kernel, bias[np.newaxis]])  # [D + 1, K]

    def features(inputs: tf.Tensor) -> np.ndarray:
        with keras.StatelessScope():
            found = body(inputs, training=training).numpy().astype(np.float64)
        return np.concatenate([found, np.ones([len(found), 1])], axis=1)

    rows = features(_joint(batch))
    labeled, strong = rows[: tiny.LABELED], rows[-tiny.UNLABELED :]
    target, mask = unlabeled_targets(algorithm, rows[tiny.LABELED :][: tiny.UNLABELED] @ matrix)
    counted = mask if masked else np.ones_like(mask)

    hessian = np.zeros([matrix.size, matrix.size])
    loss = 0.0
    coefficients = unlabeled_weight * WEIGHTS * mask / tiny.UNLABELED
    for row, goal in zip(labeled, np.eye(tiny.CLASSES)[batch.labeled.label], strict=True):
        value, _, curvature = _cross_entropy(goal, _softmax(row @ matrix))
        hessian += np.kron(np.outer(row, row), curvature) / tiny.LABELED
        loss += value / tiny.LABELED
    slopes = []
    for row, goal, coefficient in zip(strong, target, coefficients, strict=True):
        value, slope, curvature = _unlabeled_loss(algorithm)(goal, _softmax(row @ matrix))
        hessian += coefficient * np.kron(np.outer(row, row), curvature)
        loss += coefficient * value
        slopes.append(np.outer(row, slope).reshape(-1))
    hessian += L2 * np.diag(np.repeat(np.arange(len(matrix)) < len(kernel), tiny.CLASSES))  # kernels only

    shares = unlabeled_weight * counted / tiny.UNLABELED
    unlabeled = shares[:, np.newaxis] * np.stack(slopes)
    outer = features(examples.views["plain"])
    probability, goals = _softmax(outer @ matrix), np.eye(tiny.CLASSES)[examples.label]
    return Problem(
        unlabeled,
        hessian,
        (outer.T @ (probability - goals)).reshape(-1) / VALIDATION,
        loss,
        float(-np.mean(np.sum(goals * np.log(probability), axis=1))),
        mask,
    )


def network_problem(own: Learner, algorithm: Algorithm, *, training: bool = True) -> Problem:
    """Jacobians of the [batch] losses and of the gradient by all parameters, of Keras' own call of the model."""
    batch, examples, model = tiny.batch_for(algorithm), validation(), own.model
    parameters = [variable.value for variable in model.trainable_variables]
    decay = [L2 if "kernel" in variable.name else 0.0 for variable in model.trainable_variables]
    entropy = tf.nn.softmax_cross_entropy_with_logits

    def call(inputs: tf.Tensor) -> tf.Tensor:
        with keras.StatelessScope():  # keeps the moving statistics as they are
            return model(inputs, training=training)

    with tf.GradientTape() as outer:
        with tf.GradientTape(persistent=True) as inner:
            logits = call(_joint(batch))
            goals, mask = unlabeled_targets(algorithm, logits[tiny.LABELED :][: tiny.UNLABELED].numpy())
            each = entropy(tf.constant(goals, tf.float32), logits[-tiny.UNLABELED :])
            each *= UNLABELED_WEIGHT * mask.astype(np.float32) / tiny.UNLABELED
            supervised = entropy(tf.one_hot(batch.labeled.label, tiny.CLASSES), logits[: tiny.LABELED])
            loss = tf.reduce_mean(supervised) + tf.reduce_sum(WEIGHTS * each)
            outer_loss = tf.reduce_mean(
                entropy(tf.one_hot(examples.label, tiny.CLASSES), call(examples.views["plain"]))
            )
        slope = tf.concat([tf.reshape(part, [-1]) for part in inner.gradient(loss, parameters)], axis=0)
        per_example = inner.jacobian(each, parameters)
        validation_slope = inner.gradient(outer_loss, parameters)
    rows = outer.jacobian(slope, parameters)
    sizes = [int(tf.size(part)) for part in parameters]
    return Problem(
        _flat(per_example, tiny.UNLABELED),
        _flat(rows, sum(sizes)) + np.diag(np.repeat(decay, sizes)),
        _flat(validation_slope, 1)[0],
        float(loss),
        float(outer_loss),
        mask,
    )


def unlabeled_targets(algorithm: Algorithm, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distribution that each unlabeled example is trained towards, and whether it is; from the weak view."""
    probability = _softmax(logits.astype(np.float64))
    confidence = probability.max(axis=1)
    if isinstance(algorithm, Uda):
        return _softmax(logits / algorithm.temperature), confidence > algorithm.threshold
    if isinstance(algorithm, SquaredErrorMatch):
        return probability, confidence > algorithm.threshold
    return np.eye(tiny.CLASSES)[probability.argmax(axis=1)], confidence > algorithm.threshold


def relative_error(found: np.ndarray | tf.Tensor, expected: np.ndarray | tf.Tensor) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _joint(batch: Batch) -> tf.Tensor:
    return tf.concat([*batch.labeled.views.values(), *batch.unlabeled.views.values()], axis=0)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponential = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


Pieces = tuple[float, np.ndarray, np.ndarray]  # loss of one example, its slope and its curvature by the logits


def _cross_entropy(goal: np.ndarray, probability: np.ndarray) -> Pieces:
    curvature = np.diag(probability) - np.outer(probability, probability)
    return float(-np.sum(goal * np.log(probability))), probability - goal, curvature


def _divergence(goal: np.ndarray, probability: np.ndarray) -> Pieces:
    loss, slope, curvature = _cross_entropy(goal, probability)
    return loss + float(np.sum(goal * np.log(goal))), slope, curvature


def _squared_error(goal: np.ndarray, probability: np.ndarray) -> Pieces:
    jacobian = np.diag(probability) - np.outer(probability, probability)
    return float(np.sum((probability - goal) ** 2)), 2 * jacobian @ (probability - goal), 2 * jacobian @ jacobian


def _unlabeled_loss(algorithm: Algorithm) -> Callable[[np.ndarray, np.ndarray], Pieces]:
    return {Uda: _divergence, SquaredErrorMatch: _squared_error}.get(type(algorithm), _cross_entropy)


def _flat(parts: list[tf.Tensor], count: int) -> np.ndarray:
    return np.concatenate([np.reshape(part, [count, -1]) for part in parts], axis=1).astype(np.float64)
