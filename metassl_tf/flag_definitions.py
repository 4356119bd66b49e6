"""Flags from dataclass fields and back. The only module of the library that knows absl.

A field of a run's own settings becomes a flag with the field's default. The fields of everything that can be chosen
by name (`--algorithm`, `--model`, ...) become flags as well; a flag that several share, such as `--threshold`,
defaults to the chosen one's own value, and one that the chosen ones do not have is an error: no setting is ever
silently ignored.
"""

import dataclasses
import sys
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from metassl_tf import config as config_lib
from metassl_tf.algorithms import ALGORITHMS
from metassl_tf.data.sources import SOURCES, parse_dataset
from metassl_tf.errors import UserError, near_match
from metassl_tf.learner.schedules import SCHEDULES
from metassl_tf.learner.update_rules import OPTIMIZERS
from metassl_tf.meta import META_RULES
from metassl_tf.models import MODELS
from metassl_tf.models.dotted_path import is_dotted_path
from metassl_tf.settings import check_settings

FLAGS = flags.FLAGS


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


_DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def _define(name: str, kind: Any, default: Any, help_text: str, values: flags.FlagValues) -> None:
    kind = str if typing.get_origin(kind) is typing.Literal else kind
    _DEFINE.get(kind, flags.DEFINE_list)(name, default, help_text, flag_values=values)


def _help(field: dataclasses.Field[Any]) -> str:
    choices = field.metadata["choices"]
    return field.metadata["help"] + (f" One of: {', '.join(choices)}." if choices else "")


def _define_section(section: type, values: flags.FlagValues) -> None:
    kinds = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        text = _help(field)
        tables = [choice.table for choice in CHOICES if choice.flag == field.name]
        if tables and field.name != "dataset":
            text += f" One of: {', '.join(tables[0])}."
        _define(field.name, kinds[field.name], field.default, text, values)


def _define_choice(choice: Choice, values: flags.FlagValues) -> None:
    """One flag for each field name of the table's entries; None stands for the entry's own default."""
    owners: dict[str, list[tuple[str, dataclasses.Field[Any], Any]]] = {}
    for name, entry in choice.table.items():
        kinds = typing.get_type_hints(entry)
        for field in dataclasses.fields(entry):
            owners.setdefault(field.name, []).append((name, field, kinds[field.name]))
    for flag, found in owners.items():
        defaults = ", ".join(f"{name} {config_lib.flag_text(field.default)}" for name, field, _ in found)
        text = f"{_help(found[0][1])} Used by --{choice.flag}: {defaults}."
        _define(flag, found[0][2], None, text, values)


def define(values: flags.FlagValues) -> None:
    """Defines every flag of a run. Importing this module does so for absl's global `FLAGS`."""
    for section in config_lib.SECTIONS.values():
        _define_section(section, values)
    for choice in CHOICES:
        _define_choice(choice, values)


def _value(name: str, kind: Any, values: flags.FlagValues) -> Any:
    """The flag's value in its field's type: absl gives lists of strings where the field is a tuple of numbers."""
    value = values[name].value
    if typing.get_origin(kind) is not tuple:
        return value
    item = typing.get_args(kind)[0]
    try:
        return tuple(item(part) for part in value)
    except ValueError:
        raise UserError(
            f"--{name}={config_lib.flag_text(value)} is not a list of {item.__name__} values. "
            f"Expected for example --{name}=100,100."
        ) from None


def check_flagfile_first(arguments: Sequence[str]) -> None:
    """Refuses a `--flagfile` behind other flags: absl would silently let the file win over them.

    Args:
      arguments: the command line without the program.

    Raises:
      UserError: a flag stands before a `--flagfile`.
    """
    earlier = ""
    for argument in arguments:
        if argument.lstrip("-").split("=")[0] != "flagfile":
            earlier = earlier or (argument if argument.startswith("-") else "")
        elif earlier:
            raise UserError(
                f"{argument} stands behind {earlier}, whose value the file could silently replace. "
                f"Put --flagfile first: the flags behind it win over the file."
            )


