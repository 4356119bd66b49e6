"""How often weights are updated: counted step by step, and which settings have no effect."""

import pytest

from metassl_tf.meta.per_example_weights import PerExampleWeights


def counted(settings: PerExampleWeights, *, total_steps: int, batch_size: int, num_unlabeled: int) -> float:
    """Updates per example, step by step."""
    every = settings.update_steps(total_steps=total_steps, batch_size=batch_size, num_unlabeled=num_unlabeled)
    due = [step for step in range(total_steps) if step % every == 0 and step >= settings.weight_warmup_steps]
    return len(due) * (1 if settings.single_weight else batch_size / num_unlabeled)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("warmup", [0, 1, 99, 100, 950])
@pytest.mark.parametrize("every", [1, 7, 100, 2000])
def test_expected_updates_are_those_that_happen(every: int, warmup: int, single: bool) -> None:
    settings = PerExampleWeights(weight_update_steps=every, weight_warmup_steps=warmup, single_weight=single)
    run = {"total_steps": 1000, "batch_size": 32, "num_unlabeled": 640}
    assert settings.update_steps(**run) == every
    assert settings.expected_updates(**run) == pytest.approx(counted(settings, **run))


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("wanted", [0.5, 3, 50])
@pytest.mark.parametrize("warmup", [0, 400])
def test_interval_is_the_longest_that_gives_the_wanted_updates(wanted: float, warmup: int, single: bool) -> None:
    settings = PerExampleWeights(weight_updates_per_example=wanted, weight_warmup_steps=warmup, single_weight=single)
    run = {"total_steps": 4000, "batch_size": 32, "num_unlabeled": 640}
    every = settings.update_steps(**run)
    visits = (4000 - warmup) * (1 if single else 32 / 640)
    assert visits / (every + 1) < wanted <= visits / every


def test_interval_is_at_least_one_step() -> None:
    settings = PerExampleWeights(weight_updates_per_example=1000)
    assert settings.update_steps(total_steps=100, batch_size=10, num_unlabeled=100) == 1


def test_settings_without_an_effect() -> None:
    assert set(PerExampleWeights().unused()) == {"solver_iterations", "series_step_size"}  # exact
    assert set(PerExampleWeights(inverse_hessian="identity").unused()) == {
        "solver_iterations",
        "series_step_size",
        "damping",
    }
    assert set(PerExampleWeights(inverse_hessian="conjugate_gradient").unused()) == {"series_step_size"}
    for method in ("neumann", "stochastic", "unrolled"):
        settings = PerExampleWeights(inverse_hessian=method, weight_update_steps=5)
        assert set(settings.unused()) == {"weight_updates_per_example"}
