"""Pollution: exact shares, clean examples that stay as they are, and classes that leave every part."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from metassl_tf.data.examples import Dataset, Examples, concatenate, empty_like
from metassl_tf.data.pollution import POLLUTIONS, pollute, separate_unknown_classes
from metassl_tf.data.splits import Split, SplitExamples, make_split, split_examples
from metassl_tf.errors import UserError

NAMES = ("ant", "bee", "cat", "dog")
SHAPE = (4, 3, 3)


def pictures(count: int, start: int = 0, labels: int = 4) -> Examples:
    """Images whose pixels all differ; the first two values number the image."""
    pixels = np.arange(36, dtype=np.uint8) * np.ones((count, 1), np.uint8) + 2
    number = start + np.arange(count)
    pixels[:, 0], pixels[:, 1] = number // 256, number % 256
    return Examples(pixels.reshape(count, *SHAPE), np.arange(count) % labels, SHAPE)


def dataset(pool: int = 0, validation: int = 0, **changes: Any) -> Dataset:
    return Dataset(
        name="pictures",
        train=pictures(80),
        test=pictures(20, start=1000),
        class_names=NAMES,
        unlabeled=pictures(pool, start=2000) if pool else None,
        validation=pictures(validation, start=3000) if validation else None,
        **changes,
    )


def streamed(examples: Examples) -> Examples:
    paths = np.array([f"{number}.png" for number in range(len(examples))], np.str_)
    return dataclasses.replace(examples, inputs=paths)


def polluted(
    data: Dataset, *, unknown: tuple[str, ...] = (), share: float = 0.3, pollution: str = "noise", **split: Any
) -> tuple[Dataset, Split, SplitExamples]:
    strangers = empty_like(data.train)
    if unknown:
        data, strangers = separate_unknown_classes(data, unknown)
    seed = split.pop("split_seed", 0)
    clean = make_split(data, **{"num_labeled": 8, "split_seed": seed, **split})
    data, full = pollute(data, clean, strangers, share=share, pollution=pollution, split_seed=seed)
    return data, full, split_examples(data, full)


def keys(examples: Examples) -> list[bytes]:
    return [image.tobytes() for image in examples.inputs]


def of_pollution(examples: Examples) -> Examples:
    return examples.take(np.flatnonzero(examples.columns["polluted"]))


@pytest.mark.parametrize("pollution", POLLUTIONS)
@pytest.mark.parametrize("pool", [0, 24])
@pytest.mark.parametrize("inside", [True, False])
def test_the_share_is_exact_and_the_rest_stays_in_its_place(pollution: str, pool: int, inside: bool) -> None:
    data = dataset(pool=pool)
    for share in (0.1, 0.25, 0.4):
        full, split, parts = polluted(
            data, unknown=("cat", "dog"), share=share, pollution=pollution, labeled_in_unlabeled=inside
        )
        clean_data, _ = separate_unknown_classes(data, ("cat", "dog"))
        clean = make_split(clean_data, num_labeled=8, labeled_in_unlabeled=inside)
        count = len(clean.unlabeled)
        added = round(share * count / (1 - share))
        marks = parts.unlabeled.columns["polluted"]
        assert marks.tolist() == [0] * count + [1] * added
        assert abs(added / (count + added) - share) <= 0.5 / count
        assert (parts.unlabeled.labels[count:] == -1).all()
        np.testing.assert_array_equal(split.unlabeled[:count], clean.unlabeled)
        assert (np.diff(split.unlabeled) > 0).all()
        assert keys(parts.unlabeled)[:count] == keys(split_examples(clean_data, clean).unlabeled)
        for part in ("labeled", "validation", "meta_validation", "test"):
            np.testing.assert_array_equal(getattr(split, part), getattr(clean, part))
        assert keys(full.train) == keys(clean_data.train)


@pytest.mark.parametrize("pollution", POLLUTIONS)
def test_pollution_is_a_function_of_the_split_seed(pollution: str) -> None:
    runs = [
        keys(polluted(dataset(), unknown=("dog",), pollution=pollution, split_seed=seed, share=0.2)[2].unlabeled)
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1]
    assert len(set(runs[0]) ^ set(runs[2])) > 0
    few, many = (
        keys(of_pollution(polluted(dataset(), unknown=("dog",), pollution=pollution, share=share)[2].unlabeled))
        for share in (0.1, 0.2)
    )
    assert set(few) < set(many)


def test_unknown_classes_leave_every_part_and_the_others_are_numbered_anew() -> None:
    data, strangers = separate_unknown_classes(dataset(pool=24, validation=12), ("bee", "0"))
    assert data.class_names == ("cat", "dog")
    for part, total in (("train", 40), ("test", 10), ("unlabeled", 12), ("validation", 6)):
        examples = getattr(data, part)
        assert len(examples) == total
        numbers = examples.inputs[:, 0, 0, 1] % 4  # what the label was
        np.testing.assert_array_equal(examples.labels, numbers - 2)
    assert len(strangers) == 40 + 12
    assert (strangers.labels == -1).all()
    assert (strangers.inputs[:, 0, 0, 1] % 4 < 2).all()


def test_a_name_comes_before_a_number() -> None:
    data = dataclasses.replace(dataset(), class_names=("3", "2", "1", "0"))
    assert separate_unknown_classes(data, ("3",))[0].class_names == ("2", "1", "0")


def test_examples_of_unknown_label_stay() -> None:
    data = dataset()
    data = dataclasses.replace(data, train=dataclasses.replace(data.train, labels=np.where(np.arange(80) < 4, -1, 1)))
    known, strangers = separate_unknown_classes(data, ("bee",))
    assert known.train.labels.tolist() == [-1] * 4
    assert len(strangers) == 76


def test_strangers_pollute_and_are_nowhere_else() -> None:
    for seed, labeled in itertools.product(range(3), (6, 12)):
        _, _, parts = polluted(
            dataset(),
            unknown=("dog",),
            share=0.2,
            pollution="unknown_classes",
            split_seed=seed,
            num_labeled=labeled,
            num_validation=6,
            num_meta_validation=6,
        )
        added = of_pollution(parts.unlabeled)
        assert (added.inputs[:, 0, 0, 1] % 4 == 3).all()
        assert len(set(keys(added))) == len(added) == round(0.25 * 48)
        others = set(itertools.chain.from_iterable(keys(part) for part in parts if part is not parts.unlabeled))
        assert not others & set(keys(added))
        for part in (parts.labeled, parts.validation, parts.meta_validation, parts.test):
            assert (part.inputs[:, 0, 0, 1] % 4 < 3).all()


def test_who_is_labeled_does_not_depend_on_pollution() -> None:
    data, _ = separate_unknown_classes(dataset(), ("dog",))
    wanted = make_split(data, num_labeled=9, split_seed=5).labeled
    for share, pollution in itertools.product((0.1, 0.2), POLLUTIONS):
        _, split, _ = polluted(
            dataset(), unknown=("dog",), share=share, pollution=pollution, num_labeled=9, split_seed=5
        )
        np.testing.assert_array_equal(split.labeled, wanted)


def test_a_stranger_that_lies_in_both_lists_pollutes_once() -> None:
    data = dataset()
    data = dataclasses.replace(data, unlabeled=concatenate([data.train, pictures(4, start=5000)]))
    known, strangers = separate_unknown_classes(data, ("dog",))
    assert len(strangers) == len(set(keys(strangers))) == 20 + 1
    assert known.unlabeled is not None
    assert not set(keys(known.unlabeled)) & set(keys(strangers))


def test_too_few_strangers_say_the_largest_share() -> None:
    # 60 unlabeled examples of three classes beside 20 of the fourth.
    with pytest.raises(UserError, match=r"asks for 26 .* beside the 60 .* there are 20\. .* at most 0\.25:"):
        polluted(dataset(), unknown=("dog",), share=0.3, pollution="unknown_classes")
    assert len(polluted(dataset(), unknown=("dog",), share=0.25, pollution="unknown_classes")[1].unlabeled) == 80
    with pytest.raises(UserError, match=r"there are none\. .*--unknown_classes, or --pollution=noise"):
        polluted(dataset(), pollution="unknown_classes")


def test_unknown_classes_that_do_not_exist_or_leave_too_few() -> None:
    with pytest.raises(UserError, match=r"--unknown_classes=dogs is no class\. .*from 0 to 3.*Did you mean 'dog'"):
        separate_unknown_classes(dataset(), ("dogs",))
    for name in ("4", "-1", "", "²"):
        with pytest.raises(UserError, match="is no class"):
            separate_unknown_classes(dataset(), (name,))
    with pytest.raises(UserError, match=r"--unknown_classes=ant,bee,3 leaves 1 of the 4 classes"):
        separate_unknown_classes(dataset(), ("ant", "bee", "3"))


def test_noise_is_uniform() -> None:
    added = of_pollution(polluted(dataset(), share=0.9)[2].unlabeled).inputs
    assert added.dtype == np.uint8
    assert len(added) == 720
    counts = np.bincount(added.ravel() // 16, minlength=16)
    # 25,920 values: a sixteenth is 1,620, with a standard deviation of 39.
    np.testing.assert_allclose(counts, 1620, atol=5 * 39)


def test_shuffled_pixels_are_those_of_other_examples_in_orders_of_their_own() -> None:
    data = dataset()
    added = of_pollution(polluted(data, pollution="shuffled_pixels", share=0.6)[2].unlabeled)
    originals = {tuple(map(tuple, sorted(image.reshape(-1, 3).tolist()))) for image in data.train.inputs}
    orders = set()
    for image in added.inputs:
        pixels = image.reshape(-1, 3).tolist()
        assert tuple(map(tuple, sorted(pixels))) in originals
        # Where the twelve pixels, told by their last channel, have gone.
        orders.add(tuple(pixel[2] for pixel in pixels))
    assert len(added) == 120
    assert len(orders) == 120
    assert len({bytes(sorted(key)) for key in keys(added)}) == 80  # each is used before one is used again
    assert not set(keys(added)) & set(keys(data.train))


@pytest.mark.parametrize("pollution", ["noise", "shuffled_pixels"])
def test_made_images_need_images_in_memory(pollution: str) -> None:
    data = dataset()
    files = dataclasses.replace(data, train=streamed(data.train), test=streamed(data.test))
    with pytest.raises(UserError, match=rf"--pollution={pollution} makes images in memory.*--memory_limit"):
        polluted(files, pollution=pollution)
    points = Examples(np.zeros((80, 2), np.float32), np.arange(80) % 4, (2,))
    plane = dataclasses.replace(data, train=points, test=points, modality="points")
    with pytest.raises(UserError, match=rf"--pollution={pollution} makes images, and --dataset holds points"):
        polluted(plane, pollution=pollution)


def test_unknown_classes_work_for_files_and_points() -> None:
    data = dataset()
    files = dataclasses.replace(data, train=streamed(data.train), test=streamed(data.test))
    points = Examples(np.arange(80, dtype=np.float32)[:, np.newaxis], np.arange(80) % 4, (1,))
    plane = dataclasses.replace(data, train=points, test=points.take(slice(0, 8)), modality="points")
    for other in (files, plane):
        _, _, parts = polluted(other, unknown=("dog",), share=0.2, pollution="unknown_classes")
        added = of_pollution(parts.unlabeled)
        assert len(added) == 15
        assert set(added.inputs.ravel().tolist()) <= set(other.train.inputs[3::4].ravel().tolist())


def test_only_files_pollute_files() -> None:
    data = dataset(pool=40)
    assert data.unlabeled is not None
    mixed = dataclasses.replace(data, unlabeled=streamed(data.unlabeled))
    _, strangers = separate_unknown_classes(mixed, ("dog",))
    assert strangers.streamed
    assert len(strangers) == 10
