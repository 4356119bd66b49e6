"""Forward mode keeps step: no part of a network runs ahead of the derivative of the one before."""

import functools
from collections.abc import Callable

import pytest
import tensorflow as tf

from metassl_tf.hypergrad.products import Vector, forward_mode_product, in_pace, jacobian_vector_product

AT = [tf.constant([0.5, -1.0, 2.0], tf.float64)]
ALONG = [tf.constant([1.0, 0.25, -0.5], tf.float64)]


frugal_product = functools.partial(forward_mode_product, save_memory=True)


def two_layers(at: Vector) -> tf.Tensor:
    return tf.sin(in_pace(tf.exp(at[0])))


def ancestors(operation: tf.Operation) -> set[str]:
    """Names of all that an operation waits for."""
    before = [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return {one.name for one in before}.union(*(ancestors(one) for one in before))


def test_derivative_is_that_of_backward_mode() -> None:
    backward = jacobian_vector_product(two_layers, AT, ALONG)
    for product in (forward_mode_product, frugal_product):
        tf.debugging.assert_near(product(two_layers, AT, ALONG), backward, rtol=1e-12)


def test_second_layer_waits_for_the_derivative_of_the_first() -> None:
    point = tf.TensorSpec([3], tf.float64)

    def second_layer_waits_for(product: Callable[..., tf.Tensor]) -> set[str]:
        compiled = tf.function(lambda at, along: product(two_layers, [at], [along]))
        operations = compiled.get_concrete_function(point, point).graph.get_operations()
        return ancestors(next(operation for operation in operations if operation.type == "Sin"))

    assert "along" in second_layer_waits_for(frugal_product)
    assert "along" not in second_layer_waits_for(forward_mode_product)


def test_nothing_is_held_back_elsewhere() -> None:
    assert in_pace(AT[0]) is AT[0]
    with pytest.raises(RuntimeError, match="not differentiable"):
        frugal_product(broken, AT, ALONG)
    assert in_pace(AT[0]) is AT[0]  # also where a forward mode ended in an error

    def unrelated(at: Vector) -> tf.Tensor:
        assert in_pace(ALONG[0]) is ALONG[0]
        return at[0]

    tf.debugging.assert_equal(frugal_product(unrelated, AT, ALONG), ALONG[0])


def broken(at: Vector) -> tf.Tensor:
    raise RuntimeError(f"{len(at)} parameters, not differentiable")
