"""The order of weak and strong augmentation, as each paper has it."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.augment.policies import POLICIES, Policy
from metassl_tf.augment.strong import strong_augment
from metassl_tf.augment.weak import weak_augment

SEED = tf.constant([1, 2])
IMAGES = tf.constant(np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8))
WEAK_VIEW = tf.bitwise.invert(IMAGES)
NOTHING = Policy(num_layers=0, final_cutout=0.0)


def add_one(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    del seed
    return images + tf.constant(1, tf.uint8)


@pytest.mark.parametrize(
    ("start", "weak_after", "expected"),
    [
        ("image", False, IMAGES),
        ("image", True, IMAGES + 1),
        ("weak", False, IMAGES + 1),
        ("weak", True, IMAGES + 2),
        ("weak_view", False, WEAK_VIEW),
        ("weak_view", True, WEAK_VIEW + 1),
    ],
)
def test_order(start: str, weak_after: bool, expected: tf.Tensor) -> None:
    policy = dataclasses.replace(NOTHING, start=start, weak_after=weak_after)
    result = strong_augment(IMAGES, WEAK_VIEW, SEED, policy=policy, weak=add_one)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("name", "start", "weak_after"),
    [
        ("fixmatch", "weak", False),
        ("uda", "image", True),
        ("mpl", "weak_view", True),
        ("thesis_cifar", "weak_view", True),
        ("thesis_svhn", "weak_view", True),
        ("digits", "weak", False),
        ("weak", "weak", False),
    ],
)
def test_the_papers_orders(name: str, start: str, weak_after: bool) -> None:
    assert (POLICIES[name].start, POLICIES[name].weak_after) == (start, weak_after)


def test_the_weak_policy_is_the_weak_augmentation() -> None:
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8))
    weak = functools.partial(weak_augment, flip=True, padding=1, padding_mode="reflect", fill=128)
    seed = tf.constant([1, 2])
    strong = strong_augment(images, tf.zeros_like(images), seed, policy=POLICIES["weak"], weak=weak)
    expected = weak(images, tf.unstack(tf.random.split(seed, 3, alg="philox"))[0])
    np.testing.assert_array_equal(strong, expected)
    assert (strong.numpy() != images.numpy()).any()


@pytest.mark.parametrize("name", ["fixmatch", "uda", "mpl"])
def test_a_function_of_images_and_seed(name: str) -> None:
    weak = functools.partial(weak_augment, flip=True, padding=1, padding_mode="reflect", fill=128)

    def strong(images: tf.Tensor, weak_view: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return strong_augment(images, weak_view, seed, policy=POLICIES[name], weak=weak, fill=(1, 2, 3))

    first = strong(IMAGES, WEAK_VIEW, SEED)
    mapped = next(iter(tf.data.Dataset.from_tensors((IMAGES, WEAK_VIEW, SEED)).map(strong)))
    np.testing.assert_array_equal(first, mapped)
    assert np.any(first != strong(IMAGES, WEAK_VIEW, tf.constant([2, 2])))


def test_the_three_stages_draw_independently() -> None:
    """With one seed for both weak stages, the second flip would undo the first for every image."""
    flips_only = functools.partial(weak_augment, flip=True, padding=0, padding_mode="reflect", fill=128)
    policy = dataclasses.replace(NOTHING, start="weak", weak_after=True)
    images = tf.random.stateless_uniform([200, 8, 8, 1], [1, 2], 0, 256, tf.int32)
    images = tf.cast(images, tf.uint8)
    result = strong_augment(images, images, SEED, policy=policy, weak=flips_only).numpy()
    unchanged = np.all(result == images.numpy(), axis=(1, 2, 3)).mean()
    assert 0.35 < unchanged < 0.65
