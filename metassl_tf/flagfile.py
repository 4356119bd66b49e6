"""A config as the text of a flagfile that alone reproduces it: every setting that has an effect, and no other."""

import dataclasses
from typing import Any, cast

from metassl_tf.algorithms.batch import GIVEN_LABEL, TEACHER_LABEL
from metassl_tf.config import Config
from metassl_tf.data.sources import heeded_flags
from metassl_tf.meta.meta_pseudo_labels import MetaPseudoLabels

_RAMP = ("unlabeled_weight", "unlabeled_ramp", "unlabeled_ramp_steps")
_UNLABELED = (
    *_RAMP,
    "unlabeled_ratio",
    "unlabeled_dataset",
    "labeled_in_unlabeled",
    "pollute_unlabeled",
    "pollution",
)
_GIVEN = ("given_labels", "flip_labels")
_STORED = ("stored_labels", "most_confident_per_class", "balance_classes")
_STRONG = ("strong_policy", "strong_layers", "strong_magnitude", "point_noise")


def unused(config: Config) -> dict[str, str]:
    """Settings without an effect under the others, and why; giving one of them is a mistake.

    Args:
      config: any config.

    Returns:
      setting name -> the reason.
    """
    needs, algorithm = config.needs, f"--algorithm={config.train.algorithm}"
    reasons: dict[str, str] = {}
    if not needs.unlabeled_views:
        reasons |= dict.fromkeys(_UNLABELED, f"{algorithm} uses no unlabeled examples")
    elif not config.algorithm.needs().unlabeled_views:
        reasons |= dict.fromkeys(_RAMP, f"{algorithm} has no unlabeled loss of its own")
    elif config.train.unlabeled_ramp == "constant":
        reasons["unlabeled_ramp_steps"] = "--unlabeled_ramp=constant does not grow"
    if needs.unlabeled_views and not config.data.pollute_unlabeled:
        reasons["pollution"] = "--pollute_unlabeled is 0"
    if GIVEN_LABEL not in needs.unlabeled_columns:
        reasons |= dict.fromkeys(_GIVEN, f"{algorithm} uses no given labels (given_labels does)")
    if TEACHER_LABEL not in needs.unlabeled_columns:
        reasons |= dict.fromkeys(_STORED, f"{algorithm} uses no stored labels (noisy_student does)")
    if "strong" not in (*needs.labeled_views.values(), *needs.unlabeled_views.values()):
        reasons |= dict.fromkeys(_STRONG, f"{algorithm} uses no strong view")
    pool = config.data.unlabeled_dataset if needs.unlabeled_views else ""
    if "memory_limit" not in heeded_flags(config.data.dataset, pool):
        reasons["memory_limit"] = "neither --dataset nor --unlabeled_dataset decodes images of files"
    if config.run.distribution != "tpu":
        reasons["tpu"] = "--distribution is not tpu"
    for rule in config.meta:
        reasons |= rule.unused()
    taught = config.meta_rule(MetaPseudoLabels)
    if taught and taught.freeze_teacher and config.teacher:
        own = [field.name for field in dataclasses.fields(cast(Any, config.algorithm))]
        useless = [*config.teacher.of_updates(), *_RAMP, *own]
        reasons |= dict.fromkeys(useless, "a teacher that --freeze_teacher holds learns nothing")
    return reasons


def flag_text(value: Any) -> str:
    """Writes a setting's value as a command line takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return ",".join(str(item) for item in value)
    return repr(value) if isinstance(value, float) else str(value)


def to_flagfile(config: Config) -> str:
    """Writes a config as the text of a flagfile that alone reproduces it.

    Args:
      config: any config.

    Returns:
      One `--name=value` line per setting that has an effect.
    """
    without_effect = unused(config)
    values = {name: value for name, value in config.values().items() if name not in without_effect}
    return "".join(f"--{name}={flag_text(value)}\n" for name, value in values.items())
