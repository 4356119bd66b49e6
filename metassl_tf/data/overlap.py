"""Finds examples of one list that also stand in another.

A pool that comes from elsewhere may hold the very images that are validated or tested on: `--unlabeled_dataset=
cifar10` beside `--dataset=cifar10`, or a folder into which all images were copied. Learning from them, even without
their labels, would flatter the result.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tqdm import tqdm

from metassl_tf.data.examples import Examples
from metassl_tf.data.protocols import Indices
from metassl_tf.data.views import reader

_logger = logging.getLogger(__name__)

_CHUNK_BYTES = 2**24
_LARGEST_CHUNK = 1024


def _chunks(examples: Examples, progress: tqdm) -> Iterator[tuple[Indices, npt.NDArray[np.generic]]]:
    """Places and inputs, as training reads them, a piece at a time; the progress counts what is streamed."""
    if not examples.streamed:
        yield np.arange(len(examples)), examples.inputs
        return
    read = reader(examples)
    # One by one, in parallel, so that an unreadable file takes no others with it.
    every = tf.data.Dataset.range(len(examples))
    decoded = every.map(lambda place: (place, read(place[tf.newaxis])[0]), num_parallel_calls=tf.data.AUTOTUNE)
    size = int(np.clip(_CHUNK_BYTES // int(np.prod(examples.shape)), 1, _LARGEST_CHUNK))
    missing = np.ones(len(examples), bool)
    for places, inputs in decoded.ignore_errors().batch(size).prefetch(1).as_numpy_iterator():
        yield places, inputs
        missing[places] = False
        progress.update(len(places))
    if missing.any():
        _logger.warning(
            "%d of %d files cannot be read any more, such as %s. Copies among them are not found.",
            np.count_nonzero(missing),
            len(examples),
            examples.inputs[np.argmax(missing)],
        )


def _digests(examples: Examples, progress: tqdm) -> Iterator[tuple[int, bytes]]:
    """Place and digest of every example that can be read."""
    for places, inputs in _chunks(examples, progress):
        for place, row in zip(places.tolist(), inputs, strict=True):
            yield place, hashlib.blake2b(row.tobytes(), digest_size=16).digest()


def occurs_in(pool: Examples, others: Sequence[Examples]) -> npt.NDArray[np.bool_]:
    """Tells which examples of a pool are exact copies of examples elsewhere.

    What is compared is what a network would see, decoded and resized, so that it does not matter which lists are in
    memory and which are streamed, nor how a file is encoded. Streamed lists are read once, and of the pool nothing but
    the answer is kept. Files that cannot be read any more are not compared; a warning counts them.

    Args:
      pool: N examples.
      others: the lists to look in.

    Returns:
      bool [N]: the decoded inputs are equal.
    """
    found = np.zeros(len(pool), bool)
    others = [part for part in others if len(part)]
    if not others or not len(pool):
        return found
    num_files = sum(len(part) for part in (*others, pool) if part.streamed)
    disable = None if num_files else True
    with tqdm(total=num_files, desc="looking for copies", unit=" images", disable=disable) as progress:
        known = {digest for part in others for _, digest in _digests(part, progress)}
        for place, digest in _digests(pool, progress):
            found[place] = digest in known
    return found
