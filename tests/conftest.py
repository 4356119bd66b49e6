"""What every test relies on: two logical CPU devices, float32, a fixed seed, no windows."""

import os

# Read when TensorFlow, Keras and matplotlib are first imported, here or in a process that a test starts.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["MPLBACKEND"] = "Agg"

from collections.abc import Iterator

import keras
import pytest
import tensorflow as tf


def pytest_configure() -> None:
    """Splits the CPU in two before TensorFlow looks at its devices, so that replicas can be tested anywhere."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # TensorFloat-32 has 10 bits of mantissa: equalities that hold on a CPU would fail on a GPU.
    tf.config.experimental.enable_tensor_float_32_execution(False)


@pytest.fixture(autouse=True)
def fresh_keras_state() -> Iterator[None]:
    """Makes a test independent of those before it: same seed, and the dtype policy that they found."""
    policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="session")
def mirrored() -> tf.distribute.Strategy:
    """Two replicas on the two logical CPUs. One for all tests: a second over the same devices would share its keys."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
