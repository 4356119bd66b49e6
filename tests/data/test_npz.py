import pathlib
from typing import Any

import numpy as np
import pytest

from metassl_tf.data.sources import load_dataset
from metassl_tf.errors import UserError

RANDOM = np.random.RandomState(0)
IMAGES: dict[str, Any] = {
    "x_train": RANDOM.randint(0, 256, (6, 5, 4, 3), np.uint8),
    "y_train": np.array([0, 1, 2, 0, 1, -1]),
    "x_test": RANDOM.randint(0, 256, (3, 5, 4, 3), np.uint8),
    "y_test": np.array([2, 1, 0], np.uint8),
}
POINTS: dict[str, Any] = {
    "x_train": RANDOM.normal(size=(4, 3)),
    "y_train": np.array([0, 1, 0, 1]),
    "x_test": RANDOM.normal(size=(2, 3)),
    "y_test": np.array([0, 1]),
}


def load(folder: pathlib.Path, arrays: dict[str, Any], **options: Any) -> Any:
    np.savez(folder / "data.npz", **arrays)
    return load_dataset("npz", data_dir=str(folder / "data.npz"), **options)


def test_images(tmp_path: pathlib.Path) -> None:
    dataset = load(tmp_path, IMAGES)
    np.testing.assert_array_equal(dataset.train.inputs, IMAGES["x_train"])
    assert dataset.train.labels.tolist() == [0, 1, 2, 0, 1, -1]
    assert dataset.train.labels.dtype == dataset.test.labels.dtype == np.int64
    np.testing.assert_array_equal(dataset.test.inputs, IMAGES["x_test"])
    assert dataset.class_names == ("0", "1", "2")
    assert (dataset.modality, dataset.unlabeled, dataset.flip) == ("image", None, False)


def test_images_are_resized_where_asked(tmp_path: pathlib.Path) -> None:
    dataset = load(tmp_path, IMAGES, image_size=8, channels=1)
    assert dataset.train.inputs.shape == (6, 8, 8, 1)
    assert dataset.test.shape == (8, 8, 1)


def test_grey_images_without_a_channel_axis(tmp_path: pathlib.Path) -> None:
    grey = IMAGES | {key: IMAGES[key][..., 0] for key in ("x_train", "x_test")}
    assert load(tmp_path, grey).train.shape == (5, 4, 1)


def test_points_pool_and_names(tmp_path: pathlib.Path) -> None:
    arrays = POINTS | {"x_unlabeled": RANDOM.normal(size=(7, 3)), "class_names": np.array(["no", "yes"])}
    dataset = load(tmp_path, arrays)
    assert dataset.modality == "points"
    assert dataset.train.inputs.dtype == np.float32
    assert dataset.class_names == ("no", "yes")
    assert dataset.unlabeled.inputs.shape == (7, 3)
    assert dataset.unlabeled.labels.tolist() == [-1] * 7


def test_labels_in_a_column_as_keras_has_them(tmp_path: pathlib.Path) -> None:
    assert load(tmp_path, POINTS | {"y_train": POINTS["y_train"][:, np.newaxis]}).train.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (POINTS | {"x_train": np.array([[1], "a"], object)}, "pickled objects, which are refused"),
        ({key: POINTS[key] for key in ("x_train", "y_train")}, "Missing: x_test, y_test"),
        (POINTS | {"x_unlabelled": POINTS["x_train"]}, "unknown: x_unlabelled"),
        (IMAGES | {"x_train": IMAGES["x_train"] / 255}, r"x_train has .* float64.*uint8"),
        (IMAGES | {"x_train": IMAGES["x_train"][..., :2]}, r"x_train has .*C = 1 or 3"),
        (IMAGES | {"x_test": IMAGES["x_test"][:, 1:]}, r"x_test has examples of shape \(4, 4, 3\)"),
        (POINTS | {"x_train": np.array(["a", "b", "c", "d"])}, "x_train has the shape"),
        (POINTS | {"x_test": np.array([[0, 1, np.nan]] * 2)}, "x_test holds values that are not finite"),
        (POINTS | {"y_train": np.array([0.0, 1, 0, 1])}, "y_train has .*float64.*Expected 4 integers"),
        (POINTS | {"y_train": np.eye(2, dtype=int)[[0, 1, 0, 1]]}, "y_train has .*argmax"),
        (POINTS | {"y_train": np.array(["a", "b", "a", "b"])}, "y_train has .*Expected 4 integers"),
        (POINTS | {"y_test": np.array([0, 2])}, "y_test has labels from 0 to 2. Expected 0 to 1"),
        (POINTS | {"y_test": np.array([-1, 1])}, "y_test has labels from -1"),
        (POINTS | {"y_train": np.array([0, 1, 0, 10**12])}, "y_train has labels from 0 to 1000000000000"),
        (POINTS | {"y_train": np.zeros(4, int), "y_test": np.zeros(2, int)}, "at least two classes"),
        (POINTS | {"class_names": np.array(["a", "a"])}, "class_names"),
        (POINTS | {"class_names": np.array([0, 1])}, "class_names"),
    ],
)
def test_wrong_arrays(tmp_path: pathlib.Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, arrays)


def test_points_have_no_size(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="--image_size"):
        load(tmp_path, POINTS, image_size=8)


def test_nothing_is_unpickled(tmp_path: pathlib.Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pathlib.Path.touch, (tmp_path / "sprung",))

    with pytest.raises(UserError, match="pickled"):
        load(tmp_path, POINTS | {"class_names": np.array([Trap(), Trap()], object)})
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_no_npz(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"no file .*--data_dir"):
        load_dataset("npz", data_dir=str(tmp_path / "none.npz"))
    with pytest.raises(UserError, match=r"no file .*--data_dir"):
        load_dataset("npz", data_dir=str(tmp_path))
    path = tmp_path / "text.npz"
    path.write_text("hello")
    with pytest.raises(UserError, match=r"not an \.npz file"):
        load_dataset("npz", data_dir=str(path))


def test_a_damaged_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **IMAGES)
    contents = bytearray(path.read_bytes())
    contents[200] ^= 255
    path.write_bytes(contents)
    with pytest.raises(UserError, match="cannot be read"):
        load_dataset("npz", data_dir=str(path))
