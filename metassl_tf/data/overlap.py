"""Finds examples of one list that also stand in another.

A pool that comes from elsewhere may hold the very images that are validated or tested on: `--unlabeled_dataset=
cifar10` beside `--dataset=cifar10`, or a folder into which all images were copied. Learning from them, even without
their labels, would flatter the result.
"""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from metassl_tf.data.examples import Examples


def _digest(contents: bytes) -> bytes:
    return hashlib.blake2b(contents, digest_size=16).digest()


def _file_digests(paths: Sequence[str], sizes: Sequence[int], shared_sizes: set[int]) -> list[bytes]:
    """Digest of every file whose size occurs on both sides; equal files have equal sizes."""
    digests = []
    for path, size in zip(paths, sizes, strict=True):
        if size not in shared_sizes:
            digests.append(b"")
            continue
        with open(path, "rb") as file:
            digests.append(_digest(file.read()))
    return digests


def _digests(pool: Examples, others: Examples) -> list[list[bytes]]:
    """Digests of both lists; b"" for a file whose size occurs in one of them only."""
    if not pool.streamed:
        return [[_digest(row.tobytes()) for row in part.inputs] for part in (pool, others)]
    paths = [part.inputs.tolist() for part in (pool, others)]
    sizes = [[os.path.getsize(path) for path in part] for part in paths]
    shared_sizes = set(sizes[0]) & set(sizes[1])
    return [_file_digests(part, size, shared_sizes) for part, size in zip(paths, sizes, strict=True)]


def occurs_in(pool: Examples, others: Sequence[Examples]) -> npt.NDArray[np.bool_]:
    """Tells which examples of a pool are exact copies of examples elsewhere.

    Args:
      pool: N examples.
      others: the lists to look in. A list in memory is not compared with a streamed pool, nor the other way round.

    Returns:
      bool [N]: the decoded inputs, or the contents of the files, are equal.
    """
    found = np.zeros(len(pool), bool)
    for part in others:
        if part.streamed == pool.streamed and len(part) and len(pool):
            own, theirs = _digests(pool, part)
            known = set(theirs) - {b""}
            found |= np.array([digest in known for digest in own])
    return found
