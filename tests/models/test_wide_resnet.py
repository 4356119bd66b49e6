"""The three published variants: their parameters, counted, and their outputs against the released code, transcribed."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.errors import UserError
from metassl_tf.models.build import build_model
from metassl_tf.models.wide_resnet import WideResNet

VARIANTS = {
    "fixmatch": {"batch_norm_momentum": 0.999},
    "uda": {
        "leaky_slope": 0.0,
        "conv_bias": False,
        "activated_shortcut": "never",
        "classifier_init": "uniform",
        "batch_norm_momentum": 0.9,
        "batch_norm_epsilon": 1e-5,
    },
    "meta_pseudo_labels": {
        "stem_filters": 32,
        "leaky_slope": 0.2,
        "conv_bias": False,
        "activated_shortcut": "changing",
        "classifier_init": "uniform",
        "dropout": 0.2,
    },
}


def counted(model: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def enumerated(settings: WideResNet, num_classes: int) -> int:
    """Trainable parameters for color images, layer by layer."""
    bias = 1 if settings.conv_bias else 0

    def convolution(size: int, inputs: int, filters: int) -> int:
        return (size * size * inputs + bias) * filters

    channels = settings.stem_filters
    total = convolution(3, 3, channels)
    for stage in range(3):
        filters = 16 * settings.width * 2**stage
        for _ in range((settings.depth - 4) // 6):
            total += 2 * channels + convolution(3, channels, filters)  # batch normalisation has a scale and an offset
            total += 2 * filters + convolution(3, filters, filters)
            total += convolution(1, channels, filters) if channels != filters else 0
            channels = filters
    return total + 2 * channels + (channels + 1) * num_classes  # the last batch normalisation and the classifier


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("fixmatch", 1_469_642), ("uda", 1_467_610), ("meta_pseudo_labels", 1_472_170)],
)
def test_number_of_parameters_of_28_2(variant: str, expected: int) -> None:
    """The papers say 1.47 million; Meta Pseudo Labels says 1.45, for what its code makes 1.47."""
    settings = WideResNet(**VARIANTS[variant])
    assert enumerated(settings, 10) == expected
    assert counted(build_model("wide_resnet", settings, (32, 32, 3), 10)) == expected


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 1), (10, 4)])
def test_number_of_parameters_of_others(depth: int, width: int) -> None:
    settings = WideResNet(depth=depth, width=width)
    assert counted(settings.build((32, 32, 3), 5)) == enumerated(settings, 5)


class Transcription:
    """Inference of the released TensorFlow 1 models, with the variables of a Keras model."""

    def __init__(self, model: keras.Model, slope: float, epsilon: float) -> None:
        self.values = {variable.path: variable.value for variable in model.variables}
        self.slope, self.epsilon = slope, epsilon

    def normalised(self, x: tf.Tensor, name: str) -> tf.Tensor:
        names = ("moving_mean", "moving_variance", "beta", "gamma")
        mean, variance, offset, scale = (self.values[f"{name}_bn/{key}"] for key in names)
        return tf.nn.batch_normalization(x, mean, variance, offset, scale, self.epsilon)

    def relu(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.leaky_relu(x, self.slope)

    def conv(self, x: tf.Tensor, name: str, stride: int = 1) -> tf.Tensor:
        x = tf.nn.conv2d(x, self.values[f"{name}/kernel"], stride, "SAME")
        bias = self.values.get(f"{name}/bias")
        return x if bias is None else x + bias

    def fixmatch_block(self, x0: tf.Tensor, name: str, stride: int) -> tf.Tensor:
        """google-research/fixmatch, libml/models.py, ResNet.residual."""
        x = self.relu(self.normalised(x0, f"{name}_1"))
        if name == "stage1_block1":  # activate_before_residual
            x0 = x
        x = self.conv(x, f"{name}_1_conv", stride)
        x = self.conv(self.relu(self.normalised(x, f"{name}_2")), f"{name}_2_conv")
        if x0.shape[3] != x.shape[3]:
            x0 = self.conv(x0, f"{name}_shortcut_conv", stride)
        return x0 + x

    def uda_block(self, x: tf.Tensor, name: str, stride: int) -> tf.Tensor:
        """google-research/uda, image/randaugment/wrn.py, residual_block."""
        orig_x = x
        x = self.conv(self.relu(self.normalised(x, f"{name}_1")), f"{name}_1_conv", stride)
        x = self.conv(self.relu(self.normalised(x, f"{name}_2")), f"{name}_2_conv")
        if stride != 1 or x.shape[3] != orig_x.shape[3]:
            orig_x = self.conv(orig_x, f"{name}_shortcut_conv", stride)
        return orig_x + x

    def meta_pseudo_labels_block(self, x: tf.Tensor, name: str, stride: int) -> tf.Tensor:
        """google-research/google-research, meta_pseudo_labels/modeling_utils.py, wrn_block."""
        changing = f"{name}_shortcut_conv/kernel" in self.values
        residual = x
        x = self.normalised(x, f"{name}_1")
        if changing:
            residual = x
        x = self.conv(self.relu(x), f"{name}_1_conv", stride)
        x = self.conv(self.relu(self.normalised(x, f"{name}_2")), f"{name}_2_conv")
        if changing:
            residual = self.conv(self.relu(residual), f"{name}_shortcut_conv", stride)
        return x + residual

    def logits(self, x: tf.Tensor, variant: str) -> tf.Tensor:
        block = getattr(self, f"{variant}_block")
        x = self.conv(x, "stem")
        for name, stride in (
            ("stage1_block1", 1),
            ("stage1_block2", 1),
            ("stage2_block1", 2),
            ("stage2_block2", 1),
            ("stage3_block1", 2),
            ("stage3_block2", 1),
        ):
            x = block(x, name, stride)
        x = tf.reduce_mean(self.relu(self.normalised(x, "head")), [1, 2])
        return x @ self.values["classifier/kernel"] + self.values["classifier/bias"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_released_code(variant: str, images: Callable[..., np.ndarray]) -> None:
    settings = WideResNet(depth=16, **VARIANTS[variant])
    model = settings.build((9, 8, 3), 4)
    generator = np.random.default_rng(1)
    for variable in model.variables:
        if variable.dtype == "float32":  # dropout's seed is not
            noise = (
                generator.uniform(0.5, 1.5, variable.shape)
                if variable.path.endswith("variance")
                else (0.2 * generator.normal(size=variable.shape))
            )
            variable.assign(noise)
    released = Transcription(model, settings.leaky_slope, settings.batch_norm_epsilon)
    expected = released.logits(tf.constant(images(2, 9, 8, 3)), variant)
    np.testing.assert_allclose(model(images(2, 9, 8, 3)), expected, rtol=1e-4, atol=1e-5)
    assert np.std(expected) > 1e-3


def test_kernels_are_drawn_by_fan_out() -> None:
    model = WideResNet(depth=10, width=8).build((8, 8, 3), 10)
    for name, size, filters in (
        ("stem", 3, 16),
        ("stage1_block1_2_conv", 3, 128),
        ("stage3_block1_2_conv", 3, 512),
        ("stage3_block1_shortcut_conv", 1, 512),
    ):
        kernel = model.get_layer(name).kernel.numpy()
        deviation = np.sqrt(2 / (size * size * filters))
        assert np.std(kernel) == pytest.approx(deviation, rel=5 / np.sqrt(kernel.size))
        if kernel.size > 10_000:  # a truncated normal would end at 2 deviations
            assert np.max(np.abs(kernel)) > 3 * deviation


def test_classifiers_are_drawn_as_in_the_papers() -> None:
    glorot = WideResNet(depth=10, width=8).build((8, 8, 3), 10).layers[-1].kernel.numpy()  # [512, 10]
    assert np.std(glorot) == pytest.approx(np.sqrt(2 / (512 + 10)), rel=0.06)
    uniform = WideResNet(depth=10, width=8, classifier_init="uniform").build((8, 8, 3), 10).layers[-1].kernel.numpy()
    assert np.max(np.abs(uniform)) == pytest.approx(1 / np.sqrt(10), rel=1e-2)
    assert np.std(uniform) == pytest.approx(1 / np.sqrt(30), rel=0.06)


@pytest.mark.parametrize("depth", [11, 12, 27, 30])
def test_depths_that_do_not_exist(depth: int) -> None:
    with pytest.raises(UserError, match=rf"--depth={depth} is not a depth .* 6 n \+ 4 .* 10, 16, 22, 28"):
        build_model("wide_resnet", WideResNet(depth=depth), (8, 8, 1), 2)


def test_points_are_refused() -> None:
    with pytest.raises(UserError, match="--model=wide_resnet takes images"):
        build_model("wide_resnet", None, (2,), 2)
