"""A user's own images: `--dataset=image_folder --data_dir=DIR`.

    DIR/labeled/<class>/*     images whose class is known (folders below a class belong to it)
    DIR/unlabeled/**          any images; below unlabeled/<class>/ the class is known for measuring only
    DIR/weak/<class>/*        images whose class nobody checked: unlabeled ones with that as their given label
    DIR/validation/<class>/*  optional: an explicit validation set, instead of one taken from labeled/
    DIR/test/<class>/*        optional: without it no test accuracy is measured; nothing is taken from the labels

Without unlabeled/ and weak/, the labeled images that --num_labeled leaves out are the unlabeled ones.
"""

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from metassl_tf.data.examples import Dataset, Examples, LoadRequest, Source, require_images
from metassl_tf.data.image_files import FileLoader, files_shape, list_images
from metassl_tf.data.images import EXTENSIONS, ImageShape
from metassl_tf.data.unreliable import with_given_labels
from metassl_tf.errors import UserError, near_match

_logger = logging.getLogger(__name__)

_LARGEST_DEFAULT_SIDE = 32
_PARTS = ("labeled", "unlabeled", "weak", "validation", "test")
_LAYOUT = (
    "Expected DIR/labeled/<class>/*.png (or .jpg ...) for every class and DIR/unlabeled/ for the rest, "
    "and optionally DIR/validation/<class>/ and DIR/test/<class>/"
)


