"""NumPy arrays in one file: `--dataset=npz --data_dir=FILE.npz`.

    x_train, y_train, x_test, y_test   inputs and integer labels; -1 in y_train: unlabeled
    x_unlabeled                        optional: a pool of its own, else x_train is the pool
    class_names                        optional: strings, else "0", "1", ...

Inputs are uint8 [N, H, W, C] or [N, H, W] images, or [N, D] points of any numeric type.
"""

import dataclasses
import hashlib
import os
import zipfile
import zlib
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from metassl_tf.data.examples import Dataset, Examples, LoadRequest, PoolIdentity, Source
from metassl_tf.data.images import resize_images
from metassl_tf.errors import UserError

_REQUIRED = ("x_train", "y_train", "x_test", "y_test")
_OPTIONAL = ("x_unlabeled", "class_names")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Npz(Source):
    """Arrays in an .npz file. There is nothing to set."""

    argument: ClassVar[str] = "FILE"
    pool_identity: ClassVar[PoolIdentity] = "values"

    def load(self, request: LoadRequest) -> Dataset:
        """Reads the arrays. Nothing is unpickled: a pickled array could run any code.

        Args:
          request: `data_dir`, or the argument in its place, is the file.

        Returns:
          The dataset, its modality told by the inputs' rank.

        Raises:
          UserError: no such file, pickled objects, missing or unknown arrays, wrong shapes, types or labels.
        """
        arrays = _read(request.argument or request.data_dir)
        inputs = {key: _inputs(key, array) for key, array in arrays.items() if key.startswith("x_")}
        train_shape = inputs["x_train"].shape[1:]
        for key, array in inputs.items():
            if array.shape[1:] != train_shape:
                raise UserError(f"{key} has examples of shape {array.shape[1:]}, but x_train of {train_shape}.")
        class_names = _class_names(arrays)
        if len(train_shape) == 1 and (request.image_size or request.channels):
            raise UserError("The file holds points, which have neither --image_size nor --channels. Leave them out.")

        def examples(part: str) -> Examples:
            values = inputs[f"x_{part}"]
            if values.ndim == 4:
                values = resize_images(values, request.image_shape(train_shape))
            labels = np.full(len(values), -1)
            if part != "unlabeled":
                labels = _labels(f"y_{part}", arrays[f"y_{part}"], len(values), len(class_names))
            return Examples(values, labels.astype(np.int64), values.shape[1:])

        return Dataset(
            name=f"npz {digest_of(*inputs.values())}",
            train=examples("train"),
            test=examples("test"),
            class_names=class_names,
            unlabeled=examples("unlabeled") if "x_unlabeled" in inputs else None,
            modality="image" if len(train_shape) == 3 else "points",
        )


def digest_of(*arrays: npt.NDArray[Any]) -> str:
    """Tells arrays from others: nothing else in such a file does, which has no file names and perhaps no labels."""
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read(path: str) -> dict[str, npt.NDArray[Any]]:
    if not os.path.isfile(path):
        raise UserError(f"There is no file {path!r}. Expected an .npz file: name it with --data_dir.")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not an .npz file. Expected one written by numpy.savez.")
    try:
        # Opened here, since np.load leaves a file open that turns out to be damaged.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
        pickled = "pickle" in str(error).lower()
        reason = "it holds pickled objects, which are refused because they can run any code" if pickled else error
        raise UserError(
            f"{path} cannot be read: {reason}. Expected plain arrays of numbers (and class_names as strings): save "
            "them with numpy.savez, without dtype=object."
        ) from error
    missing = [key for key in _REQUIRED if key not in arrays]
    unknown = [key for key in arrays if key not in _REQUIRED + _OPTIONAL]
    if missing or unknown:
        raise UserError(
            f"{path} has the arrays {', '.join(arrays)}. Expected {', '.join(_REQUIRED)} and optionally "
            f"{', '.join(_OPTIONAL)}. Missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}."
        )
    return arrays


def _inputs(key: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """uint8 [N, H, W, C] or float32 [N, D]."""
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim == 4:
        if array.dtype != np.uint8 or array.shape[-1] not in (1, 3):
            raise UserError(
                f"{key} has the shape {array.shape} and type {array.dtype}. Expected images as uint8 [N, H, W, C] with "
                "values 0 to 255 and C = 1 or 3 (or [N, H, W]): convert them before saving."
            )
        return array
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise UserError(
            f"{key} has the shape {array.shape} and type {array.dtype}. Expected uint8 images [N, H, W, C] or "
            "numeric points [N, D]."
        )
    points = array.astype(np.float32)
    if not np.isfinite(points).all():
        raise UserError(f"{key} holds values that are not finite. Expected finite numbers: remove or replace them.")
    return points


def _class_names(arrays: dict[str, npt.NDArray[Any]]) -> tuple[str, ...]:
    if "class_names" in arrays:
        names = arrays["class_names"]
        if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) < len(names):
            raise UserError(
                f"class_names has the shape {names.shape} and type {names.dtype}. Expected one different string for "
                "each class, such as numpy.array(['cat', 'dog'])."
            )
        return tuple(names.tolist())
    labels = arrays["y_train"]
    # Other types are refused with their own message; a huge label is a mistake, not a reason for a huge list.
    num_classes = int(labels.max(initial=-1)) + 1 if labels.dtype.kind in "iu" else 0
    return tuple(str(label) for label in range(min(num_classes, labels.size)))


def _labels(key: str, array: npt.NDArray[Any], count: int, num_classes: int) -> npt.NDArray[Any]:
    """int64 [N]; a trailing axis of length 1, as Keras' own datasets have, is dropped."""
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    smallest = 0 if key == "y_test" else -1
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise UserError(
            f"{key} has the shape {array.shape} and type {array.dtype}. Expected {count} integers, one for each input: "
            "turn one-hot labels into indices with argmax, and strings into positions in class_names."
        )
    if count and not (smallest <= labels.min() and labels.max() < num_classes):
        raise UserError(
            f"{key} has labels from {labels.min()} to {labels.max()}. Expected {smallest} to {num_classes - 1}, as "
            f"there are {num_classes} classes by class_names or else by y_train: correct either."
        )
    return labels
