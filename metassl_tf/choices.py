"""What is chosen by name (`--algorithm`, `--model`, ...): from the values of flags to the settings of the chosen.

A second network, the teacher, is chosen by flags of its own, `--teacher_model` and so on; where one is not given, the
plain flag counts. Nothing here knows absl: values come by flag name, with None for a flag that was not given.
"""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from metassl_tf.algorithms import ALGORITHMS
from metassl_tf.config import NETWORK_SETTINGS, TEACHER_PREFIX, Network, TrainSettings
from metassl_tf.data.sources import SOURCES, parse_dataset
from metassl_tf.errors import UserError, near_match
from metassl_tf.flagfile import flag_text
from metassl_tf.learner.schedules import SCHEDULES
from metassl_tf.learner.update_rules import OPTIMIZERS
from metassl_tf.meta import META_RULES, TEACHING_RULES
from metassl_tf.meta.meta_pseudo_labels import TeachingSettings
from metassl_tf.models import MODELS
from metassl_tf.models.dotted_path import is_dotted_path
from metassl_tf.settings import check_settings

Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Choice:
    """Something chosen by name: the part of `Config` it becomes, the flag that names it, and the table.

    Where several may be chosen, the flag is a list of names and the part a tuple.
    """

    part: str
    flag: str
    table: Mapping[str, type]
    several: bool = False


CHOICES = (
    Choice("source", "dataset", SOURCES),
    Choice("algorithm", "algorithm", ALGORITHMS),
    Choice("meta", "meta", META_RULES, several=True),
    Choice("model", "model", MODELS),
    Choice("rule", "optimizer", OPTIMIZERS),
    Choice("schedule", "schedule", SCHEDULES),
)
# Those that a teacher makes for itself.
NETWORK_CHOICES = tuple(choice for choice in CHOICES if choice.flag in NETWORK_SETTINGS)


def value_of(name: str, kind: Any, values: Values) -> Any:
    """Returns a flag's value in its field's type: flags give lists of strings where the field is a tuple of numbers.

    Args:
      name: of the flag.
      kind: the field's type.
      values: of the flags.

    Raises:
      UserError: an item of a list is not of the type.
    """
    value = values[name]
    if typing.get_origin(kind) is not tuple:
        return value
    item = typing.get_args(kind)[0]
    try:
        return tuple(item(part) for part in value)
    except ValueError:
        raise UserError(
            f"--{name}={flag_text(value)} is not a list of {item.__name__} values. "
            f"Expected for example --{name}=100,100."
        ) from None


def chosen(choice: Choice, values: Values, *, prefix: str = "") -> tuple[Any, ...]:
    """Makes the settings of what a flag names.

    Args:
      choice: what is chosen.
      values: of the flags.
      prefix: what the names of the flags begin with. Where the one that chooses is not given, the one without the
        prefix does; so do those of the settings, unless they belong to another choice.

    Returns:
      The checked settings in the flag's order; none for a function, or where nothing is named.

    Raises:
      UserError: an unknown name, a value out of its range, or a flag that the chosen do not use.
    """
    flag = choice.flag if values[prefix + choice.flag] is None else prefix + choice.flag
    value = values[flag]
    names = list(dict.fromkeys(value)) if choice.several else [value]
    if choice.part == "source":
        entries = [parse_dataset(value)[0]]
    elif choice.part == "model" and is_dotted_path(value):
        entries = []
    else:
        entries = names
    for entry in entries:
        if entry not in choice.table:
            known = list(choice.table)
            raise UserError(
                f"--{flag}={entry} is not known. Expected one of: {', '.join(known)}.{near_match(entry, known)}"
            )
    _check_used(choice, names, entries, flag, values, prefix)
    prefixes = (prefix, "") if value == values[choice.flag] else (prefix,)
    found = tuple(_settings(choice.table[entry], values, prefixes) for entry in entries)
    for settings in found:
        check_settings(settings, prefix=prefix)
    return found


def _check_used(
    choice: Choice, names: Sequence[str], entries: Sequence[str], flag: str, values: Values, prefix: str
) -> None:
    """Refuses a flag with the prefix that belongs to other entries of the table than the chosen ones."""
    own = {name for entry in choice.table.values() for name in _field_names(entry)}
    used = {name for entry in entries for name in _field_names(choice.table[entry])}
    unused = sorted(name for name in own - used if values[prefix + name] is not None)
    if unused and not names:
        owners = [name for name, entry in choice.table.items() if unused[0] in _field_names(entry)]
        raise UserError(f"--{unused[0]} has no effect without --{choice.flag}={' or '.join(owners)}.")
    if unused:
        listed = ", ".join(f"--{prefix}{name}" for name in sorted(used)) or "none of its own"
        text = flag_text(values[flag])
        raise UserError(f"--{prefix}{unused[0]} is not a setting of --{flag}={text}. It uses: {listed}.")


def _settings(entry: type, values: Values, prefixes: Sequence[str]) -> Any:
    """An entry of a table with the values given, those of the first prefix before those of the next."""
    kinds = typing.get_type_hints(entry)
    given = {}
    for field in _field_names(entry):
        flags = [prefix + field for prefix in prefixes if values[prefix + field] is not None]
        if flags:
            given[field] = value_of(flags[0], kinds[field], values)
    return entry(**given)


def _field_names(entry: type) -> set[str]:
    return {field.name for field in dataclasses.fields(entry)}


def teacher(train: TrainSettings, values: Values) -> Network | None:
    """Makes the settings of the second network.

    Args:
      train: the run's, whose values count where the teacher's are not given.
      values: of the flags.

    Returns:
      The network, or None where no chosen meta rule has one.

    Raises:
      UserError: a value out of its range, or a flag of the teacher that it does not use, or where there is none; or
        two rules with a teacher.
    """
    if sum(issubclass(META_RULES[name], TeachingSettings) for name in set(train.meta)) > 1:
        raise UserError(f"--meta={flag_text(train.meta)} names two teachers of one student. Expected one of them.")
    given = [name for name in sorted(values) if name.startswith(TEACHER_PREFIX) and values[name] is not None]
    if not set(train.meta) & set(TEACHING_RULES):
        if given:
            raise UserError(f"--{given[0]} has no effect without --meta={' or '.join(TEACHING_RULES)}.")
        return None
    own = {name: values[TEACHER_PREFIX + name] for name in NETWORK_SETTINGS if TEACHER_PREFIX + name in given}
    train = dataclasses.replace(train, **own)
    check_settings(train, prefix=TEACHER_PREFIX)
    parts: dict[str, Any] = {}
    for choice in NETWORK_CHOICES:
        parts[choice.part] = next(iter(chosen(choice, values, prefix=TEACHER_PREFIX)), None)
    return Network(prefix=TEACHER_PREFIX, train=train, **parts)
