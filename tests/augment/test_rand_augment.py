"""RandAugment as a whole: what is drawn, how strong it is, and that it depends on images and seed alone."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from metassl_tf.augment.policies import POLICIES, Policy
from metassl_tf.augment.rand_augment import Draws, draw, rand_augment
from metassl_tf.errors import UserError

SEED = tf.constant([1, 2])


def make_images(count: int = 64, height: int = 16, width: int = 16, channels: int = 3) -> np.ndarray:
    """Smooth colored blobs, so that geometric and tone operations both show."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 4, 4, channels)).astype(np.float32)
    return tf.cast(tf.clip_by_value(tf.image.resize(coarse, [height, width], "bicubic"), 0, 255), tf.uint8).numpy()


def always(operation: str, **changes: Any) -> Policy:
    """A policy of one operation that is always applied, alone."""
    settings: dict[str, Any] = {"num_layers": 1, "min_probability": 1.0, "max_probability": 1.0, "final_cutout": 0.0}
    return Policy(**(settings | {"operations": (operation,)} | changes))


def fixed(operation: str, magnitude: int, **changes: Any) -> Policy:
    return always(operation, min_magnitude=magnitude, max_magnitude=magnitude, **changes)


# --- Draws ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
def test_draws_keep_to_the_policy(name: str) -> None:
    policy, count = POLICIES[name], 20_000
    draws: Draws = draw(policy, count, SEED)
    assert len(draws.layers) == policy.num_layers
    for layer in draws.layers:
        shares = np.bincount(layer.operation, minlength=len(policy.operations)) / count
        assert len(shares) == len(policy.operations)
        np.testing.assert_allclose(shares, 1 / len(policy.operations), atol=0.01)
        magnitudes = np.bincount(layer.magnitude, minlength=policy.max_magnitude + 1)[policy.min_magnitude :] / count
        np.testing.assert_allclose(magnitudes, 1 / (policy.max_magnitude - policy.min_magnitude + 1), atol=0.02)
        assert np.mean(layer.applied) == pytest.approx((policy.min_probability + policy.max_probability) / 2, abs=0.015)
        assert np.mean(layer.sign == 1.0) == pytest.approx(0.5, abs=0.015)
        assert np.all(np.abs(layer.sign) == 1.0)
        assert np.all(layer.partner != np.arange(count))
        assert np.all((layer.partner >= 0) & (layer.partner < count))


def test_layers_are_independent_but_for_a_shared_probability() -> None:
    first, second = (np.asarray(layer.applied, float) for layer in draw(POLICIES["mpl"], 50_000, SEED).layers)
    # One probability p ~ U(.2, .8) for both layers: the covariance of the two is its variance, .6^2 / 12.
    assert np.cov(first, second)[0, 1] == pytest.approx(0.03, abs=0.005)
    layers = draw(POLICIES["fixmatch"], 50_000, SEED).layers
    for field in ("operation", "applied", "magnitude", "sign", "row", "column"):
        pair = [np.asarray(getattr(layer, field), float) for layer in layers]
        assert abs(np.corrcoef(*pair)[0, 1]) < 0.02


def test_an_images_draws_do_not_depend_on_the_batch_size() -> None:
    small, large = draw(POLICIES["uda"], 5, SEED), draw(POLICIES["uda"], 64, SEED)
    for ours, theirs in zip(small.layers, large.layers, strict=True):
        for field in ("operation", "applied", "magnitude", "sign", "row", "column"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field)[:5])


# --- The operations at their strengths -----------------------------------------------------------------------------

ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}


def through_pillow(image: np.ndarray, operation: str, magnitude: int, *, weaker_tone: bool = False) -> np.ndarray:
    """google-research/fixmatch's operations (with `weaker_tone`, Meta Pseudo Labels'), written down again."""
    pillow = Image.fromarray(image)
    if operation in ENHANCERS:
        pillow = ENHANCERS[operation](pillow).enhance(0.1 + 0.18 * magnitude)
    elif operation == "posterize":
        pillow = ImageOps.posterize(pillow, int(0.4 * magnitude) if weaker_tone else 4 - int(0.4 * magnitude))
    elif operation == "solarize":
        level = int(25.6 * magnitude)
        pillow = ImageOps.solarize(pillow, level % 256 if weaker_tone else 256 - level)
    else:
        pillow = {"equalize": ImageOps.equalize, "autocontrast": ImageOps.autocontrast, "invert": ImageOps.invert}[
            operation
        ](pillow)
    return np.asarray(pillow)


@pytest.mark.parametrize("magnitude", [1, 4, 9])
@pytest.mark.parametrize("operation", [*ENHANCERS, "posterize", "solarize", "equalize", "autocontrast", "invert"])
def test_tones_equal_the_papers_code(operation: str, magnitude: int) -> None:
    images = make_images(8)
    result = rand_augment(tf.constant(images), SEED, policy=fixed(operation, magnitude))
    expected = np.stack([through_pillow(image, operation, magnitude) for image in images])
    np.testing.assert_allclose(result, expected.astype(int), atol=1)


