"""Each branch runs once, on exactly its images, whatever the choices."""

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.augment.dispatch import dispatch


@pytest.mark.parametrize("choices", [[0, 1, 2, 1, 0, 2], [1] * 6, [2, 2, 2, 0, 0, 0]])
def test_images_keep_their_order_and_parameters(choices: list[int]) -> None:
    images = np.random.default_rng(0).integers(0, 100, (6, 4, 5, 1)).astype(np.uint8)
    added = tf.constant([1, 2, 3, 4, 5, 6], tf.uint8)
    calls: list[int] = []

    def unchanged(chosen: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return chosen

    def add(chosen: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        calls.append(len(chosen))
        return chosen + tf.gather(added, at)[:, tf.newaxis, tf.newaxis, tf.newaxis]

    def double(chosen: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return chosen * tf.constant(2, tf.uint8)

    result = dispatch(tf.constant(images), tf.constant(choices), [unchanged, add, double])
    values = [(image, image + index + 1, image * 2) for index, image in enumerate(images)]
    np.testing.assert_array_equal(result, [value[choice] for value, choice in zip(values, choices, strict=True)])
    assert calls == [choices.count(1)]
