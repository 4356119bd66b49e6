"""Small settings of the models that are quick to build, and how they are compared."""

from collections.abc import Callable

import keras
import numpy as np
import pytest

from metassl_tf.models.base import ModelSettings
from metassl_tf.models.convnet import ConvNet
from metassl_tf.models.mlp import MLP
from metassl_tf.models.wide_resnet import WideResNet

SMALL_MODELS: dict[str, ModelSettings] = {
    "mlp": MLP(hidden_units=(8, 6)),
    "convnet": ConvNet(filters=4),
    "wide_resnet": WideResNet(depth=10, width=1),
}


@pytest.fixture
def small_models() -> dict[str, ModelSettings]:
    return SMALL_MODELS


@pytest.fixture(params=SMALL_MODELS)
def small_model_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def small_settings(small_model_name: str) -> ModelSettings:
    return SMALL_MODELS[small_model_name]


@pytest.fixture
def images() -> Callable[..., np.ndarray]:
    """A function of a shape that returns float32 noise, the same at each call."""

    def draw(*shape: int) -> np.ndarray:
        return np.random.default_rng(0).normal(size=shape).astype("float32")

    return draw


@pytest.fixture
def fingerprint(images: Callable[..., np.ndarray]) -> Callable[[ModelSettings], list[np.ndarray]]:
    """A function of settings: training-mode outputs and all variables after two calls, from the same seed."""

    def take(settings: ModelSettings) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        model = settings.build((8, 8, 1), 3)
        outputs = [model(images(4, 8, 8, 1), training=True).numpy() for _ in range(2)]
        return outputs + [variable.numpy() for variable in model.variables if variable.dtype == "float32"]

    return take
