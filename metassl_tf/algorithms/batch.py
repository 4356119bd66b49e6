"""What one step sees: labeled and unlabeled examples, their views, and what else is known of them.

`Inputs` is a tensor or a dict of tensors whose first dimension is the batch, so that images, points and tokens look
alike from here.
"""

from typing import Literal, NamedTuple, TypeAlias

import tensorflow as tf

Inputs: TypeAlias = tf.Tensor | dict[str, tf.Tensor]
View = Literal["weak", "strong"]

# The column of labels that came with the examples and that nobody checked: class indices, -1 where there is none.
GIVEN_LABEL = "given_label"
# The column of a teacher's distributions over the classes, float [batch, classes].
TEACHER_LABEL = "teacher_label"


class Side(NamedTuple):
    """One side of a batch.

    Attributes:
      views: differently augmented versions of the same examples, each `Inputs` of [batch, ...].
      label: int64 [batch]. For unlabeled examples it is the truth kept for measuring, -1 where unknown; an
        algorithm may report with it and must not train on it.
      index: int64 [batch], position in the split's labeled or unlabeled list.
      columns: further values of the same examples, int64 or float [batch, ...], those named by
        `Needs.unlabeled_columns` or `Needs.labeled_columns`.
    """

    views: dict[str, Inputs]
    label: tf.Tensor
    index: tf.Tensor
    columns: dict[str, tf.Tensor]


class Batch(NamedTuple):
    """Everything one step sees.

    Attributes:
      labeled: the labeled examples, with the views named by `Needs.labeled_views`.
      unlabeled: the unlabeled examples, with the views named by `Needs.unlabeled_views`; no views, no examples.
      draws: random numbers asked for by `Needs.draws`, float32 [labeled batch].
    """

    labeled: Side
    unlabeled: Side
    draws: dict[str, tf.Tensor]