@dataclasses.dataclass(frozen=True)
class _Files:
    """Files of one part and their labels."""

    paths: list[str]
    labels: list[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolder(Source):
    """A folder of PNG, JPEG, BMP, GIF or WebP images of any size. There is nothing to set."""

    argument: ClassVar[str] = "DIR"
    heeds: ClassVar[frozenset[str]] = frozenset({"strict_data", "memory_limit"})

    def load(self, request: LoadRequest) -> Dataset:
        """Finds, checks and (where they fit in memory) decodes all images of a folder.

        Args:
          request: `data_dir`, or the argument in its place, is the folder.

        Returns:
          The dataset. Without an image size, images become squares whose side is the longer side of the labeled
          images' most common size, at most 32 pixels.

        Raises:
          UserError: no such folder, no images, fewer than two classes, a class without a readable image, unknown
            classes in validation/ or test/, a part whose name is misspelt, grey and color images mixed, or unreadable
            ones with `strict_data`.
        """
        root = _existing_folder(request.argument or request.data_dir, "--data_dir")
        class_names = _class_names(root)
        _check_parts(root)
        parts = {part: _class_files(root, part, class_names) for part in ("labeled", "validation", "test")}
        parts["unlabeled"] = _unlabeled_files(root, class_names)
        shape = request.image_shape(files_shape(parts["labeled"].paths, _LARGEST_DEFAULT_SIDE))
        loaded = self._load_parts(root, parts, shape, request)
        pool = _with_weak_labels(root, loaded["unlabeled"], class_names)
        _check_classes(root, loaded["labeled"], class_names)
        if not len(loaded["test"]):
            _logger.warning(
                "%s has no test images: no test accuracy will be measured. Put images that are not in labeled/ into "
                "test/<class>/, or judge by a validation set (validation/<class>/, or --num_validation).",
                root,
            )
        return Dataset(
            name="image_folder",
            train=loaded["labeled"],
            test=loaded["test"],
            class_names=class_names,
            unlabeled=pool if len(pool) else None,
            validation=loaded["validation"] if len(loaded["validation"]) else None,
        )

    def load_pool(self, request: LoadRequest, shape: tuple[int, ...]) -> tuple[Examples, tuple[str, ...]]:
        """Loads DIR/unlabeled/ and DIR/weak/, else DIR/labeled/, else every image below DIR.

        Args:
          request: its argument is DIR.
          shape: the wanted (H, W, C); grey and color are converted to it.

        Returns:
          The images with the classes of DIR/labeled/, else of DIR/weak/, if there are any.

        Raises:
          UserError: no such folder, no readable images, or unreadable ones with `strict_data`.
        """
        image_shape = require_images(shape)
        root = _existing_folder(request.argument, "--unlabeled_dataset=image_folder:DIR")
        folders = [_entries(os.path.join(root, part), folders=True) for part in ("labeled", "weak")]
        class_names = tuple(folders[0] or folders[1])
        files = _unlabeled_files(root, class_names)
        if not files.paths:
            files = _class_files(root, "labeled", class_names)
        if not files.paths:
            paths = list_images(root)
            files = _Files(paths, [-1] * len(paths))
        request = dataclasses.replace(request, channels=image_shape[2])
        pool = self._load_parts(root, {"unlabeled": files}, image_shape, request)["unlabeled"]
        if not len(pool):
            raise UserError(
                f"{root} holds no readable images. Expected some below --unlabeled_dataset=image_folder:DIR."
            )
        return _with_weak_labels(root, pool, class_names), class_names

    def _load_parts(
        self, root: str, parts: dict[str, _Files], shape: ImageShape, request: LoadRequest
    ) -> dict[str, Examples]:
        """Loads all parts at once, so that either all are in memory or all are streamed."""
        loader = FileLoader(
            root=root,
            shape=shape,
            any_channels=request.channels != 0,
            strict_data=request.strict_data,
            memory_limit=request.memory_limit,
        )
        everything, kept = loader.load(
            [path for part in parts.values() for path in part.paths],
            [label for part in parts.values() for label in part.labels],
        )
        # Slices share the memory of the decoded images.
        ends = np.searchsorted(kept, np.cumsum([len(part.paths) for part in parts.values()]))
        starts = [0, *ends[:-1]]
        return {name: everything.take(slice(*bounds)) for name, *bounds in zip(parts, starts, ends, strict=True)}


def _existing_folder(folder: str, flag: str) -> str:
    if not folder:
        raise UserError(f"image_folder needs a folder. Name it with {flag}. {_LAYOUT}.")
    if not os.path.isdir(folder):
        raise UserError(f"There is no folder {folder}. Correct {flag}. {_LAYOUT}.")
    return folder


def _entries(folder: str, *, folders: bool) -> list[str]:
    """Names of the folders, or else of the files, directly in a folder that may be missing; none that is hidden."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() == folders and entry.name[0] != ".")


def _class_names(root: str) -> tuple[str, ...]:
    """The class folders in labeled/, sorted."""
    labeled = os.path.join(root, "labeled")
    if not os.path.isdir(labeled):
        found = ", ".join(_entries(root, folders=True)) or "no folders"
        raise UserError(
            f"{root} has no folder named labeled; it has {found}. {_LAYOUT}. If these are classes, move them into "
            f"{labeled}."
        )
    names = _entries(labeled, folders=True)
    if len(names) < 2:
        raise UserError(
            f"{labeled} has {len(names)} class folders{''.join(f' ({name})' for name in names)}. Expected at least "
            "two, one for each class."
        )
    return tuple(names)


def _check_parts(root: str) -> None:
    """Refuses a folder that looks like a missing part, misspelt (unlabelled/); warns of others, which are not read."""
    found = _entries(root, folders=True)
    missing = [part for part in _PARTS if part not in found]
    others = [name for name in found if name not in _PARTS]
    for name in others:
        meant = near_match(name.lower(), missing)
        if meant:
            raise UserError(
                f"{root} has a folder {name!r}, which would not be read. Expected only: {', '.join(_PARTS)}.{meant} "
                "Rename it, or move it elsewhere."
            )
    if others:
        _logger.warning("Folders in %s are ignored: %s. Expected: %s.", root, ", ".join(others), ", ".join(_PARTS))


def _class_files(root: str, part: str, class_names: Sequence[str]) -> _Files:
    """The files of DIR/part/<class>/, class by class; none where there is no such folder."""
    folder = os.path.join(root, part)
    found = _entries(folder, folders=True)
    unknown = [name for name in found if name not in class_names]
    if unknown:
        raise UserError(
            f"{folder} has the class {unknown[0]!r}, which labeled/ has not. Expected only: {', '.join(class_names)}."
            f"{near_match(unknown[0], list(class_names))} Rename or remove the folder."
        )
    loose = [name for name in _entries(folder, folders=False) if name.lower().endswith(EXTENSIONS)]
    if loose:
        _logger.warning("%d images directly in %s are ignored, such as %s: no class.", len(loose), folder, loose[0])
    files = _Files([], [])
    for label, name in enumerate(class_names):
        if name in found:
            paths = list_images(os.path.join(folder, name))
            files.paths.extend(paths)
            files.labels.extend([label] * len(paths))
    return files


def _unlabeled_files(root: str, class_names: Sequence[str]) -> _Files:
    """The files of DIR/unlabeled/ and DIR/weak/, with the classes that can be measured against."""
    files = _Files([], [])
    for part in ("unlabeled", "weak"):
        folder = os.path.join(root, part)
        for path in list_images(folder) if os.path.isdir(folder) else ():
            parent = os.path.relpath(path, folder).split(os.sep)[0]
            known = part == "unlabeled" and parent in class_names
            files.paths.append(path)
            files.labels.append(class_names.index(parent) if known else -1)
    return files


def _with_weak_labels(root: str, pool: Examples, class_names: Sequence[str]) -> Examples:
    """The same images, with the class folders of DIR/weak/ as given labels where there are such."""
    if pool.names is None or not len(pool):
        return pool
    folders = [name.split(os.sep)[:2] for name in pool.names.tolist()]
    weak = [folder[1] for folder in folders if folder[0] == "weak"]
    others = [name for name in weak if name not in class_names]
    if others:
        _logger.warning(
            "%d images in %s have no given label, such as those of %r, which is no class of labeled/.%s",
            len(others),
            os.path.join(root, "weak"),
            others[0],
            near_match(others[0], list(class_names)),
        )
    if len(others) == len(weak):
        return pool
    known = {("weak", name): label for label, name in enumerate(class_names)}
    return with_given_labels(pool, np.array([known.get(tuple(folder), -1) for folder in folders]))


def _check_classes(root: str, labeled: Examples, class_names: Sequence[str]) -> None:
    counts = np.bincount(labeled.labels, minlength=len(class_names))
    if not counts.all():
        empty = class_names[int(np.argmin(counts))]
        raise UserError(
            f"{os.path.join(root, 'labeled', empty)} holds no readable image. Expected at least one of each class: add "
            "some, or remove the folder."
        )
