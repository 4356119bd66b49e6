"""Random numbers that belong to a split: the same under every version of NumPy, and others for every purpose."""

import hashlib

import numpy as np


def random_state(split_seed: int, purpose: str) -> np.random.RandomState:
    """Makes a generator for one purpose, independent of those of other purposes and of the split's own permutation.

    Args:
      split_seed: `--split_seed`.
      purpose: a name of its own for each user.

    Returns:
      A `RandomState`, whose streams NumPy keeps frozen.
    """
    digest = hashlib.sha256(f"{split_seed} {purpose}".encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, "<u4"))
