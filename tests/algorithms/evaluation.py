"""An algorithm's losses on random examples and a small network, which no test updates."""

import functools
from typing import Any

import tensorflow as tf

from metassl_tf.algorithms.base import Algorithm, Losses
from metassl_tf.algorithms.batch import Batch
from metassl_tf.learner.learner import Learner
from metassl_tf.learner.passes import Pass
from metassl_tf.learner.step import reduce_terms
from tests.learner import tiny

# More examples than a step would need, so that each mask keeps some of them and drops some.
MANY = {"labeled": 16, "unlabeled": 32}


@functools.cache
def learner() -> Learner:
    """One for all tests."""
    return Learner(tiny.network(), tiny.optimization(), seed=0)


def new_pass(step: int) -> Pass:
    return learner().begin(tiny.context(step).step)


def losses_of(algorithm: Algorithm, batch: Batch, *, step: int = 7) -> Losses:
    return algorithm.losses(new_pass(step), batch, tiny.context(step))


def total_of(losses: Losses, unlabeled_weight: float = 1.0) -> float:
    return float(reduce_terms(losses, tf.constant(unlabeled_weight))[0])


def terms_of(losses: Losses) -> dict[str, Any]:
    return losses.labeled | losses.unlabeled
