"""Dropout that a pass can do without, while batch normalisation stays in training mode.

Keras has one switch for both. Where losses of the same examples are to be compared, they have to be taken under the
statistics of training and without its noise.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf

from metassl_tf.learner.variables import all_layers

_LAYERS = (
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianNoise,
)
# Not an attribute of the layers: replicas are traced in turns, each in a thread with a context of its own.
_OMITTED: ContextVar[bool] = ContextVar("omitted", default=False)


def make_omittable(model: keras.Model) -> None:
    """Lets `omitted` switch off the noise of a model's layers, those of Keras; a user's own kinds stay as they are.

    Args:
      model: any Keras model; its layers are changed in place. A saved or cloned one has Keras' layers again.
    """
    for layer in all_layers(model):
        if isinstance(layer, _LAYERS):
            _switch(layer)


@contextlib.contextmanager
def omitted() -> Iterator[None]:
    """In its body, layers that `make_omittable` has changed pass on what they are given."""
    token = _OMITTED.set(True)
    try:
        yield
    finally:
        _OMITTED.reset(token)


def _switch(layer: Any) -> None:
    noisy = layer.call

    def call(inputs: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        return noisy(inputs, training=bool(training) and not _OMITTED.get())

    layer.call = call
