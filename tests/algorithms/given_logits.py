"""Losses of an algorithm at given logits: numbers that can be worked out by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from metassl_tf.algorithms.base import Algorithm, Context, Losses
from metassl_tf.algorithms.batch import Batch, Side
from tests.learner import tiny


def logits_of(probabilities: Sequence[Sequence[float]]) -> tf.Variable:
    """Logits whose softmax is `probabilities`; log(0.5) is the same number wherever it stands, so ties are exact."""
    return tf.Variable(np.log(probabilities), dtype=tf.float32)


def losses_at(
    algorithm: Algorithm,
    logits: Mapping[str, tf.Variable],
    *,
    labels: Sequence[int],
    truth: Sequence[int] = (),
    columns: Mapping[str, Sequence[Any]] | None = None,
    context: Context | None = None,
) -> Losses:
    """Calls `algorithm.losses` with a forward pass that returns the logits of each name, whatever the inputs are."""

    def side(views: Mapping[str, Any], label: Sequence[int]) -> Side:
        inputs = {view: tf.zeros([len(label), tiny.FEATURES]) for view in views}
        return Side(inputs, tf.constant(label, tf.int64), tf.range(len(label), dtype=tf.int64), {})

    needs = algorithm.needs()
    given = {name: tf.constant(np.array(values)) for name, values in (columns or {}).items()}
    unlabeled = side(needs.unlabeled_views, truth)._replace(columns=given)
    batch = Batch(side(needs.labeled_views, labels), unlabeled, {})

    def forward(inputs: Mapping[str, Any], **_: Any) -> dict[str, tf.Tensor]:
        return {name: tf.convert_to_tensor(logits[name]) for name in inputs}

    return algorithm.losses(forward, batch, context or tiny.context())
