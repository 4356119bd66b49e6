import numpy as np
import pytest
from sklearn import datasets

from metassl_tf.data.digits import Digits
from metassl_tf.data.examples import Examples, LoadRequest
from metassl_tf.data.sources import load_dataset
from metassl_tf.data.splits import make_split, split_examples
from metassl_tf.data.toy import Circles, Linear, TwoMoons
from metassl_tf.errors import UserError


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("num_labeled", [40, 100])
def test_the_split_of_digits_literally(seed: int, num_labeled: int) -> None:
    bunch = datasets.load_digits()
    permutation = np.random.RandomState(seed).permutation(1797)
    test, rest = permutation[:597], permutation[597:]
    seen = dict.fromkeys(range(10), 0)
    labeled = []
    for position in rest:
        digit = int(bunch.target[position])
        if seen[digit] < num_labeled / 10:
            seen[digit] += 1
            labeled.append(position)

    dataset = load_dataset("digits", split_seed=seed)
    parts = split_examples(dataset, make_split(dataset, num_labeled=num_labeled, split_seed=seed))
    pixels = np.round(bunch.images * 255 / 16)[..., np.newaxis]
    np.testing.assert_array_equal(parts.labeled.inputs, pixels[labeled])
    np.testing.assert_array_equal(parts.labeled.labels, bunch.target[labeled])
    np.testing.assert_array_equal(parts.test.inputs, pixels[test])
    np.testing.assert_array_equal(parts.test.labels, bunch.target[test])
    np.testing.assert_array_equal(parts.unlabeled.inputs, pixels[rest])


def test_digits_are_uint8_images_that_must_not_be_mirrored() -> None:
    dataset = Digits().load(LoadRequest())
    assert dataset.train.inputs.dtype == np.uint8
    assert dataset.train.shape == (8, 8, 1)
    assert (dataset.train.inputs.min(), dataset.train.inputs.max()) == (0, 255)
    assert dataset.class_names == tuple("0123456789")
    assert (dataset.modality, dataset.flip) == ("image", False)


def test_digits_can_be_resized() -> None:
    dataset = load_dataset("digits", image_size=16, channels=3)
    assert dataset.train.inputs.shape == (1200, 16, 16, 3)
    assert dataset.test.shape == (16, 16, 3)


def sides(examples: Examples) -> dict[str, np.ndarray]:
    """Which points lie on the side of class 1, in each of the sets."""
    first, second = examples.inputs.T
    upper = np.isclose(first**2 + second**2, 1, atol=1e-4) & (second >= -1e-4)
    return {"two_moons": ~upper, "circles": np.hypot(first, second) < 0.75, "linear": first + second > 0}


@pytest.mark.parametrize(
    ("name", "source"),
    [("two_moons", TwoMoons(noise=0.0)), ("circles", Circles(noise=0.0)), ("linear", Linear(noise=0.1))],
)
def test_points_have_the_class_of_their_side(name: str, source: TwoMoons | Circles | Linear) -> None:
    dataset = load_dataset(name, settings=source)
    for examples in (dataset.train, dataset.test):
        np.testing.assert_array_equal(sides(examples)[name], examples.labels == 1)


def test_settings_of_points() -> None:
    dataset = TwoMoons(num_train=11, num_test=3).load(LoadRequest())
    assert dataset.train.inputs.shape == (11, 2)
    assert dataset.train.inputs.dtype == np.float32
    assert len(dataset.test) == 3
    assert dataset.modality == "points"
    assert len(TwoMoons(num_test=0).load(LoadRequest()).test) == 0
    assert np.std(TwoMoons(noise=1.0).load(LoadRequest()).train.inputs) > np.std(dataset.train.inputs)


def test_points_depend_on_their_own_seed_alone() -> None:
    first, again = (TwoMoons().load(LoadRequest(split_seed=seed)).train.inputs for seed in (0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, TwoMoons(data_seed=1).load(LoadRequest()).train.inputs)


def test_training_and_test_points_differ() -> None:
    dataset = Linear().load(LoadRequest())
    assert not np.isin(dataset.test.inputs[:, 0], dataset.train.inputs[:, 0]).any()


def test_points_have_no_size() -> None:
    with pytest.raises(UserError, match="--image_size"):
        load_dataset("two_moons", image_size=8)
