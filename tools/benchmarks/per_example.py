"""Per-example gradients layer by layer against the two baselines of the paper (arXiv:2007.01293, section 4.3)."""

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from metassl_tf.hypergrad.layerwise import layerwise
from metassl_tf.hypergrad.per_example import serial, vectorized
from metassl_tf.losses import cross_entropy
from metassl_tf.models.wide_resnet import WideResNet
from tools.benchmarks.compare import Side, rate_ratios

# The paper's batch has 64 labeled, 256 unlabeled and 320 validation examples; the unlabeled ones have weights to learn.
_UNLABELED = 256
_CLASSES = 10

Gradients = Callable[[], list[tf.Tensor]]


def layerwise_vs_serial(runs: int) -> Iterator[float]:
    """Examples per second, over those of one gradient call per example.

    Both compute the gradients of 256 examples by all parameters of WRN-28-2, in inference mode; about 6 GB of memory.
    """
    ours, theirs = contestants(serial)
    return rate_ratios(_examples(ours), _examples(theirs), runs)


def layerwise_vs_vectorized(runs: int) -> Iterator[float]:
    """Examples per second, over those of `tf.vectorized_map`; see `layerwise_vs_serial`."""
    ours, theirs = contestants(vectorized)
    return rate_ratios(_examples(ours), _examples(theirs), runs)


def contestants(
    baseline: Callable[..., list[tf.Tensor]],
    *,
    settings: WideResNet | None = None,
    shape: tuple[int, int, int, int] = (_UNLABELED, 32, 32, 3),
) -> tuple[Gradients, Gradients]:
    """Makes both sides, on random images and pseudo labels.

    Args:
      baseline: `serial` or `vectorized`.
      settings: of the network; by default WRN-28-2.
      shape: of the images.

    Returns:
      Two functions that take the same gradients: layer by layer, and by the baseline.
    """
    model = (settings or WideResNet()).build(shape[1:], _CLASSES)
    images = tf.random.stateless_normal(shape, [0, 0], alg="philox")
    pseudo_label = tf.one_hot(tf.range(shape[0]) % _CLASSES, _CLASSES)

    def loss_of_one(example: tuple[Any, Any]) -> tf.Tensor:
        image, target = example
        return cross_entropy(target, model(image[tf.newaxis], training=False)[0])

    @tf.function
    def ours() -> list[tf.Tensor]:
        return layerwise(model, lambda logits: cross_entropy(pseudo_label, logits), images, training=False)

    @tf.function
    def theirs() -> list[tf.Tensor]:
        return baseline(loss_of_one, model.trainable_variables, (images, pseudo_label))

    return ours, theirs


def _examples(gradients: Gradients) -> Side:
    return Side(work=lambda: float(gradients()[0].shape[0]))
