"""Experiments that are varied, and groups of variants: what an ablation consists of."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from metassl_tf import flag_definitions
from metassl_tf.algorithms import ALGORITHMS
from metassl_tf.config import Config
from metassl_tf.meta import META_RULES

BASE = "base"
"""Name of the variant without changes."""

Changes = Mapping[str, Any]


class Base(NamedTuple):
    """An experiment that is varied.

    Attributes:
      title: for tables and plots.
      path: of its flagfile.
      changes: to that, such as those that make it learn weights and let it be looked at more often.
      groups: names of the groups of variants that it is asked about.
    """

    title: str
    path: str
    changes: Changes
    groups: tuple[str, ...]

    def config(self) -> Config:
        """Its settings."""
        return changed(flag_definitions.parse([f"--flagfile={self.path}"]), self.changes)


class Variant(NamedTuple):
    """Other settings.

    Attributes:
      changes: setting -> value, in place of the base's.
      reference: the variant of the group that it is compared with.
    """

    changes: Changes
    reference: str = BASE


class Group(NamedTuple):
    """A question.

    Attributes:
      title: what is varied, for tables and plots.
      source: where a paper asks it; empty for a question of our own.
      variants: name -> what is different.
      over_steps: whether test accuracy is drawn over steps as well.
    """

    title: str
    source: str
    variants: Mapping[str, Variant]
    over_steps: bool = False


def changed(config: Config, changes: Changes) -> Config:
    """Replaces settings, wherever in the config they are.

    Args:
      config: any.
      changes: setting -> value; `algorithm` and `meta`, names of these, start from the defaults of what they name.

    Returns:
      The new config. What has no effect in it stays as it was: `to_flagfile` leaves it out.

    Raises:
      ValueError: the config has no such setting.
    """
    if "algorithm" in changes:
        config = dataclasses.replace(config, algorithm=ALGORITHMS[changes["algorithm"]]())
    if "meta" in changes:
        config = dataclasses.replace(config, meta=tuple(META_RULES[name]() for name in changes["meta"]))
    if unknown := changes.keys() - config.values().keys():
        raise ValueError(f"The config has no settings {sorted(unknown)}.")

    def replaced(part: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(map(replaced, part))
        own = {field.name for field in dataclasses.fields(part)} if part is not None else set()
        return dataclasses.replace(part, **{name: changes[name] for name in changes if name in own}) if own else part

    return dataclasses.replace(
        config, **{field.name: replaced(getattr(config, field.name)) for field in dataclasses.fields(config)}
    )