@pytest.mark.parametrize("operation", ["posterize", "solarize", "brightness"])
def test_meta_pseudo_labels_tones_at_magnitude_16(operation: str) -> None:
    images = make_images(8)
    policy = dataclasses.replace(
        POLICIES["mpl"],
        operations=(operation,),
        num_layers=1,
        min_probability=1.0,
        max_probability=1.0,
        final_cutout=0.0,
    )
    expected = np.stack([through_pillow(image, operation, 16, weaker_tone=True) for image in images])
    np.testing.assert_allclose(rand_augment(tf.constant(images), SEED, policy=policy), expected.astype(int), atol=1)


@pytest.mark.parametrize(("operation", "axis"), [("translate_x", 2), ("translate_y", 1)])
def test_translations_are_fractions_in_both_directions(operation: str, axis: int) -> None:
    images = make_images(32, height=32, width=64)
    result = rand_augment(tf.constant(images), SEED, policy=fixed(operation, 8), fill=7).numpy()
    pixels = {1: 8, 2: 16}[axis]  # 0.8 of 10 / 32 of the size
    forward = np.roll(images, pixels, axis)
    backward = np.roll(images, -pixels, axis)
    head, tail = [slice(None)] * 3, [slice(None)] * 3
    head[axis], tail[axis] = slice(None, pixels), slice(-pixels, None)
    forward[tuple(head)], backward[tuple(tail)] = 7, 7
    is_forward = np.all(result == forward, axis=(1, 2, 3))
    is_backward = np.all(result == backward, axis=(1, 2, 3))
    assert np.all(is_forward ^ is_backward)
    assert 8 <= is_forward.sum() <= 24


@pytest.mark.parametrize(
    ("policy", "height", "width", "sides"),
    [
        (fixed("cutout", 5), 32, 32, 10),  # UDA: 2 pixels of 32 per unit of magnitude
        (fixed("cutout", 16, cutout=0.25), 32, 40, 12),  # Meta Pseudo Labels: int(6.4) to each side
        (fixed("cutout", 10, cutout=0.375), 8, 8, 3),
        (Policy(num_layers=0), 32, 48, 16),  # the final cutout, of the shorter side
    ],
)
def test_cutout_sizes(policy: Policy, height: int, width: int, sides: int) -> None:
    images = tf.fill([200, height, width, 1], tf.constant(255, tf.uint8))
    painted = rand_augment(images, SEED, policy=policy, fill=3).numpy() == 3
    areas = painted.sum(axis=(1, 2, 3))
    assert areas.max() == sides**2
    assert areas.min() >= (sides // 2) ** 2


def test_sample_pairing_mixes_with_another_image_up_to_a_cap() -> None:
    images = np.arange(0, 240, 30, dtype=np.uint8)[:, np.newaxis, np.newaxis, np.newaxis] * np.ones(
        (1, 4, 4, 3), np.uint8
    )
    for magnitude, weight in ((5, 0.2), (10, 0.4), (16, 0.4)):
        policy = fixed("sample_pairing", magnitude)
        partner = draw(policy, 8, SEED).layers[0].partner.numpy()
        expected = images + weight * (images[partner].astype(float) - images)
        np.testing.assert_allclose(rand_augment(tf.constant(images), SEED, policy=policy), expected, atol=1)
    alone = rand_augment(tf.constant(images[:1]), SEED, policy=fixed("sample_pairing", 10))
    np.testing.assert_array_equal(alone, images[:1])


def test_layers_follow_one_another() -> None:
    images = make_images(8)
    policy = fixed("invert", 1, num_layers=2)
    np.testing.assert_array_equal(rand_augment(tf.constant(images), SEED, policy=policy), images)
    policy = fixed("invert", 1, num_layers=3)
    np.testing.assert_array_equal(rand_augment(tf.constant(images), SEED, policy=policy), 255 - images)


# --- Contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, (32, 16, 16, 3)) for name in POLICIES),
        ("thesis_cifar", (32, 8, 8, 1)),
        ("digits", (32, 8, 8, 1)),
        ("uda", (1, 16, 16, 3)),
        ("digits", (7, 12, 20, 3)),
    ],
)
def test_a_function_of_images_and_seed(name: str, shape: tuple) -> None:
    images, policy = make_images(*shape), POLICIES[name]
    first = rand_augment(tf.constant(images), SEED, policy=policy)
    assert first.shape == shape
    assert first.dtype == tf.uint8
    np.testing.assert_array_equal(first, rand_augment(tf.constant(images), SEED, policy=policy))
    dataset = tf.data.Dataset.from_tensors((images, SEED)).repeat(2)
    for mapped in dataset.map(lambda *pair: rand_augment(*pair, policy=policy), num_parallel_calls=2):
        np.testing.assert_array_equal(first, mapped)
    others = [rand_augment(tf.constant(images), tf.constant([1, other]), policy=policy) for other in range(3, 8)]
    assert any(np.any(first != other) for other in others) == bool(policy.num_layers)


