"""Settings: dataclass fields that carry their help text and their range.

One definition per setting: the field gives the flag its name, type, default and help, and the bounds that are
checked before the first step. Nothing here knows absl.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from metassl_tf.errors import UserError, near_match


def setting(
    default: Any,
    text: str,
    *,
    choices: Iterable[str] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Declares one setting of a frozen dataclass.

    Args:
      default: the default value; its type is the field's annotation.
      text: one line that says what the setting does, with its unit.
      choices: the allowed strings, where only some are.
      minimum: smallest allowed value, inclusive.
      maximum: largest allowed value, inclusive.
      above: exclusive lower bound.
      below: exclusive upper bound.

    Returns:
      A `dataclasses.field`; typed `Any` so that it can stand for every annotation.
    """
    metadata = {
        "help": text,
        "choices": None if choices is None else tuple(choices),
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "below": below,
    }
    return dataclasses.field(default=default, metadata=metadata)


def _expected_range(metadata: Any) -> str:
    parts = [
        f"{words} {metadata[key]:.10g}"
        for key, words in (
            ("minimum", "at least"),
            ("above", "more than"),
            ("maximum", "at most"),
            ("below", "less than"),
        )
        if metadata[key] is not None
    ]
    return " and ".join(parts)


def _in_range(value: float, metadata: Any) -> bool:
    return (
        (isinstance(value, int) or math.isfinite(value))
        and (metadata["minimum"] is None or value >= metadata["minimum"])
        and (metadata["above"] is None or value > metadata["above"])
        and (metadata["maximum"] is None or value <= metadata["maximum"])
        and (metadata["below"] is None or value < metadata["below"])
    )


def check_settings(settings: Any, *, prefix: str = "") -> None:
    """Checks every field of a settings dataclass against its declared choices and range.

    Args:
      settings: an instance of a dataclass whose fields were declared with `setting`.
      prefix: what the names of its flags begin with, for the message.

    Raises:
      UserError: a value is not among its choices, out of its range, or not finite.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        choices = field.metadata.get("choices")
        if choices is not None and value not in choices:
            raise UserError(
                f"--{prefix}{field.name}={value} is not known. Expected one of: {', '.join(choices)}."
                f"{near_match(str(value), list(choices))}"
            )
        if choices is not None or not field.metadata:
            continue
        numbers: Sequence[Any] = value if isinstance(value, (tuple, list)) else [value]
        for number in numbers:
            is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
            if is_number and not _in_range(number, field.metadata):
                expected = _expected_range(field.metadata) or "a finite number"
                raise UserError(
                    f"--{prefix}{field.name}={number} is out of range. Expected {expected}: {field.metadata['help']}"
                )
