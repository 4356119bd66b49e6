"""The gradient of every example's own loss, for any loss: the plain ways, one example at a time or all in parallel.

They are the two baselines of "Not All Unlabeled Data are Equal" (arXiv:2007.01293, section 4.3), and what the paper's
own way, `layerwise`, is compared with. Each holds [batch, parameters] floats in memory: 1.5 GB for 256 examples of
WRN-28-2. Where only inner products of the gradients with one vector are needed, `products.jacobian_vector_product` has
them without the gradients.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf


def vectorized(loss_of_one: Callable[[Any], tf.Tensor], variables: Sequence[Any], examples: Any) -> list[tf.Tensor]:
    """Gradients of single examples, all at once by `tf.vectorized_map`: the reference for any loss.

    The forward pass is repeated for every example too, so that activations of as many networks as there are examples
    are in memory at a time. Gradients of convolution filters, which cannot be vectorised, run as a loop.

    Args:
      loss_of_one: maps one example, without the batch axis, to a scalar.
      variables: what to differentiate by: variables of Keras or TensorFlow, or tensors that the loss is computed from.
      examples: a tensor or a nest of tensors, each [batch, ...].

    Returns:
      [batch, *variable.shape] for every variable, in its dtype; zero where the loss does not depend on it.
    """
    with _without_loop_warning():
        return list(tf.vectorized_map(_gradient_of_one(loss_of_one, variables), examples))


def serial(loss_of_one: Callable[[Any], tf.Tensor], variables: Sequence[Any], examples: Any) -> list[tf.Tensor]:
    """Gradients of single examples, one after the other: the simplest way, and the slowest.

    Args:
      loss_of_one: maps one example, without the batch axis, to a scalar.
      variables: what to differentiate by: variables of Keras or TensorFlow, or tensors that the loss is computed from.
      examples: a tensor or a nest of tensors, each [batch, ...].

    Returns:
      [batch, *variable.shape] for every variable, in its dtype; zero where the loss does not depend on it.
    """
    signature = [tf.TensorSpec(variable.shape, variable.dtype) for variable in variables]
    gradient = _gradient_of_one(loss_of_one, variables)
    # TensorFlow 2.20 crashes now and then where convolutions of several iterations run at the same time.
    return list(tf.map_fn(gradient, examples, fn_output_signature=signature, parallel_iterations=1))


def _gradient_of_one(
    loss_of_one: Callable[[Any], tf.Tensor], variables: Sequence[Any]
) -> Callable[[Any], list[tf.Tensor]]:
    sources = [variable.value if isinstance(variable, keras.Variable) else variable for variable in variables]

    def gradient(example: Any) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(sources)
            loss = loss_of_one(example)
        parts = tape.gradient(loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(part) for part in parts]  # that of an embedding comes as slices

    return gradient


@contextlib.contextmanager
def _without_loop_warning() -> Iterator[None]:
    """Keeps TensorFlow from asking its own authors to vectorise the filter gradient of convolutions, once per layer."""

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Conv2DBackpropFilter uses a while_loop")

    logger = tf.get_logger()
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)
