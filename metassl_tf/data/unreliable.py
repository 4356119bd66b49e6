"""Given labels: labels that came with unlabeled examples and that nobody checked, and wrong ones to simulate with.

They stand in the column `given_label`, apart from `labels`, which are the truth and serve for measuring only: an
algorithm may train on given labels, and what it makes of the wrong ones can be measured against the truth.
"""

import numpy as np

from metassl_tf.algorithms.batch import GIVEN_LABEL
from metassl_tf.data.examples import Examples
from metassl_tf.data.protocols import Indices
from metassl_tf.data.seeds import random_state
from metassl_tf.data.splits import Split
from metassl_tf.errors import UserError

GIVEN_LABELS = ("source", "truth")


def with_given_labels(examples: Examples, labels: Indices) -> Examples:
    """The same examples with other given labels.

    Args:
      examples: N examples.
      labels: class indices, int64 [N], -1 where none is given.

    Returns:
      The examples with the column `given_label`.
    """
    return examples.with_columns({GIVEN_LABEL: labels})


def flip(labels: Indices, positions: Indices, *, rate: float, num_classes: int, split_seed: int) -> Indices:
    """Replaces some labels by wrong ones: each of the other classes is equally likely.

    This is the noise called UniformFlip by Ren et al. (arXiv:1803.09050). What happens to an example depends on its
    position and the seed alone, so that neither the number of labeled examples nor their choice changes it, and all
    that is wrong at one rate is wrong in the same way at every larger one.

    Args:
      labels: int64 [N], -1 where there is none, which stays so.
      positions: int64 [N], place of each example in its dataset.
      rate: probability of being replaced, for each label on its own.
      num_classes: K.
      split_seed: of the run.

    Returns:
      int64 [N].
    """
    draws = random_state(split_seed, "flip labels").random_sample((int(positions.max(initial=-1)) + 1, 2))[positions]
    step = 1 + np.floor(draws[:, 1] * (num_classes - 1)).astype(np.int64)  # in [1, K - 1]
    replaced = (draws[:, 0] < rate) & (labels >= 0)
    return np.where(replaced, (labels + step) % num_classes, labels)


def give_labels(
    unlabeled: Examples, split: Split, *, given_labels: str, flip_labels: float, num_classes: int, split_seed: int
) -> Examples:
    """Provides a split's unlabeled examples with given labels.

    Args:
      unlabeled: the examples, in the split's order.
      split: whose labeled examples get their right label where they serve as unlabeled ones too.
      given_labels: `source` for what the source brings, or `truth` to simulate with the truth where that is known.
      flip_labels: probability that a given label is replaced by a wrong one.
      num_classes: K.
      split_seed: seed of what is replaced.

    Returns:
      The examples with the column `given_label`.

    Raises:
      UserError: no unlabeled example has a given label, beside those that are labeled anyway.
    """
    none = np.full(len(unlabeled), -1)
    given = unlabeled.labels if given_labels == "truth" else unlabeled.columns.get(GIVEN_LABEL, none)
    labeled = np.isin(split.unlabeled, split.labeled)
    if not np.any(given[~labeled] >= 0):
        raise UserError(_missing(given_labels, flip_labels))
    flipped = flip(given, split.unlabeled, rate=flip_labels, num_classes=num_classes, split_seed=split_seed)
    return with_given_labels(unlabeled, np.where(labeled, unlabeled.labels, flipped))


def _missing(given_labels: str, flip_labels: float) -> str:
    wish = f"--flip_labels={flip_labels:g} has no given labels to flip" if flip_labels else "There are no given labels"
    if given_labels == "truth":
        return (
            f"{wish}: --given_labels=truth takes the known labels of the unlabeled examples, and none is known but "
            "those of the labeled ones. Expected a --dataset with more labels, or a lower --num_labeled."
        )
    return (
        f"{wish}: the source brings none. Expected an image folder with DIR/weak/<class>/, whose classes are those of "
        "DIR/labeled/, or --given_labels=truth to simulate them with labels that are known."
    )