def run_binary(main: Callable[[], None]) -> None:
    """Runs a program: parses the command line, and turns what a user can mend into one line and status 1.

    Args:
      main: called when the flags are parsed.
    """

    def guarded(arguments: list[str]) -> None:
        if not FLAGS["verbosity"].present:  # absl has changed its value to 0 by now
            absl_logging.set_verbosity(absl_logging.WARNING)  # TensorFlow's own notes are no news to a user
        try:
            if arguments[1:]:
                raise UserError(f"Unexpected argument {arguments[1]!r}. Expected flags only, written as --name=value.")
            check_flagfile_first(sys.argv[1:])
            main()
        except UserError as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit("\nStopped. Give the same command again to resume from the last checkpoint.")

    app.run(guarded)


def read(values: flags.FlagValues = FLAGS) -> config_lib.Config:
    """Builds the run's config from parsed flags.

    Args:
      values: the flags; absl's global ones by default.

    Returns:
      The config, every value checked against its choices and range.

    Raises:
      UserError: an unknown name or a value out of range, or a flag that the chosen parts do not use.
    """
    parts: dict[str, Any] = {}
    for name, section in config_lib.SECTIONS.items():
        kinds = typing.get_type_hints(section)
        fields = dataclasses.fields(section)
        parts[name] = section(**{field.name: _value(field.name, kinds[field.name], values) for field in fields})
        check_settings(parts[name])
    for choice in CHOICES:
        chosen = _chosen(choice, values)
        for entry in chosen:
            check_settings(entry)
        parts[choice.part] = chosen if choice.several else next(iter(chosen), None)
    config = config_lib.Config(**parts)
    for name, why in config_lib.unused(config).items():
        if values[name].present:
            raise UserError(f"--{name} has no effect here: {why}. Expected it to be left out.")
    return config


def parse(arguments: Sequence[str]) -> config_lib.Config:
    """Builds a config from a command line, apart from the process's own flags.

    Args:
      arguments: such as `["--flagfile=runs/x/config.flags", "--data_dir=elsewhere"]`, without the program.

    Returns:
      The config.

    Raises:
      UserError: an unknown flag, or whatever `read` raises.
    """
    check_flagfile_first(arguments)
    values = flags.FlagValues()
    define(values)
    try:
        rest = values(["", *arguments])
    except flags.Error as error:
        raise UserError(f"{error}.") from error
    if rest[1:]:
        raise UserError(f"Unexpected argument {rest[1]!r}. Expected flags only, written as --name=value.")
    return read(values)


def given(allowed: Collection[str], *, why: str) -> list[str]:
    """Returns the settings of a run that this process's command line gives, as arguments for `parse`.

    Args:
      allowed: names of the settings that a program uses.
      why: what the others have no effect on, for the message.

    Returns:
      Such as `["--data_dir=elsewhere"]`.

    Raises:
      UserError: a setting that the program does not use was given.
    """
    values = flags.FlagValues()
    define(values)
    present = [name for name in values if FLAGS[name].present]
    for name in present:
        if name not in allowed:
            listed = ", ".join(f"--{flag}" for flag in sorted(allowed)) or "none"
            raise UserError(f"--{name} has no effect on {why}. Expected of a run's settings only: {listed}.")
    return [FLAGS[name].serialize() for name in present]


def _chosen(choice: Choice, values: flags.FlagValues) -> tuple[Any, ...]:
    """The settings of what a flag names, in its order; none for a function, or where nothing is named."""
    value = values[choice.flag].value
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
                f"--{choice.flag}={entry} is not known. Expected one of: {', '.join(known)}.{near_match(entry, known)}"
            )
    given = {flag for entry in choice.table.values() for flag in _field_names(entry) if values[flag].value is not None}
    used = {flag for entry in entries for flag in _field_names(choice.table[entry])}
    unused = sorted(given - used)
    if unused and not names:
        owners = [name for name, entry in choice.table.items() if unused[0] in _field_names(entry)]
        raise UserError(f"--{unused[0]} has no effect without --{choice.flag}={' or '.join(owners)}.")
    if unused:
        listed = ", ".join(f"--{flag}" for flag in sorted(used)) or "none of its own"
        text = config_lib.flag_text(value)
        raise UserError(f"--{unused[0]} is not a setting of --{choice.flag}={text}. It uses: {listed}.")
    return tuple(_settings(choice.table[entry], given, values) for entry in entries)


def _settings(entry: type, given: set[str], values: flags.FlagValues) -> Any:
    kinds = typing.get_type_hints(entry)
    own = given & _field_names(entry)
    return entry(**{flag: _value(flag, kinds[flag], values) for flag in own})


def _field_names(entry: type) -> set[str]:
    return {field.name for field in dataclasses.fields(entry)}


define(FLAGS)
