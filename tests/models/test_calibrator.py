"""The network from a distribution to a better one: how it starts, and what it consists of."""

import keras
import numpy as np
import pytest

from metassl_tf.models.calibrator import build_calibrator

GIVEN = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]], np.float32)


@pytest.mark.parametrize("units", [4, 128])
def test_identity_gives_back_what_it_is_given(units: int) -> None:
    logits = build_calibrator(3, units=units, start="identity")(GIVEN)
    np.testing.assert_allclose(keras.ops.softmax(logits), GIVEN, atol=1e-6)


def test_random_start_does_not() -> None:
    logits = build_calibrator(3, units=128, start="random")(GIVEN)
    assert np.abs(keras.ops.softmax(logits) - GIVEN).max() > 0.1


def test_five_layers_of_which_four_are_hidden() -> None:
    for start in ("identity", "random"):
        kernels = [
            weight.shape for weight in build_calibrator(3, units=6, start=start).weights if len(weight.shape) > 1
        ]
        assert kernels == [(3, 6), (6, 6), (6, 6), (6, 6), (6, 3)]
