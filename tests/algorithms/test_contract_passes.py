"""What every algorithm in the table promises: gradients flow where they should, and one pass moves the statistics."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from metassl_tf.algorithms.base import Algorithm
from metassl_tf.algorithms.batch import Inputs
from tests.algorithms.cases import CASES
from tests.algorithms.evaluation import MANY, learner, losses_of, new_pass, terms_of
from tests.learner import tiny


def test_every_term_reaches_every_trainable_variable(name: str, algorithm: Algorithm) -> None:
    with tf.GradientTape(persistent=True) as tape:
        losses = losses_of(algorithm, tiny.batch_for(algorithm, **MANY))
        sums = {name: tf.reduce_sum(term.counted_values) for name, term in terms_of(losses).items()}
    assert sums.keys() == CASES[name].learns.keys()
    for total in sums.values():
        assert all(float(tf.norm(gradient)) > 1e-3 for gradient in tape.gradient(total, learner().trainable_variables))


class FixedLogits:
    """A forward pass whose logits are variables of their own, so that each branch's gradient can be told apart."""

    def __init__(self) -> None:
        self.logits: dict[str, tf.Variable] = {}

    def __call__(self, inputs: Mapping[str, Inputs], **_: Any) -> dict[str, tf.Tensor]:
        for name, values in inputs.items():
            draws = np.random.default_rng(len(self.logits)).normal(size=(values.shape[0], tiny.CLASSES))
            self.logits[name] = tf.Variable(2 * draws, dtype=tf.float32)
        return {name: tf.convert_to_tensor(self.logits[name]) for name in inputs}


def test_targets_and_masks_pass_no_gradient_at_all(name: str, algorithm: Algorithm) -> None:
    forward = FixedLogits()
    with tf.GradientTape(persistent=True) as tape:
        losses = algorithm.losses(forward, tiny.batch_for(algorithm, **MANY), tiny.context(7))
        sums = {name: tf.reduce_sum(term.counted_values) for name, term in terms_of(losses).items()}
    for term, total in sums.items():
        gradients = tape.gradient(total, forward.logits, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        learning = {name for name, gradient in gradients.items() if np.any(gradient.numpy() != 0)}
        assert learning == CASES[name].learns[term]


def test_moving_statistics_follow_exactly_one_pass(algorithm: Algorithm) -> None:
    forward, updates = new_pass(step=0), []

    def spy(inputs: Mapping[str, Inputs], *, update_statistics: bool = True, **options: Any) -> dict[str, tf.Tensor]:
        updates.append(update_statistics)
        return forward(inputs, update_statistics=update_statistics, **options)

    algorithm.losses(spy, tiny.batch_for(algorithm), tiny.context())
    assert updates.count(True) == 1
