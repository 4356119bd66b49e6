"""Influences on two replicas and compiled are those of one device."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.algorithms.uda import Uda
from metassl_tf.learner import distribution
from metassl_tf.learner.learner import Learner
from metassl_tf.meta.influence import _subset, influence
from tests.learner import tiny
from tests.meta import reference
from tests.meta.influences import SEED, inverse
from tests.meta.reference import ALGORITHMS, WEIGHTS, relative_error

ON_REPLICAS = {
    ("last_layer", "exact"): {},
    ("last_layer", "conjugate_gradient"): {"iterations": 4},
    ("all", "identity"): {},
    ("all", "neumann"): {"iterations": 2},
}


@pytest.mark.parametrize(("scope", "method"), ON_REPLICAS)
def test_two_replicas_equal_one_device(scope: str, method: str, mirrored: tf.distribute.Strategy) -> None:
    """With annealing as well, whose divisor is counted over all replicas."""
    algorithm = Uda(threshold=0.82, temperature=0.5, annealing="linear")
    how = inverse(method, **ON_REPLICAS[scope, method])
    batch, examples = tiny.batch_for(algorithm), reference.validation()
    results = {}
    for name, strategy in (("one", tf.distribute.get_strategy()), ("two", mirrored)):
        own = reference.learner(strategy)

        def on_replica(own: Learner = own) -> Any:
            part = tiny.replica_part((batch, tf.constant(WEIGHTS), examples))
            losses = reference.step_losses(algorithm, batch=part[0], weights=part[1], step=5)
            objective, layer = reference.objective(own, scope, losses, part[2])
            result = influence(objective, how, layer=layer, seed=SEED)
            return *distribution.gather_all([part[0].unlabeled.index, result.derivative]), result.validation_loss

        @tf.function(autograph=False)
        def once(strategy: Any = strategy, on_replica: Any = on_replica) -> Any:
            return tiny.first_replica(strategy, strategy.run(on_replica))

        results[name] = once()
    np.testing.assert_array_equal(results["two"][0], np.arange(tiny.UNLABELED))  # the batch's order
    assert relative_error(results["two"][1], results["one"][1]) < 1e-5
    np.testing.assert_allclose(results["two"][2], results["one"][2], rtol=1e-5)


def test_replicas_draw_apart(mirrored: tf.distribute.Strategy) -> None:
    """Estimates of H of the same examples on both would not average."""
    own = reference.learner(mirrored)
    objective, _ = reference.objective(
        own, "all", reference.step_losses(ALGORITHMS["fixmatch"]), reference.validation()
    )

    @tf.function(autograph=False)
    def draw() -> Any:
        return mirrored.experimental_local_results(mirrored.run(lambda: _subset(objective, SEED)))

    first, second = draw()
    assert np.any(first.numpy() != second.numpy())
    assert set(np.unique(first)) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("scope", "method"), [("last_layer", "conjugate_gradient"), ("last_layer", "stochastic"), ("all", "neumann")]
)
def test_compiled_influence_is_the_same(scope: str, method: str) -> None:
    own, losses = reference.learner(), reference.step_losses(ALGORITHMS["fixmatch"])

    def once() -> tf.Tensor:
        objective, layer = reference.objective(own, scope, losses, reference.validation())
        return influence(objective, inverse(method, iterations=3), layer=layer, seed=SEED).derivative

    plain, compiled = (tf.function(once, autograph=False, jit_compile=jit)() for jit in (False, True))
    assert relative_error(compiled, plain) < 1e-4
