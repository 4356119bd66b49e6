"""Normalisation and its inverse."""

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.augment.normalize import Normalization
from metassl_tf.errors import UserError

# Statistics of the training sets, as in google-research/uda.
CIFAR10 = Normalization(mean=(0.49139968, 0.48215841, 0.44653091), std=(0.24703223, 0.24348513, 0.26158784))
SVHN = Normalization(mean=(0.4376821, 0.4437697, 0.47280442), std=(0.19803012, 0.20101562, 0.19703614))
LEVELS = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)


def test_default_is_the_range_of_fixmatch() -> None:
    result = Normalization().normalize(tf.constant(LEVELS))
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, LEVELS / 127.5 - 1.0, atol=2e-7)


@pytest.mark.parametrize("normalization", [CIFAR10, SVHN])
def test_standardising_subtracts_the_mean_and_divides_by_the_std(normalization: Normalization) -> None:
    expected = (LEVELS / 255.0 - np.array(normalization.mean)) / np.array(normalization.std)
    np.testing.assert_allclose(normalization.normalize(tf.constant(LEVELS)), expected, atol=1e-6)


@pytest.mark.parametrize("normalization", [Normalization(), CIFAR10, SVHN])
def test_the_inverse_gives_every_level_back(normalization: Normalization) -> None:
    np.testing.assert_array_equal(normalization.denormalize(normalization.normalize(tf.constant(LEVELS))), LEVELS)
    mapped = tf.data.Dataset.from_tensors(LEVELS).map(normalization.normalize)
    np.testing.assert_array_equal(next(iter(mapped)), normalization.normalize(tf.constant(LEVELS)))


def test_the_inverse_clips() -> None:
    images = Normalization().denormalize(tf.constant([[-1.5, 1.5, 0.01]]))
    np.testing.assert_array_equal(images, [[0, 255, 129]])


def test_mean_fill_becomes_nearly_zero() -> None:
    assert CIFAR10.mean_fill() == (125, 123, 114)
    image = tf.constant(CIFAR10.mean_fill(), tf.uint8)[tf.newaxis]
    assert np.abs(CIFAR10.normalize(image)).max() < 0.5 / 255 / min(CIFAR10.std)


def test_one_number_serves_any_channels() -> None:
    grey = Normalization(mean=(0.3,), std=(0.2,))
    np.testing.assert_allclose(
        grey.normalize(tf.constant(LEVELS[..., :1])), (LEVELS[..., :1] / 255 - 0.3) / 0.2, atol=1e-6
    )
    np.testing.assert_allclose(grey.normalize(tf.constant(LEVELS)), (LEVELS / 255 - 0.3) / 0.2, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std"), [((), ()), ((0.5,), (0.5, 0.5)), ((0.5,), (0.0,)), ((float("nan"),), (1.0,)), ((0.5,), (-1.0,))]
)
def test_impossible_statistics_are_refused(mean: tuple, std: tuple) -> None:
    with pytest.raises(UserError, match="Expected"):
        Normalization(mean=mean, std=std)


def test_channels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="3 channels, the images have 1"):
        CIFAR10.normalize(tf.constant(LEVELS[..., :1]))
