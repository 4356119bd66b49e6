"""Which parameters an influence is about, and the losses of a step as functions of those parameters alone.

The last layer sees fixed features, so its losses are functions of what the training step's own passes left behind:
no network is run. For the last block and for all parameters the network is run again at the given values. Either way
the losses are those that are minimised: the algorithm's own terms, divided, weighted and masked as in training.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from metassl_tf import losses as losses_lib
from metassl_tf.algorithms.base import Algorithm, Context, Forward, Losses
from metassl_tf.algorithms.batch import Batch, Inputs
from metassl_tf.hypergrad.last_layer import with_ones
from metassl_tf.hypergrad.products import Vector
from metassl_tf.learner import distribution
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.passes import Call
from metassl_tf.learner.step import contributions, reduce_terms
from metassl_tf.models.head import Head

SCOPES = ("last_layer", "last_block", "all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepLosses:
    """One step's losses, given how the algorithm's forward passes are made.

    Attributes:
      algorithm: gives the terms.
      batch: this replica's part of the global batch.
      context: where in the run this is.
      unlabeled_weight: float32 scalar.
      example_weights: float32 [unlabeled batch], those that the training step uses.
      masked: whether what a mask removes has an influence of 0.
    """

    algorithm: Algorithm
    batch: Batch
    context: Context
    unlabeled_weight: tf.Tensor
    example_weights: tf.Tensor
    masked: bool

    @property
    def num_examples(self) -> int:
        """Unlabeled and labeled examples of this replica."""
        return int(self.batch.unlabeled.index.shape[0] + self.batch.labeled.index.shape[0])

    def terms(self, forward: Forward) -> Losses:
        """The algorithm's terms."""
        return self.algorithm.losses(forward, self.batch, self.context)

    def training(self, forward: Forward, subset: tf.Tensor | None = None) -> tf.Tensor:
        """This replica's share of the loss that is minimised, L2 aside.

        Args:
          forward: makes the passes.
          subset: 0 or 2 for each unlabeled and labeled example, [unlabeled + labeled]: another, unbiased estimate.
        """
        terms = self.terms(forward)
        weights = self.example_weights
        if subset is not None:
            count = weights.shape[0]
            weights = weights * subset[:count]
            labeled = {name: term._replace(values=term.values * subset[count:]) for name, term in terms.labeled.items()}
            terms = terms._replace(labeled=labeled)
        return reduce_terms(terms, self.unlabeled_weight, weights)[0]

    def unlabeled(self, forward: Forward) -> tf.Tensor:
        """What each unlabeled example adds to that loss at a weight of 1, [unlabeled batch]."""
        return contributions(self.terms(forward), self.unlabeled_weight, masked=self.masked)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The losses as functions of the parameters of a scope, all of them this replica's shares.

    Attributes:
      parameters: the present values.
      decay: what the L2 term adds to the Hessian's diagonal, a number or a tensor per parameter.
      training: parameters -> loss that is minimised, scalar; a subset of examples may be given beside them.
      unlabeled: parameters -> contribution of every unlabeled example, [unlabeled batch].
      validation: parameters -> mean validation loss, scalar.
      num_examples: unlabeled and labeled examples of this replica: the length of a subset.
    """

    parameters: Vector
    decay: Sequence[tf.Tensor | float]
    training: Callable[..., tf.Tensor]
    unlabeled: Callable[[Vector], tf.Tensor]
    validation: Callable[[Vector], tf.Tensor]
    num_examples: int

    def at(self, parameters: Vector) -> "Objective":
        """The same losses with other present values."""
        return dataclasses.replace(self, parameters=parameters)


class Replay:
    """A `Forward` that makes the recorded passes of a step again with other weights of the last layer."""

    def __init__(self, head: Head, calls: Sequence[Call], outputs: Sequence[tf.Tensor]) -> None:
        """Starts at the first pass.

        Args:
          head: of the model.
          calls: the passes of the step.
          outputs: of the Dense layer for each pass, [joint batch, outputs].
        """
        self._head, self._calls, self._outputs = head, calls, outputs
        self._next = 0

    def __call__(
        self,
        inputs: Mapping[str, Inputs],
        *,
        update_statistics: bool = True,
    ) -> dict[str, tf.Tensor]:
        """Returns the logits of the next pass."""
        del inputs, update_statistics
        call, outputs = self._calls[self._next], self._outputs[self._next]
        self._next += 1
        logits = tf.cast(self._head.logits_of(outputs), tf.float32)
        sizes = [part.shape[0] for part in call.logits.values()]
        return dict(zip(call.logits, tf.split(logits, sizes), strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LastLayer:
    """The last layer's losses, by its [features (+ 1), outputs] matrix: the bias is the row of the constant feature.

    Attributes:
      head: of the model.
      step: the losses.
      calls: the training step's own passes.
      validation_features: [validation batch, features (+ 1)].
      validation_loss: logits of the validation batch -> this replica's share of its mean loss, scalar.
    """

    head: Head
    step: StepLosses
    calls: Sequence[Call]
    validation_features: tf.Tensor
    validation_loss: Callable[[tf.Tensor], tf.Tensor]

    @property
    def features(self) -> tf.Tensor:
        """Of all passes behind each other, [rows, features (+ 1)]."""
        return tf.concat([head_inputs(self.head, call.features) for call in self.calls], axis=0)

    def matrix(self) -> tf.Tensor:
        """The present weights, the bias as the last row."""
        kernel = tf.convert_to_tensor(self.head.kernel.value)
        if self.head.bias is None:
            return kernel
        return tf.concat([kernel, tf.convert_to_tensor(self.head.bias.value)[tf.newaxis]], axis=0)

    def replay(self, outputs: tf.Tensor) -> Replay:
        """The step's passes at these outputs of the layer, [rows, outputs]."""
        sizes = [sum(part.shape[0] for part in call.logits.values()) for call in self.calls]
        return Replay(self.head, self.calls, tf.split(outputs, sizes))

    def objective(self, learner: Learner) -> Objective:
        """The losses by the matrix, the only parameter."""
        features, validation = self.features, self.validation_features
        kernel_decay = learner.decay_of(self.head.kernel)
        decay = tf.fill([self.head.kernel.shape[0], 1], kernel_decay)
        if self.head.bias is not None:
            decay = tf.concat([decay, tf.fill([1, 1], learner.decay_of(self.head.bias))], axis=0)
        return Objective(
            parameters=[self.matrix()],
            decay=[decay],
            training=lambda at, subset=None: self.step.training(self.replay(features @ at[0]), subset),
            unlabeled=lambda at: self.step.unlabeled(self.replay(features @ at[0])),
            validation=lambda at: self.validation_loss(self.head.logits_of(validation @ at[0])),
            num_examples=self.step.num_examples,
        )


