"""What an algorithm wants and what it returns.

An algorithm is a frozen dataclass whose fields are its hyperparameters. It says what it wants (`needs`) and turns
a batch into per-example losses (`losses`). It neither reduces, nor weighs, nor updates anything: the learner
divides by the global batch, the scalar unlabeled weight and its ramp are applied in one place, and a meta rule can
put a learned weight on every value of every unlabeled term.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

import tensorflow as tf

from metassl_tf.algorithms.batch import Batch, Inputs, View

Parameters = Literal["raw", "ema"]
"""Which weights of a network: those that are trained, or their moving average."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beta:
    """A draw from Beta(concentration, concentration) for every labeled example."""

    concentration: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """What the pipeline has to provide.

    Attributes:
      labeled_views: name of each labeled view and how it is made ("weak": flip and shift; "strong": RandAugment).
      unlabeled_views: the same for unlabeled examples; empty for an algorithm that uses none.
      unlabeled_columns: names of the values beside views and index that unlabeled examples must have.
      labeled_columns: the same for labeled examples.
      draws: random numbers per labeled example, by name.
    """

    labeled_views: Mapping[str, View]
    unlabeled_views: Mapping[str, View] = dataclasses.field(default_factory=dict)
    unlabeled_columns: tuple[str, ...] = ()
    labeled_columns: tuple[str, ...] = ()
    draws: Mapping[str, Beta] = dataclasses.field(default_factory=dict)


class Term(NamedTuple):
    """One term of the loss before it is reduced to `sum(mask * values) / sum(counts)` over the global batch.

    Attributes:
      values: [batch], the loss of each example.
      counts: [batch], how much each value adds to the divisor; None counts every one as 1, masked or not.
      mask: [batch], 0 for the values that do not count now, such as those of unconfident examples; None keeps all.
        It is apart from the values so that a learned weight can see what is masked.
    """

    values: tf.Tensor
    counts: tf.Tensor | None = None
    mask: tf.Tensor | None = None

    @property
    def counted_values(self) -> tf.Tensor:
        """The values with the masked ones at 0, [batch]."""
        return self.values if self.mask is None else self.mask * self.values


class Average(NamedTuple):
    """A logged quantity: `sum(values * counts) / sum(counts)` over the global batch; both [batch]."""

    values: tf.Tensor
    counts: tf.Tensor


class Losses(NamedTuple):
    """What an algorithm returns: terms over labeled examples, terms over unlabeled ones, and what to log."""

    labeled: dict[str, Term]
    unlabeled: dict[str, Term]
    metrics: dict[str, Average]


class Context(NamedTuple):
    """Where in the run this step is: `step`, int64 scalar, counted from 0, and `total_steps`."""

    step: tf.Tensor
    total_steps: int


class Forward(Protocol):
    """One training-mode pass of the model over several named inputs at once."""

    def __call__(
        self,
        inputs: Mapping[str, Inputs],
        *,
        update_statistics: bool = True,
    ) -> dict[str, tf.Tensor]:
        """Runs one joint pass.

        The inputs are concatenated, so batch norm sees them as one batch; exactly one pass of a step may update
        the moving statistics.

        Args:
          inputs: name to [batch, ...] inputs.
          update_statistics: whether batch norm's moving statistics follow this pass.

        Returns:
          name to logits, [batch, classes], float32.
        """


class Algorithm(Protocol):
    """A semi-supervised algorithm: its hyperparameters, what it needs, and its loss."""

    def needs(self) -> Needs:
        """Says which views and random numbers the algorithm wants."""

    def losses(self, forward: Forward, batch: Batch, context: Context) -> Losses:
        """Turns a batch into per-example losses."""
