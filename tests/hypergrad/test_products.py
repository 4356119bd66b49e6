"""Forward mode, and what it asks of the layers."""

import pytest
import tensorflow as tf

from metassl_tf.hypergrad.products import Vector, forward_mode_product, jacobian_vector_product, saving_memory

AT = [tf.constant([0.5, -1.0, 2.0], tf.float64)]
ALONG = [tf.constant([1.0, 0.25, -0.5], tf.float64)]


def values(at: Vector) -> tf.Tensor:
    return tf.sin(tf.exp(at[0]))


def test_derivative_is_that_of_backward_mode() -> None:
    forward, backward = (product(values, AT, ALONG) for product in (forward_mode_product, jacobian_vector_product))
    tf.debugging.assert_near(forward, backward, rtol=1e-12)


@pytest.mark.parametrize("save_memory", [True, False])
def test_layers_are_told_to_save_memory_where_it_is_asked_for(save_memory: bool) -> None:
    told = []

    def broken(at: Vector) -> tf.Tensor:
        told.append(saving_memory())
        raise RuntimeError(f"{len(at)} parameters, not differentiable")

    with pytest.raises(RuntimeError, match="not differentiable"):
        forward_mode_product(broken, AT, ALONG, save_memory=save_memory)
    assert told == [save_memory]
    assert not saving_memory()  # also where it ended in an error
