"""Learning-rate schedules and ramps against their closed forms, and against Keras' where it has them."""

import math
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.learner.learner import Learner
from metassl_tf.learner.schedules import RAMPS, SCHEDULES, Cosine, Exponential, Schedule, learning_rate, ramp
from metassl_tf.settings import check_settings
from tests.learner import tiny

TOTAL, BASE = 40, 0.5

CLOSED_FORMS: dict[str, tuple[Schedule, Callable[[int], float]]] = {
    "constant": (SCHEDULES["constant"](), lambda _: 1.0),
    "cosine": (SCHEDULES["cosine"](), lambda step: (1 + math.cos(math.pi * step / TOTAL)) / 2),
    "cosine_7_16": (SCHEDULES["cosine_7_16"](), lambda step: math.cos(7 * math.pi * step / (16 * TOTAL))),
    "exponential": (Exponential(decay_rate=0.5, decay_steps=10), lambda step: 0.5 ** (step // 10)),
}


def rates(schedule: Schedule, *, warmup_steps: int = 0, total_steps: int = TOTAL) -> np.ndarray:
    return np.array(
        [
            float(
                learning_rate(
                    schedule,
                    base=BASE,
                    warmup_steps=warmup_steps,
                    step=tf.constant(step, tf.int64),
                    total_steps=total_steps,
                )
            )
            for step in range(total_steps + 1)
        ]
    )


def test_every_schedule_has_a_closed_form_and_valid_defaults() -> None:
    assert CLOSED_FORMS.keys() == SCHEDULES.keys()
    for schedule in SCHEDULES.values():
        check_settings(schedule())


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_its_closed_form(name: str) -> None:
    schedule, factor = CLOSED_FORMS[name]
    np.testing.assert_allclose(rates(schedule), [BASE * factor(step) for step in range(TOTAL + 1)], atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_starts_at_the_base_rate_and_never_rises(name: str) -> None:
    values = rates(CLOSED_FORMS[name][0])
    assert values[0] == BASE
    assert (np.diff(values) <= 0).all()


def test_cosines_end_where_their_papers_say() -> None:
    assert rates(SCHEDULES["cosine"]())[-1] == pytest.approx(0, abs=1e-7)
    assert rates(SCHEDULES["cosine_7_16"]())[-1] / BASE == pytest.approx(0.195, abs=1e-3)


@pytest.mark.parametrize(
    ("schedule", "reference"),
    [
        (Cosine(), keras.optimizers.schedules.CosineDecay(BASE, TOTAL)),
        (
            Exponential(decay_rate=0.9, decay_steps=7),
            keras.optimizers.schedules.ExponentialDecay(BASE, 7, 0.9, staircase=True),
        ),
    ],
)
def test_schedule_equals_keras(schedule: Schedule, reference: keras.optimizers.schedules.LearningRateSchedule) -> None:
    np.testing.assert_allclose(rates(schedule), [float(reference(step)) for step in range(TOTAL + 1)], atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_is_linear_and_the_schedule_fills_the_rest(name: str) -> None:
    schedule = CLOSED_FORMS[name][0]
    values = rates(schedule, warmup_steps=8, total_steps=TOTAL + 8)
    np.testing.assert_allclose(values[:8], [BASE * (step + 1) / 8 for step in range(8)], rtol=1e-6)
    np.testing.assert_allclose(values[8:], rates(schedule), atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_may_last_the_whole_run(name: str) -> None:
    values = rates(SCHEDULES[name](), warmup_steps=TOTAL)
    np.testing.assert_allclose(values[:TOTAL], [BASE * (step + 1) / TOTAL for step in range(TOTAL)], rtol=1e-6)


def test_learner_hands_over_all_its_schedule_settings() -> None:
    options = tiny.optimization(schedule=Cosine(), learning_rate=BASE, total_steps=TOTAL + 8, warmup_steps=8)
    learner = Learner(tiny.network(), options, seed=0)
    received = [float(learner.learning_rate(tf.constant(step, tf.int64))) for step in range(TOTAL + 9)]
    np.testing.assert_allclose(received, rates(Cosine(), warmup_steps=8, total_steps=TOTAL + 8), atol=1e-7)


def ramp_values(shape: str, ramp_steps: int, count: int) -> np.ndarray:
    return np.array([float(ramp(shape, ramp_steps=ramp_steps, step=tf.constant(step))) for step in range(count)])


@pytest.mark.parametrize(
    ("shape", "start", "middle"), [("constant", 1.0, 1.0), ("linear", 0.0, 0.5), ("sigmoid", math.exp(-5), 0.286505)]
)
def test_ramp_at_start_middle_end_and_after(shape: str, start: float, middle: float) -> None:
    values = ramp_values(shape, ramp_steps=10, count=21)
    assert values[[0, 5, 10, 20]] == pytest.approx([start, middle, 1.0, 1.0], abs=1e-6)
    assert (np.diff(values) >= 0).all()


def test_every_ramp_is_distinct() -> None:
    assert len({ramp_values(shape, 10, 11)[3] for shape in RAMPS}) == len(RAMPS) == 3
