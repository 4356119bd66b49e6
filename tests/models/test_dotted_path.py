"""Models of the user's own, by `--model=package.module:function`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from metassl_tf.errors import UserError
from metassl_tf.models.build import build_model
from metassl_tf.models.dotted_path import is_dotted_path
from metassl_tf.models.mlp import MLP

MODULE = """
import functools

import keras


def good(input_shape, num_classes):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(num_classes)])


class Subclassed(keras.Model):
    def __init__(self, num_classes):
        super().__init__()
        self.gate = keras.layers.Dense(4, activation="sigmoid")
        self.logits = keras.layers.Dense(num_classes)
        self.flatten = keras.layers.Flatten()

    def call(self, inputs):
        return self.logits(self.gate(self.flatten(inputs)))


def subclassed(input_shape, num_classes):
    return Subclassed(num_classes)


partial = functools.partial(lambda layers, shape, classes: good(shape, classes), 2)


def fixed_input(input_shape, num_classes):
    return good((5, 5, 3), num_classes)


def too_few_classes(input_shape, num_classes):
    return good(input_shape, num_classes - 1)


def features(input_shape, num_classes):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Conv2D(num_classes, 3)])


def two_outputs(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    logits = keras.layers.Dense(num_classes)(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, [logits, logits])


def low_precision(input_shape, num_classes):
    flat = [keras.Input(input_shape), keras.layers.Flatten()]
    return keras.Sequential([*flat, keras.layers.Dense(num_classes, dtype="bfloat16")])


def softmax(input_shape, num_classes):
    flat = [keras.Input(input_shape), keras.layers.Flatten()]
    return keras.Sequential([*flat, keras.layers.Dense(num_classes, activation="softmax")])


def softmax_layer(input_shape, num_classes):
    return keras.Sequential([*good(input_shape, num_classes).layers, keras.layers.Softmax()])


def array(input_shape, num_classes):
    return [1.0]


def layer(input_shape, num_classes):
    return keras.layers.Dense(num_classes)


def one_argument(input_shape):
    raise AssertionError


def broken(input_shape, num_classes):
    return {}["missing"]


number = 5
"""


@pytest.fixture(autouse=True)
def user_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_models").mkdir()
    (tmp_path / "own_models" / "networks.py").write_text(MODULE)
    (tmp_path / "own_models" / "failing.py").write_text("import a_package_that_is_nowhere\n")
    (tmp_path / "own_models" / "unfinished.py").write_text("def model(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "own_models"]:
        del sys.modules[name]


@pytest.mark.parametrize("function", ["good", "subclassed", "partial"])
def test_a_function_of_the_users(function: str) -> None:
    model = build_model(f"own_models.networks:{function}", None, (4, 4, 1), 3)
    assert model(np.zeros((2, 4, 4, 1), "float32")).shape == (2, 3)
    assert model.built


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("own_models.networks:", r"is not a path to a function\. Expected package\.module:function"),
        (":good", "is not a path to a function"),
        ("own_models/networks.py:good", "is not a path to a function"),
        ("own_models.networks:good:twice", "is not a path to a function"),
        ("own_models.nowhere:good", r"own_models\.nowhere cannot be imported: ModuleNotFoundError.*current directory"),
        ("own_models.failing:good", "cannot be imported: ModuleNotFoundError: .*a_package_that_is_nowhere"),
        ("own_models.unfinished:model", "cannot be imported: SyntaxError"),
        ("own_models.networks:goood", r"has no 'goood'\..* Did you mean 'good'\?"),
        ("own_models.networks:number", r"is not callable\. Expected a function .* Received 5, a builtins\.int"),
        ("own_models.networks:one_argument", r"does not take two arguments\. .*\(input_shape, num_classes\)"),
        ("own_models.networks:array", r"did not return a model\. .* Received \[1\.0\], a builtins\.list"),
        ("own_models.networks:layer", r"did not return a model\. .* Received <Dense .*Dense"),
        ("own_models.networks:fixed_input", r"does not take the inputs\. .*\[batch, 4, 4, 1\].* It raised: "),
        ("own_models.networks:too_few_classes", r"one logit per class\. .*\[batch, 3\].*Received \[batch, 2\]"),
        ("own_models.networks:features", r"one logit per class\. .*\[batch, 3\].*Received \[batch, 2, 2, 3\]"),
        ("own_models.networks:two_outputs", r"does not return one tensor\. Expected .* Received \["),
        ("own_models.networks:low_precision", r"lower precision\. .* Received bfloat16\. .*dtype=\"float32\""),
        ("own_models.networks:softmax", r"returns probabilities\. .* output of a softmax: leave it out"),
        ("own_models.networks:softmax_layer", r"returns probabilities\. .* output of a softmax: leave it out"),
    ],
)
def test_mistakes_are_explained(path: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"(?s)^--model={path}.*{message}"):
        build_model(path, None, (4, 4, 1), 3)


def test_what_the_function_raises_is_passed_on() -> None:
    with pytest.raises(KeyError, match="missing"):
        build_model("own_models.networks:broken", None, (4, 4, 1), 3)


def test_a_function_has_no_settings() -> None:
    with pytest.raises(TypeError, match="has no settings"):
        build_model("own_models.networks:good", MLP(), (4, 4, 1), 3)


def test_names_of_the_table() -> None:
    assert is_dotted_path("package.module:function")
    assert not is_dotted_path("mlp")
    with pytest.raises(UserError, match=r"--model=wide_resnt is not known\. .* Did you mean 'wide_resnet'\?"):
        build_model("wide_resnt", None, (4, 4, 1), 3)
    with pytest.raises(TypeError, match="convnet takes ConvNet settings"):
        build_model("convnet", MLP(), (4, 4, 1), 3)
