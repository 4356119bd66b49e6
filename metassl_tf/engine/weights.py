"""Learned weights in a run: built from the settings, and said clearly when they cannot be learned or will not move."""

import dataclasses
import logging

import numpy as np
import tensorflow as tf

from metassl_tf.algorithms.base import Algorithm
from metassl_tf.config import Config
from metassl_tf.data.examples import Dataset, Examples
from metassl_tf.data.splits import Split
from metassl_tf.errors import UserError
from metassl_tf.meta.meta_pseudo_labels import TeachingSettings
from metassl_tf.meta.per_example_weights import PerExampleWeights
from metassl_tf.meta.weight_table import WeightTable
from metassl_tf.meta.weighting import WeightedTraining, Weighting

_logger = logging.getLogger(__name__)

# Adam moves a weight by at most about its learning rate each time: below this the weights stay what they were.
SMALLEST_MOVEMENT = 0.1


def build_weighting(
    config: Config,
    training: WeightedTraining,
    dataset: Dataset,
    split: Split,
    meta_validation: Examples,
    strategy: tf.distribute.Strategy,
) -> Weighting | None:
    """Builds the rule that `--meta=per_example_weights` asks for, with its table.

    Args:
      config: of the run.
      training: in which the unlabeled examples are learned from.
      dataset: for the names of the classes.
      split: whose unlabeled examples get a weight each.
      meta_validation: what the weights are fitted to.
      strategy: the devices.

    Returns:
      The rule, or None where the run does not ask for it.

    Raises:
      UserError: the algorithm has no unlabeled loss, there are no validation examples, or the model does not allow
        what the settings ask for.
    """
    settings = config.meta_rule(PerExampleWeights)
    if settings is None:
        return None
    teaching = config.meta_rule(TeachingSettings)
    if teaching:
        # Weights are of what the student learns, and of one that waits there is nothing to find out.
        first = max(settings.weight_warmup_steps, teaching.student_wait_steps)
        settings = dataclasses.replace(settings, weight_warmup_steps=first)
    _check_algorithm(config.train.algorithm, training.algorithm)
    _check_validation(meta_validation, dataset.class_names)
    _check_settings(settings, config)
    schedule = {
        "total_steps": config.train.steps,
        "batch_size": config.train.batch_size * config.train.unlabeled_ratio,
        "num_unlabeled": len(split.unlabeled),
    }
    _warn_of_small_movement(settings, settings.expected_updates(**schedule))
    table = WeightTable(
        1 if settings.single_weight else len(split.unlabeled),
        strategy=strategy,
        rule=settings.weight_optimizer,
        learning_rate=settings.weight_learning_rate,
        initial_weight=settings.initial_weight,
        max_weight=settings.max_weight,
        on_host=settings.weights_on_host,
        split_hash=split.hash,
    )
    every = settings.update_steps(**schedule)
    return Weighting(settings, table, training, every=every, seed=config.run.seed)


def meta_validation_batch_size(config: Config, examples: Examples, strategy: tf.distribute.Strategy) -> int:
    """Validation examples of one update over all replicas: as many as asked for, at most all, a share for each."""
    settings = config.meta_rule(PerExampleWeights)
    wanted = (
        settings and settings.meta_validation_batch_size
    ) or config.train.batch_size * config.train.unlabeled_ratio
    replicas = strategy.num_replicas_in_sync
    return max(1, min(wanted, len(examples)) // replicas) * replicas


def _check_settings(settings: PerExampleWeights, config: Config) -> None:
    if settings.weights_on_host and (config.run.xla or config.run.distribution == "tpu"):
        raise UserError(
            "--weights_on_host does not go with --xla or --distribution=tpu: what is compiled cannot read from the "
            "host. Expected one of the two."
        )
    if settings.max_weight and settings.initial_weight > settings.max_weight:
        raise UserError(
            f"--initial_weight={settings.initial_weight:g} is above --max_weight={settings.max_weight:g}. Expected it "
            "to lie between 0 and the largest weight."
        )
    if settings.weight_warmup_steps >= config.train.steps:
        raise UserError(
            f"--weight_warmup_steps={settings.weight_warmup_steps} does not end before --steps={config.train.steps}, "
            "so that no weight would ever move. Expected fewer steps of warm-up than of training."
        )


def _check_algorithm(name: str, algorithm: Algorithm) -> None:
    if not algorithm.needs().unlabeled_views:
        raise UserError(
            f"--meta=per_example_weights weighs unlabeled examples, and --algorithm={name} has no unlabeled loss. "
            "Expected an algorithm with one, such as fixmatch, uda, pseudo_label or given_labels."
        )


def _check_validation(examples: Examples, class_names: tuple[str, ...]) -> None:
    if len(examples) < 2:
        raise UserError(
            f"--meta=per_example_weights learns weights from validation examples, and there are {len(examples)}. "
            "Expected at least 2, better 10 of each class: set --num_meta_validation or --num_validation"
            ", or fill DIR/validation/<class>/ of an image folder."
        )
    missing = [name for label, name in enumerate(class_names) if not np.any(examples.labels == label)]
    if missing:
        _logger.warning(
            "The validation examples that weights are learned from have none of: %s. What helps those classes will "
            "not be seen.",
            ", ".join(missing),
        )


def _warn_of_small_movement(settings: PerExampleWeights, expected: float) -> None:
    _logger.info("Each weight is expected to be updated %.1f times.", expected)
    bounded = settings.weight_optimizer != "sgd"
    if not expected or (bounded and expected * settings.weight_learning_rate < SMALLEST_MOVEMENT):
        _logger.warning(
            "The weights will hardly move: %.1f updates per example of at most about %g each. Lower "
            "--weight_update_steps, raise --weight_learning_rate, or set --weight_updates_per_example.",
            expected,
            settings.weight_learning_rate,
        )