def test_unknown_batch_and_image_size() -> None:
    images = make_images(9)
    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8), tf.TensorSpec([2], tf.int64)]
    for name in ("digits", "thesis_cifar"):
        traced = tf.function(
            lambda batch, seed, name=name: rand_augment(batch, seed, policy=POLICIES[name]), input_signature=signature
        )
        seed = tf.cast(SEED, tf.int64)
        expected = rand_augment(tf.constant(images), seed, policy=POLICIES[name])
        difference = np.abs(traced(images, seed).numpy().astype(int) - expected.numpy())
        # Interpolated levels are rounded, and a shape unknown in advance sums them in another order.
        assert difference.max() <= (1 if POLICIES[name].interpolation == "bilinear" else 0)
        assert (difference > 0).mean() < 1e-3


def test_no_layers_and_no_cutout_change_nothing() -> None:
    images = make_images()
    for policy in (
        Policy(num_layers=0, final_cutout=0.0),
        Policy(min_probability=0.0, max_probability=0.0, final_cutout=0.0),
        always("identity"),
        *(
            fixed(operation, 0)
            for operation in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y", "cutout")
        ),
        *(fixed(operation, 5, min_enhance=1.0, max_enhance=1.0) for operation in ENHANCERS),
    ):
        np.testing.assert_array_equal(rand_augment(tf.constant(images), SEED, policy=policy), images)


def test_fill_is_honoured_everywhere() -> None:
    images = tf.fill([64, 16, 16, 3], tf.constant(255, tf.uint8))
    policy = Policy(operations=("rotate", "shear_x", "shear_y", "translate_x", "translate_y", "cutout"), num_layers=4)
    result = rand_augment(images, SEED, policy=policy, fill=(1, 2, 3)).numpy()
    levels = {tuple(pixel) for pixel in result.reshape(-1, 3)}
    assert levels == {(255, 255, 255), (1, 2, 3)}
    default = rand_augment(images, SEED, policy=dataclasses.replace(policy, fill=9)).numpy()
    assert set(np.unique(default)) == {9, 255}


CHANGES: dict[str, Any] = {
    "operations": ("rotate", "color"),
    "num_layers": 1,
    "min_magnitude": 7,
    "max_magnitude": 3,
    "min_probability": 0.1,
    "max_probability": 1.0,
    "rotate": 10.0,
    "shear": 0.1,
    "translate": 0.1,
    "min_enhance": 0.5,
    "max_enhance": 1.2,
    "cutout": 0.2,
    "pairing": 0.1,
    "tone": "weaker",
    "interpolation": "bilinear",
    "centered_shear": True,
    "final_cutout": 0.25,
    "fill": 0,
}


def test_every_setting_is_changed_below() -> None:
    around = {"start", "weak_after"}  # what is done around RandAugment: tested with strong_augment
    assert set(CHANGES) | around == {field.name for field in dataclasses.fields(Policy)}


@pytest.mark.parametrize("field", CHANGES)
def test_every_setting_changes_the_result(field: str) -> None:
    images = make_images(256)
    base = Policy(operations=(*POLICIES["uda"].operations, "sample_pairing"))
    changed = dataclasses.replace(base, **{field: CHANGES[field]})
    before = rand_augment(tf.constant(images), SEED, policy=base).numpy()
    after = rand_augment(tf.constant(images), SEED, policy=changed).numpy()
    assert np.any(before != after)


def test_digits_stay_readable() -> None:
    """Small grey digits keep most of their ink, and their background stays black."""
    from sklearn.datasets import load_digits

    images = (load_digits().images[:500, :, :, np.newaxis] * 255 / 16).astype(np.uint8)
    result = rand_augment(tf.constant(images), SEED, policy=POLICIES["digits"]).numpy()
    ink = result.sum(axis=(1, 2, 3)) / images.sum(axis=(1, 2, 3))
    assert np.quantile(ink, 0.02) > 0.4
    assert np.mean(ink) > 0.8
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, result, strict=True)]
    assert np.median(correlation) > 0.6
    assert np.median(correlation) < 0.98


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(UserError, match="Augment before normalising"):
        rand_augment(tf.zeros([2, 8, 8, 3]), SEED, policy=POLICIES["uda"])
    with pytest.raises(UserError, match="fill="):
        rand_augment(tf.zeros([2, 8, 8, 1], tf.uint8), SEED, policy=POLICIES["uda"], fill=(1, 2, 3))
