"""Batched augmentation against the one of tf-models-official, which takes one image at a time."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from metassl_tf.augment.policies import POLICIES
from metassl_tf.augment.rand_augment import rand_augment
from tools.benchmarks.compare import Side, rate_ratios

# The unlabeled batch of the CIFAR-10 flagfiles.
_BATCH_SHAPE = (448, 32, 32, 3)
_PARALLEL_CALLS = 2
_OUR_BATCHES, _THEIR_BATCHES = 24, 3
# A pipeline holds about as many batches ready as it has parallel calls, made while the other side was timed.
_PREFETCHED_BATCHES = 3


def rand_augment_vs_official(runs: int) -> Iterator[float]:
    """Images per second of FixMatch's RandAugment: two operations per image, each applied with probability 1/2."""
    from official.vision.ops import augment  # imports for seconds

    images = np.random.default_rng(0).integers(256, size=_BATCH_SHAPE, dtype=np.uint8)
    official = augment.RandAugment(num_layers=2, prob_to_apply=0.5)
    batch = tf.constant(images)

    def augment_batch(step: tf.Tensor) -> tf.Tensor:
        return rand_augment(batch, tf.stack([tf.constant(0, tf.int64), step]), policy=POLICIES["fixmatch"])

    ours = tf.data.Dataset.range(tf.int64.max).map(augment_batch, num_parallel_calls=_PARALLEL_CALLS)
    theirs = tf.data.Dataset.from_tensor_slices(images).repeat()
    theirs = theirs.map(official.distort, num_parallel_calls=_PARALLEL_CALLS).batch(_BATCH_SHAPE[0])
    return rate_ratios(_images(ours, _OUR_BATCHES), _images(theirs, _THEIR_BATCHES), runs)


def _images(dataset: tf.data.Dataset, batches: int) -> Side:
    """The work of drawing so many batches, counted in images."""
    iterator = iter(dataset)

    def draw(count: int) -> float:
        return float(sum(next(iterator).shape[0] for _ in range(count)))

    def prepare() -> None:
        draw(_PREFETCHED_BATCHES)

    return Side(work=lambda: draw(batches), prepare=prepare)