def head_inputs(head: Head, features: tf.Tensor) -> tf.Tensor:
    """A pass' features as rows of constants, with the 1 that the bias belongs to where there is one."""
    features = tf.cast(tf.stop_gradient(features), head.kernel.dtype)
    return features if head.bias is None else with_ones(features)


def network_objective(
    learner: Learner,
    scope: str,
    step: StepLosses,
    *,
    validation: Mapping[str, Inputs],
    validation_loss: Callable[[tf.Tensor], tf.Tensor],
    training: bool,
) -> Objective:
    """The losses by the parameters of the last block, or by all.

    Args:
      learner: whose network is run.
      scope: `last_block` or `all`.
      step: the losses.
      validation: one named input, [validation batch, ...].
      validation_loss: its logits -> this replica's share of the mean loss, scalar.
      training: whether the passes are in training mode; they never move statistics.

    Returns:
      The losses; each evaluation runs the network.
    """
    parameters = scope_parameters(learner, scope)

    def forward(at: Vector) -> Forward:
        return learner.begin(step.context.step, at=list(zip(parameters, at, strict=True)), training=training)

    return Objective(
        parameters=[tf.convert_to_tensor(parameter.value) for parameter in parameters],
        decay=[learner.decay_of(parameter) for parameter in parameters],
        training=lambda at, subset=None: step.training(forward(at), subset),
        unlabeled=lambda at: step.unlabeled(forward(at)),
        validation=lambda at: validation_loss(forward(at)(validation, update_statistics=False)["validation"]),
        num_examples=step.num_examples,
    )


VALIDATION_LOSSES = {"cross_entropy": losses_lib.cross_entropy, "squared_error": losses_lib.squared_error}
"""What weights can be fitted by; the second saturates: no example costs more than 2."""


def validation_share(logits: tf.Tensor, label: tf.Tensor, *, loss: str = "cross_entropy") -> tf.Tensor:
    """This replica's share of L_S(V): the mean loss, of `VALIDATION_LOSSES`, over the global validation batch."""
    target = tf.one_hot(label, logits.shape[-1], dtype=logits.dtype)
    replicas = distribution.replica_context().num_replicas_in_sync
    return tf.reduce_mean(VALIDATION_LOSSES[loss](target, logits)) / replicas


def scope_parameters(learner: Learner, scope: str) -> list[keras.Variable]:
    """The trainable variables of a scope, in the model's order.

    The last block is what comes behind the second to last sum of two branches, which in a residual network is its
    last block and its head; without two such sums it is the last two layers that have kernels.

    Args:
      learner: of the network.
      scope: a member of `SCOPES`.
    """
    if scope == "last_layer":
        return learner.head.parameters if learner.head else []
    if scope == "all":
        return learner.parameters
    layers = _flat_layers(learner.model)
    sums = [place for place, layer in enumerate(layers) if isinstance(layer, keras.layers.Add)]
    kernels = [place for place, layer in enumerate(layers) if _has_kernel(layer)]
    first = sums[-2] if len(sums) > 1 else kernels[-2] if len(kernels) > 1 else 0
    chosen = {id(variable) for layer in layers[first:] for variable in layer.trainable_variables}
    return [parameter for parameter in learner.parameters if id(parameter) in chosen]


def _flat_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers in the order of computation, those of nested models in their place."""
    flat: list[keras.layers.Layer] = []
    for layer in model.layers:
        flat.extend(_flat_layers(layer) if isinstance(layer, keras.Model) else [layer])
    return flat


def _has_kernel(layer: keras.layers.Layer) -> bool:
    return any("kernel" in variable.name for variable in layer.trainable_variables)
