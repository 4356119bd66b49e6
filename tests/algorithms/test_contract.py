"""What every algorithm in the table promises: its loss is the paper's, and every hyperparameter matters."""

import itertools
from typing import Any

import numpy as np
import pytest

from metassl_tf.algorithms import ALGORITHMS
from tests.algorithms.cases import CASES, variants
from tests.algorithms.evaluation import MANY, losses_of, total_of
from tests.learner import tiny


@pytest.mark.parametrize(("name", "settings"), [(name, settings) for name in CASES for settings in variants(name)])
def test_loss_is_the_papers(name: str, settings: dict[str, Any]) -> None:
    algorithm = ALGORITHMS[name](**settings)
    network = tiny.in_numpy(tiny.network())
    for seed, step in itertools.product(range(2), (0, 4, 9)):
        batch = tiny.batch_for(algorithm, seed=seed, **MANY)
        losses = losses_of(algorithm, batch, step=step)
        labeled, unlabeled = CASES[name].golden(algorithm, network, batch, step / tiny.STEPS)
        assert total_of(losses, 0.0) == pytest.approx(labeled, rel=1e-5)
        assert total_of(losses, 2.5) == pytest.approx(labeled + 2.5 * unlabeled, rel=1e-5)


def test_masks_of_those_comparisons_drop_some_examples_and_keep_some(name: str) -> None:
    batch = tiny.batch_for(ALGORITHMS[name](), **MANY)
    for average in losses_of(ALGORITHMS[name](), batch).metrics.values():
        assert 0 < average.values.numpy().mean() < 1


def test_every_hyperparameter_changes_the_loss_or_what_is_needed(name: str) -> None:
    def effect(settings: dict[str, Any]) -> tuple[np.ndarray, Any]:
        algorithm = ALGORITHMS[name](**settings)
        totals = [
            total_of(losses_of(algorithm, tiny.batch_for(algorithm, seed=seed, **MANY), step=step))
            for seed, step in itertools.product(range(2), (2, 8))
        ]
        return np.array(totals), algorithm.needs()

    for field, values in CASES[name].alternatives.items():
        effects = [effect({}), *(effect({field: value}) for value in values)]
        for (losses, needs), (other_losses, other_needs) in itertools.combinations(effects, 2):
            assert needs != other_needs or np.abs(losses - other_losses).max() > 1e-3, field
