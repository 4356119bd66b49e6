import dataclasses

import numpy as np
import pytest

from metassl_tf.data.examples import Dataset, Examples, LoadRequest, Source, concatenate, empty_like
from metassl_tf.errors import UserError


def points(count: int, start: int = 0, names: bool = False) -> Examples:
    values = np.arange(start, start + count, dtype=np.float32)
    inputs = np.stack([values, -values], axis=1)
    own_names = np.array([f"p{number}" for number in range(count)]) if names else None
    return Examples(inputs, np.arange(count, dtype=np.int64) % 2, (2,), own_names)


def test_take_keeps_inputs_labels_and_names_together() -> None:
    taken = points(6, names=True).take(np.array([5, 0, 3]))
    np.testing.assert_array_equal(taken.inputs[:, 0], [5, 0, 3])
    np.testing.assert_array_equal(taken.labels, [1, 0, 1])
    assert taken.names is not None
    assert taken.names.tolist() == ["p5", "p0", "p3"]


def test_taking_everything_in_order_copies_nothing() -> None:
    examples = points(4)
    assert examples.take(np.arange(4)) is examples
    assert examples.take(slice(1, 3)).inputs.base is examples.inputs
    assert len(examples.take(np.arange(4)[::-1])) == 4
    assert examples.take(np.arange(4)[::-1]) is not examples


def test_lengths_and_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="length"):
        Examples(np.zeros((3, 2)), np.zeros(2, np.int64), (2,))
    with pytest.raises(ValueError, match="shape"):
        Examples(np.zeros((3, 2)), np.zeros(3, np.int64), (3,))


def with_columns(examples: Examples, start: int = 0) -> Examples:
    """Two columns that tell each example: an integer and a row of two numbers."""
    number = np.arange(start, start + len(examples))
    return examples.with_columns({"number": number, "row": np.stack([number, -number], axis=1).astype(np.float32)})


def test_columns_stay_with_their_examples() -> None:
    examples = with_columns(points(6, names=True))
    for taken in (examples.take(np.array([5, 0, 3])), examples.take(slice(2, 4)), empty_like(examples)):
        np.testing.assert_array_equal(taken.columns["number"], taken.inputs[:, 0])
        np.testing.assert_array_equal(taken.columns["row"], taken.inputs)
    assert examples.relabeled(np.array([1, 0])).columns.keys() == examples.columns.keys()
    replaced = examples.with_columns({"number": np.zeros(6, np.int64)})
    assert replaced.columns["number"].max() == 0
    assert replaced.columns["row"] is examples.columns["row"]
    assert examples.columns["number"].max() == 5


def test_columns_fit_the_examples() -> None:
    with pytest.raises(ValueError, match="length"):
        points(3).with_columns({"number": np.zeros(2, np.int64)})
    for column in (np.zeros(3, bool), np.zeros(3, np.int32), np.array(["a", "b", "c"])):
        with pytest.raises(ValueError, match="column number is of type"):
            points(3).with_columns({"number": column})


def test_given_labels_are_relabeled_as_labels_are() -> None:
    examples = dataclasses.replace(points(3), columns={"given_label": np.array([1, -1, 0])})
    np.testing.assert_array_equal(examples.relabeled(np.array([2, 0])).columns["given_label"], [0, -1, 2])


def test_concatenate_fills_missing_columns_with_what_means_unknown() -> None:
    joined = concatenate([points(2), with_columns(points(2, start=7), start=7)])
    assert joined.columns["number"].tolist() == [-1, -1, 7, 8]
    assert joined.columns["number"].dtype == np.int64
    np.testing.assert_array_equal(joined.columns["row"], [[np.nan] * 2] * 2 + [[7, -7], [8, -8]])
    assert joined.columns["row"].dtype == np.float32
    whole = concatenate([with_columns(points(2)), with_columns(points(1, start=2), start=2)])
    np.testing.assert_array_equal(whole.columns["row"], whole.inputs)


def test_relabeled_leaves_unknown_labels_unknown() -> None:
    examples = Examples(np.zeros((4, 2)), np.array([0, -1, 2, 1]), (2,))
    np.testing.assert_array_equal(examples.relabeled(np.array([2, 0, 1])).labels, [2, -1, 1, 0])
    np.testing.assert_array_equal(examples.relabeled(np.array([-1, -1, -1])).labels, [-1] * 4)


def test_concatenate_fills_missing_names() -> None:
    joined = concatenate([points(2), points(1, start=7, names=True)])
    np.testing.assert_array_equal(joined.inputs[:, 0], [0, 1, 7])
    assert joined.names is not None
    assert joined.names.tolist() == ["", "", "p0"]


def test_concatenate_refuses_memory_beside_files() -> None:
    files = Examples(np.array(["a.png"]), np.array([0]), (2,))
    assert files.streamed
    with pytest.raises(UserError, match="--memory_limit"):
        concatenate([points(2), files])
    assert concatenate([empty_like(points(2)), files]) is files


class InMemory(Source):
    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def load(self, request: LoadRequest) -> Dataset:
        modality = "image" if len(self.examples.shape) == 3 else "points"
        return Dataset(name="d", train=self.examples, test=self.examples, class_names=("a", "b"), modality=modality)


def test_a_pool_is_resized_to_the_wanted_shape() -> None:
    images = Examples(np.full((2, 4, 4, 1), 7, np.uint8), np.array([0, 1]), (4, 4, 1))
    pool, _ = InMemory(images).load_pool(LoadRequest(), (6, 6, 3))
    assert pool.shape == (6, 6, 3)
    assert pool.inputs.shape == (2, 6, 6, 3)
    assert (pool.inputs == 7).all()


def test_images_and_points_do_not_mix() -> None:
    images = Examples(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]), (4, 4, 1))
    with pytest.raises(UserError, match="--unlabeled_dataset holds images"):
        InMemory(images).load_pool(LoadRequest(), (2,))
    with pytest.raises(UserError, match="--unlabeled_dataset holds points"):
        InMemory(points(2)).load_pool(LoadRequest(), (4, 4, 1))


def test_a_request_changes_size_and_channels_only_where_asked() -> None:
    assert LoadRequest().image_shape((4, 6, 1)) == (4, 6, 1)
    assert LoadRequest(image_size=8).image_shape((4, 6, 1)) == (8, 8, 1)
    assert LoadRequest(channels=3).image_shape((4, 6, 1)) == (4, 6, 3)
