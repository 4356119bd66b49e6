"""From a network's settings to what is trained."""

import logging

import keras

from metassl_tf.config import Network
from metassl_tf.data.examples import Dataset
from metassl_tf.errors import UserError
from metassl_tf.learner.learner import Learner, Optimization
from metassl_tf.models.build import build_model

_logger = logging.getLogger(__name__)


def build_learner(network: Network, dataset: Dataset, *, seed: int) -> Learner:
    """Builds a network with new random weights, and what updates it. Call it inside `strategy.scope()`.

    Args:
      network: its settings.
      dataset: gives the shape of the inputs and the number of classes.
      seed: with the step it gives every dropout mask.

    Returns:
      The learner, before its first step.

    Raises:
      UserError: the settings do not fit the data or each other.
    """
    model = build_network(network, dataset.train.shape, dataset.num_classes)
    return Learner(model, _optimization(network), seed=seed)


def build_network(network: Network, shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Builds a network with new random weights, from normalised inputs of a shape to logits.

    Raises:
      UserError: its settings do not fit the shape or each other.
    """
    try:
        return build_model(
            network.train.model, network.model, shape, num_classes, single_logit=network.train.single_logit
        )
    except UserError as error:
        if not network.prefix:
            raise
        raise UserError(f"Of the network whose flags begin with --{network.prefix}: {error}") from error


def _optimization(network: Network) -> Optimization:
    train, prefix = network.train, network.prefix
    if train.warmup_steps >= train.steps:
        raise UserError(
            f"--{prefix}warmup_steps={train.warmup_steps} does not end before --steps={train.steps}. "
            "Expected fewer steps of warm-up than of training."
        )
    if not train.ema_ramp and train.steps < 5 / (1 - train.ema_decay):
        _logger.warning(
            "The moving average with --%sema_decay=%g still remembers the initial weights after %d steps; "
            "use --ema_ramp or at least %d steps.",
            prefix,
            train.ema_decay,
            train.steps,
            round(5 / (1 - train.ema_decay)),
        )
    return Optimization(
        rule=network.rule,
        schedule=network.schedule,
        learning_rate=train.learning_rate,
        total_steps=train.steps,
        warmup_steps=train.warmup_steps,
        l2_weight_decay=train.l2_weight_decay,
        weight_decay_coverage=train.weight_decay_coverage,
        gradient_clip_norm=train.gradient_clip_norm,
        ema_decay=train.ema_decay,
        ema_ramp=train.ema_ramp,
        ema_statistics=train.ema_statistics,
    )
