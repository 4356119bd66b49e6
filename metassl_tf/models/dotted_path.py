"""A model of the user's own: `--model=package.module:function`.

The function is called with (input_shape, num_classes) and returns a keras.Model that maps normalised float32 inputs
[batch, *input_shape] to float32 logits [batch, num_classes]. It has no settings: what varies goes into the function.
"""

import importlib
import inspect
from typing import Any

import keras

from metassl_tf.errors import UserError, near_match

EXPECTED = "Expected a function that takes (input_shape, num_classes) and returns a keras.Model"


def is_dotted_path(name: str) -> bool:
    """Says whether a value of `--model` means a function, `package.module:function`, and not a name of the table."""
    return ":" in name


def model_from_path(name: str, input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Calls the function that a dotted path names.

    What the function itself raises is passed on: its traceback shows the line to mend.

    Args:
      name: `package.module:function`.
      input_shape: shape of one example, without the batch.
      num_classes: number of logits.

    Returns:
      The model that the function returns; what the model does is not checked here.

    Raises:
      UserError: the path is malformed, the module cannot be imported or has no such function, the function cannot be
        called with two arguments, or returns something else than a keras.Model.
    """
    function = _imported(name)
    if not callable(function):
        raise UserError(f"--model={name} is not callable. {EXPECTED}. Received {_described(function)}.")
    if not _takes_two_arguments(function):
        raise UserError(f"--model={name} does not take two arguments. {EXPECTED}. Received {_described(function)}.")
    model = function(input_shape, num_classes)
    if not isinstance(model, keras.Model):
        raise UserError(
            f"--model={name} did not return a model. {EXPECTED}, made with Keras 3 (`import keras`). "
            f"Received {_described(model)}."
        )
    return model


def _imported(name: str) -> Any:
    module_name, _, function_name = name.partition(":")
    if not function_name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"--model={name} is not a path to a function. Expected package.module:function.")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything while it is imported
        raise UserError(
            f"--model={name}: the module {module_name} cannot be imported: {type(error).__name__}: {error}. Expected a "
            "module in the current directory, on PYTHONPATH or installed."
        ) from error
    if not hasattr(module, function_name):
        raise UserError(
            f"--model={name}: the module {module_name} has no {function_name!r}. {EXPECTED}."
            f"{near_match(function_name, dir(module))}"
        )
    return getattr(module, function_name)


def _takes_two_arguments(function: Any) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some callables written in C have no signature: the call itself will tell
        return True
    try:
        signature.bind(None, None)
    except TypeError:
        return False
    return True


def _described(value: Any) -> str:
    kind = type(value)
    return f"{value!r}, a {kind.__module__}.{kind.__qualname__}"
