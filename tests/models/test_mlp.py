from collections.abc import Callable

import numpy as np
import pytest

from metassl_tf.errors import UserError
from metassl_tf.models.build import build_model
from metassl_tf.models.mlp import MLP

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_numpy(activation: str, images: Callable[..., np.ndarray]) -> None:
    model = MLP(hidden_units=(5, 4), activation=activation, init_range=1.0).build((3, 2), 2)
    expected = images(7, 3, 2).reshape(7, 6)
    *hidden, kernel, bias = model.get_weights()
    for number in (0, 2):
        expected = ACTIVATIONS[activation](expected @ hidden[number] + hidden[number + 1])
    np.testing.assert_allclose(model(images(7, 3, 2)), expected @ kernel + bias, rtol=1e-5, atol=1e-6)


def test_number_of_parameters() -> None:
    # Points in the plane, two classes: (2 + 1) * 100 + (100 + 1) * 100 + (100 + 1) * 2.
    assert MLP().build((2,), 2).count_params() == 300 + 10_100 + 202


def test_without_hidden_layers_is_logistic_regression() -> None:
    model = build_model("mlp", MLP(hidden_units=()), (2,), 2)
    assert [variable.path for variable in model.variables] == ["classifier/kernel", "classifier/bias"]


def test_init_range_bounds_every_parameter() -> None:
    """Two Moons in Meta Pseudo Labels: two hidden layers of 8 sigmoid units, U(-0.1, 0.1)."""
    model = MLP(hidden_units=(8, 8), activation="sigmoid", init_range=0.1).build((2,), 2)
    values = np.concatenate([weight.ravel() for weight in model.get_weights()])
    assert np.max(np.abs(values)) <= 0.1
    assert np.max(values) > 0.08
    assert np.min(values) < -0.08
    assert np.unique(values).size == values.size


def test_default_biases_are_zero() -> None:
    model = MLP().build((2,), 2)
    assert not any(np.any(variable.numpy()) for variable in model.variables if variable.path.endswith("bias"))


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        (MLP(hidden_units=(8, 0)), "--hidden_units=0"),
        (MLP(activation="gelu"), "--activation=gelu"),
        (MLP(init_range=-0.1), "--init_range=-0.1"),
        (MLP(dropout=1.0), "--dropout=1.0"),
    ],
)
def test_bad_settings(settings: MLP, flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        build_model("mlp", settings, (2,), 2)
