"""Files of images: found in folders, checked, and decoded once if they fit in memory."""

import collections
import dataclasses
import logging
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from metassl_tf.data.examples import Examples, spread
from metassl_tf.data.images import EXTENSIONS, ImageShape, common_shape, decode_many
from metassl_tf.errors import UserError

_logger = logging.getLogger(__name__)

_NAMED_AT_MOST = 5
_MEASURED = 500


def listed(names: Sequence[str]) -> str:
    """Writes the first five names, and how many more there are."""
    shown = ", ".join(names[:_NAMED_AT_MOST])
    return shown if len(names) <= _NAMED_AT_MOST else f"{shown} and {len(names) - _NAMED_AT_MOST:,} more"


def _is_utf8(path: str) -> bool:
    """Whether a path can be given to TensorFlow and written into a report."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def list_images(folder: str) -> list[str]:
    """Finds the images in a folder and everything below it.

    Links are followed, each real folder once, so that a loop ends. Hidden files and folders are passed over, and
    files with other endings, or names that are not UTF-8, with a warning that counts them.

    Args:
      folder: an existing folder.

    Returns:
      Paths, each beginning with `folder`, sorted.
    """
    images = []
    others: collections.Counter[str] = collections.Counter()
    visited = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        # In place: os.walk descends into what is left, in this order.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path, ending = os.path.join(parent, name), os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if not _is_utf8(path):
                others["a name that is not UTF-8"] += 1
            elif ending in EXTENSIONS:
                images.append(path)
            else:
                others[ending or "no ending"] += 1
    if others:
        kinds = ", ".join(f"{ending} ({count})" for ending, count in others.most_common(_NAMED_AT_MOST))
        _logger.warning(
            "%d files in %s are ignored, as their names are not those of images: %s. Expected one of: %s.",
            others.total(),
            folder,
            kinds,
            " ".join(EXTENSIONS),
        )
    return sorted(images)


def files_shape(paths: Sequence[str], largest: int) -> ImageShape:
    """The most common size of some files (at most 500 of them, evenly spread) and their usual channels.

    Args:
      paths: image files, some of which may be unreadable.
      largest: upper bound of the side, in pixels.

    Returns:
      (side, side, channels); a guess where nothing can be read, which is reported when the files are loaded.
    """
    sample = [paths[position] for position in spread(len(paths), most=_MEASURED)]
    measured = common_shape(_paths_dataset(sample), largest, read=tf.io.read_file, skip_unreadable=True)
    return measured or (largest, largest, 3)


def _paths_dataset(paths: Sequence[str]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(tf.constant(list(paths), tf.string))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileLoader:
    """How files become examples.

    Attributes:
      root: the folder that names in reports and messages are relative to.
      shape: (H, W, C) of an example.
      any_channels: convert between grey and color without asking; else files of both kinds are an error.
      strict_data: an unreadable file is an error instead of being skipped.
      memory_limit: GiB of decoded images above which the files are only checked, and streamed by path.
    """

    root: str
    shape: ImageShape
    any_channels: bool
    strict_data: bool
    memory_limit: float

    def load(self, paths: Sequence[str], labels: Sequence[int]) -> tuple[Examples, npt.NDArray[np.int64]]:
        """Decodes every file once.

        Args:
          paths: N files.
          labels: their labels, -1 where unknown.

        Returns:
          The readable examples, with their names, and the position of each in `paths`.

        Raises:
          UserError: a file is unreadable and `strict_data` is set, or grey and color files are mixed.
        """
        in_memory = len(paths) * int(np.prod(self.shape)) <= self.memory_limit * 2**30
        decoded = decode_many(
            _paths_dataset(paths),
            len(paths),
            self.shape,
            read=tf.io.read_file,
            skip_unreadable=True,
            keep_pixels=in_memory,
        )
        names = np.array([os.path.relpath(path, self.root) for path in paths], dtype=np.str_)
        kept = np.flatnonzero(decoded.channels)
        self._report_unreadable(names[decoded.channels == 0], len(names))
        if not self.any_channels:
            self._check_channels(names, decoded.channels)
        stored = np.array(paths, dtype=np.str_) if decoded.images is None else decoded.images
        if len(kept) < len(paths):
            stored = stored[kept]
        return Examples(stored, np.array(labels, np.int64)[kept], self.shape, names[kept]), kept

    def _report_unreadable(self, names: npt.NDArray[np.str_], total: int) -> None:
        if not len(names):
            return
        found = f"{len(names):,} of {total:,} images in {self.root} cannot be decoded: {listed(list(names))}."
        if self.strict_data:
            raise UserError(
                f"{found} Expected only whole images: replace or delete these, or skip them with --nostrict_data."
            )
        _logger.warning("%s They are skipped; --strict_data makes this an error.", found)

    def _check_channels(self, names: npt.NDArray[np.str_], channels: npt.NDArray[np.int64]) -> None:
        grey, color = names[channels == 1], names[channels == 3]
        if len(grey) and len(color):
            raise UserError(
                f"The images in {self.root} differ in their channels: {len(grey):,} are grey, such as {grey[0]}, and "
                f"{len(color):,} are in color, such as {color[0]}. Expected one kind: convert all of them with "
                "--channels=1 (to grey) or --channels=3 (to color)."
            )
