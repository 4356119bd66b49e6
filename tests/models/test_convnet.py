import numpy as np
import pytest

from metassl_tf.errors import UserError
from metassl_tf.models.build import build_model
from metassl_tf.models.convnet import ConvNet


def test_number_of_parameters() -> None:
    kernels = 9 * (1 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128)
    scales_and_offsets = 2 * 2 * (32 + 64 + 128)
    classifier = (128 + 1) * 10
    model = ConvNet().build((28, 28, 1), 10)
    assert kernels + scales_and_offsets + classifier == 288_170
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == 288_170


@pytest.mark.parametrize(
    ("input_shape", "widths"),
    [
        ((8, 8, 1), (8, 4, 2)),
        ((16, 16, 1), (16, 8, 4)),
        ((28, 28, 1), (14, 7, 4)),
        ((32, 32, 3), (16, 8, 4)),
    ],
)
def test_small_images_are_halved_less(input_shape: tuple[int, ...], widths: tuple[int, ...]) -> None:
    model = ConvNet(filters=2).build(input_shape, 3)
    received = [model.get_layer(f"stage{stage}_2_relu").output.shape for stage in (1, 2, 3)]
    assert received == [(None, width, width, filters) for width, filters in zip(widths, (2, 4, 8), strict=True)]


def test_takes_images_only() -> None:
    with pytest.raises(UserError, match=r"--model=convnet takes images .* shape \[2\]\. Use --model=mlp"):
        build_model("convnet", None, (2,), 2)


def test_bad_settings() -> None:
    with pytest.raises(UserError, match=r"--batch_norm_momentum=1\.0 is out of range"):
        build_model("convnet", ConvNet(batch_norm_momentum=1.0), (8, 8, 1), 2)
