"""ResNet-50 and EfficientNet-B0. Building them takes seconds, so that tests share what they can."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import metassl_tf.models
from metassl_tf.errors import UserError
from metassl_tf.models import MODELS
from metassl_tf.models.build import build_model
from metassl_tf.models.efficientnet import EfficientNetB0
from metassl_tf.models.resnet import ResNet50

# Trainable parameters of the backbones and features before the classifier.
SIZES = {"resnet50": (23_508_032, 2048), "efficientnet_b0": (4_007_548, 1280)}

# No setting has its default.
SETTINGS = {
    "resnet50": ResNet50(dropout=0.3, batch_norm_momentum=0.95),
    "efficientnet_b0": EfficientNetB0(stochastic_depth=0.4, dropout=0.3, batch_norm_momentum=0.95),
}


@pytest.fixture(scope="module", params=SIZES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name: str) -> keras.Model:
    return build_model(name, SETTINGS[name], (32, 32, 3), 4)


def layers_of(model: keras.Model, kind: type) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_number_of_parameters(name: str, model: keras.Model) -> None:
    backbone, features = SIZES[name]
    counted = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert counted == backbone + (features + 1) * 4


def test_ends_in_the_classifier(name: str, model: keras.Model, images: Callable[..., np.ndarray]) -> None:
    assert model.layers[-1].name == "classifier"
    assert model.layers[-1].input.shape == (None, SIZES[name][1])
    logits = model(images(2, 32, 32, 3))
    assert logits.shape == (2, 4)
    assert logits.dtype == tf.float32


def test_settings_reach_the_layers(name: str, model: keras.Model) -> None:
    normalisations = layers_of(model, keras.layers.BatchNormalization)
    assert len(normalisations) == {"resnet50": 53, "efficientnet_b0": 49}[name]
    assert {(layer.momentum, layer.synchronized) for layer in normalisations} == {(0.95, True)}
    *skips, dropout = layers_of(model, keras.layers.Dropout)
    assert (dropout.name, dropout.rate) == ("dropout", 0.3)
    # Of EfficientNet's 16 blocks, those with a shortcut; a whole block is dropped for a whole image.
    blocks = {"resnet50": [], "efficientnet_b0": [2, 4, 6, 7, 9, 10, 12, 13, 14]}[name]
    assert [layer.rate for layer in skips] == pytest.approx([0.4 * block / 16 for block in blocks])
    assert all(layer.noise_shape == (None, 1, 1, 1) for layer in skips)


def test_gradients_reach_every_variable(model: keras.Model, images: Callable[..., np.ndarray]) -> None:
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(images(4, 32, 32, 3), training=False) ** 2)
    for variable, gradient in zip(model.trainable_variables, tape.gradient(loss, variables), strict=True):
        assert gradient is not None, variable.path
        assert np.all(np.isfinite(gradient)), variable.path
        assert np.any(gradient != 0), variable.path


def test_is_saved_and_loads_without_keras_hub(
    model: keras.Model, images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images(2, 32, 32, 3)), model(images(2, 32, 32, 3)))
    assert all(layer.synchronized for layer in layers_of(loaded, keras.layers.BatchNormalization))
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}


def test_mixed_precision_and_grey_images(images: Callable[..., np.ndarray]) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")  # a fixture of the whole test run sets it back
    model = build_model("efficientnet_b0", None, (8, 12, 1), 3)
    assert model.layers[-1].input.dtype == "bfloat16"
    logits = model(images(2, 8, 12, 1), training=True)
    assert (logits.shape, logits.dtype) == ((2, 3), tf.float32)


def test_points_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"--model={name} takes images"):
        build_model(name, None, (2,), 2)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    """A preset folder of an EfficientNet-B0 without skips, and that network."""
    folder = tmp_path_factory.mktemp("presets") / "efficientnet_b0"
    keras.utils.set_random_seed(0)
    backbone = EfficientNetB0(stochastic_depth=0.0)._backbone((16, 16, 3))
    generator = np.random.default_rng(0)
    for variable in backbone.variables:
        if variable.path.endswith("moving_mean"):
            variable.assign(generator.normal(scale=0.1, size=variable.shape))
        elif variable.path.endswith("moving_variance"):  # keeps features near 1, which are 1e-7 with variances of 1
            variable.assign(generator.uniform(0.4, 0.5, size=variable.shape))
    backbone.save_to_preset(str(folder))
    return folder, backbone


@pytest.mark.parametrize("channels", [3, 1])
def test_starts_from_pretrained_weights(
    channels: int, preset: tuple[Path, keras.Model], images: Callable[..., np.ndarray]
) -> None:
    folder, backbone = preset
    settings = EfficientNetB0(pretrained=str(folder), stochastic_depth=0.4)
    model = build_model("efficientnet_b0", settings, (16, 16, channels), 3)
    inputs = images(2, 16, 16, channels)
    features = keras.Model(model.input, model.layers[-1].input)(inputs)
    expected = np.mean(backbone(np.broadcast_to(inputs, (2, 16, 16, 3))), axis=(1, 2))
    assert 1e-2 < np.std(expected) < 1e2
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.std(expected))
    assert max(layer.rate for layer in layers_of(model, keras.layers.Dropout)[:-1]) == pytest.approx(0.4 * 14 / 16)


def test_resnet_starts_from_pretrained_weights(tmp_path: Path, images: Callable[..., np.ndarray]) -> None:
    backbone = ResNet50()._backbone((16, 16, 3))
    backbone.save_to_preset(str(tmp_path))
    model = build_model("resnet50", ResNet50(pretrained=str(tmp_path)), (16, 16, 3), 3)
    features = keras.Model(model.input, model.layers[-1].input)(images(2, 16, 16, 3))
    expected = np.mean(backbone(images(2, 16, 16, 3)), axis=(1, 2))
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)


def test_pretrained_folders_that_do_not_serve(
    preset: tuple[Path, keras.Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keras_hub.models import ResNetBackbone

    def refusal(name: str, folder: Path | str, channels: int = 3) -> str:
        with pytest.raises(UserError) as caught:
            build_model(name, MODELS[name](pretrained=str(folder)), (16, 16, channels), 3)
        return str(caught.value)

    assert "nowhere is not a folder. Expected the folder" in refusal("resnet50", tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    # A bare name means a folder, although keras_hub knows it and would download it.
    assert "=resnet_50_imagenet is not a folder." in refusal("resnet50", "resnet_50_imagenet")
    (tmp_path / "empty").mkdir()
    assert "empty has no config.json." in refusal("resnet50", tmp_path / "empty")
    assert "ResNetBackbone of 23,561,152 parameters" in refusal("resnet50", preset[0])
    small = ResNetBackbone([64], [7], [64], [1], [1], "basic_block", image_shape=(16, 16, 3))
    small.save_to_preset(str(tmp_path / "resnet_50_imagenet"))
    assert re.search(
        rf"resnet_50_imagenet does not fit --model=resnet50\. .* Received {small.count_params():,}\.",
        refusal("resnet50", "resnet_50_imagenet"),
    )
    (tmp_path / "resnet_50_imagenet" / "model.weights.h5").write_bytes(b"damaged")
    assert "cannot be loaded into --model=resnet50" in refusal("resnet50", "resnet_50_imagenet")
    assert "take images of 1 or 3 channels. Received 4." in refusal("efficientnet_b0", preset[0], channels=4)


def test_keras_hub_is_imported_only_by_build() -> None:
    """The import takes seconds, which `--help` and the small models need not wait for."""
    files = sorted(Path(metassl_tf.models.__file__).parent.glob("*.py"))
    assert len(files) > 5
    for file in files:
        top = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not [node for node in top if "keras_hub" in ast.unparse(node).split("metassl_tf")[0]], file
