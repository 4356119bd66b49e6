"""Flags from dataclass fields and back; with the help and the programs, all of the library that knows absl.

A field of a run's own settings becomes a flag with the field's default. The fields of everything that can be chosen
by name (`--algorithm`, `--model`, ...) become flags as well; a flag that several share, such as `--threshold`,
defaults to the chosen one's own value, and one that the chosen ones do not have is an error: no setting is ever
silently ignored. What a second network can have of its own becomes a second flag, `--teacher_...`.
"""

import dataclasses
import logging
import sys
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from metassl_tf import config as config_lib
from metassl_tf import flag_help
from metassl_tf.choices import CHOICES, NETWORK_CHOICES, Choice, chosen, teacher, value_of
from metassl_tf.config import NETWORK_SETTINGS, TEACHER_PREFIX
from metassl_tf.errors import UserError
from metassl_tf.flagfile import flag_text, unused
from metassl_tf.meta import USUAL_ALGORITHMS
from metassl_tf.settings import check_settings

FLAGS = flags.FLAGS


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
    tables = [choice.table for choice in CHOICES if choice.flag == field.name]
    choices = tables[0] if tables else field.metadata["choices"]
    return field.metadata["help"] + (f" One of: {', '.join(choices)}." if choices else "")


def _define_section(section: type, values: flags.FlagValues) -> None:
    kinds = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        _define(field.name, kinds[field.name], field.default, _help(field), values)


def _owners(choice: Choice) -> dict[str, list[tuple[str, dataclasses.Field[Any], Any]]]:
    """Field name -> name, field and type of it in each entry of the table that has it."""
    owners: dict[str, list[tuple[str, dataclasses.Field[Any], Any]]] = {}
    for name, entry in choice.table.items():
        kinds = typing.get_type_hints(entry)
        for field in dataclasses.fields(entry):
            owners.setdefault(field.name, []).append((name, field, kinds[field.name]))
    return owners


def _define_choice(choice: Choice, values: flags.FlagValues) -> None:
    """One flag for each field name of the table's entries; None stands for the entry's own default."""
    for flag, found in _owners(choice).items():
        owners: dict[str, list[str]] = {}  # of one name can be settings that mean different things
        for name, field, _ in found:
            owners.setdefault(_help(field), []).append(f"{name} {flag_text(field.default)}".strip())
        text = " ".join(f"{text} Used by --{choice.flag}: {', '.join(names)}." for text, names in owners.items())
        _define(flag, found[0][2], None, text, values)


def _define_teacher(values: flags.FlagValues) -> None:
    """A second flag for all that a second network can have of its own; None stands for the first one's value."""
    kinds = typing.get_type_hints(config_lib.TrainSettings)
    for field in dataclasses.fields(config_lib.TrainSettings):
        if field.name in NETWORK_SETTINGS:
            text = f"As --{field.name}, for the teacher. Default: the same."
            _define(TEACHER_PREFIX + field.name, kinds[field.name], None, text, values)
    for choice in NETWORK_CHOICES:
        for flag, found in _owners(choice).items():
            text = f"As --{flag}, for the teacher. Default: the same, if --{choice.flag} is the same for both."
            _define(TEACHER_PREFIX + flag, found[0][2], None, text, values)


def define(values: flags.FlagValues) -> None:
    """Defines every flag of a run. Importing this module does so for absl's global `FLAGS`."""
    for section in config_lib.SECTIONS.values():
        _define_section(section, values)
    for choice in CHOICES:
        _define_choice(choice, values)
    _define_teacher(values)


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


def _text(error: flags.Error) -> str:
    return str(error).removeprefix("ERROR:: ")  # as absl says of flagfiles


def _parse_command_line(arguments: list[str]) -> list[str]:
    if flag_help.asked_for(arguments[1:]):
        print(flag_help.text(sys.modules["__main__"].__doc__ or "", FLAGS))
        sys.exit()
    try:
        return FLAGS(arguments)
    except flags.Error as error:
        sys.exit(f"error: {_text(error)}")


def run_binary(main: Callable[[], None]) -> None:
    """Runs a program: parses the command line, and turns what a user can mend into one line and status 1.

    Args:
      main: called when the flags are parsed.
    """

    def guarded(arguments: list[str]) -> None:
        if not FLAGS["verbosity"].present:  # absl has changed its value to 0 by now
            absl_logging.set_verbosity(absl_logging.WARNING)  # TensorFlow's own notes are no news to a user
            # A user asks what is wrong, not at what time and in which line of which thread.
            absl_logging.get_absl_handler().setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        try:
            if arguments[1:]:
                raise UserError(f"Unexpected argument {arguments[1]!r}. Expected flags only, written as --name=value.")
            check_flagfile_first(sys.argv[1:])
            main()
        except UserError as error:
            sys.exit(f"error: {error}")
        except PermissionError as error:
            path = error.filename or "A file"
            sys.exit(f"error: {path}: {error.strerror}. Expected files that you may use: grant it, or name others.")
        except KeyboardInterrupt:
            sys.exit("\nStopped. Give the same command again to resume.")

    app.run(guarded, flags_parser=_parse_command_line)


def read(values: flags.FlagValues = FLAGS) -> config_lib.Config:
    """Builds the run's config from parsed flags.

    Args:
      values: the flags; absl's global ones by default.

    Returns:
      The config, every value checked against its choices and range.

    Raises:
      UserError: an unknown name or a value out of range, or a flag that the chosen parts do not use.
    """
    by_name = {name: values[name].value for name in values}
    if not values["algorithm"].present:
        usual = (USUAL_ALGORITHMS[rule] for rule in by_name["meta"] if rule in USUAL_ALGORITHMS)
        by_name["algorithm"] = next(usual, by_name["algorithm"])
    parts: dict[str, Any] = {}
    for name, section in config_lib.SECTIONS.items():
        kinds = typing.get_type_hints(section)
        fields = dataclasses.fields(section)
        parts[name] = section(**{field.name: value_of(field.name, kinds[field.name], by_name) for field in fields})
        check_settings(parts[name])
    for choice in CHOICES:
        found = chosen(choice, by_name)
        parts[choice.part] = found if choice.several else next(iter(found), None)
    config = config_lib.Config(**parts, teacher=teacher(parts["train"], by_name))
    for name, why in unused(config).items():
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
        raise UserError(f"{_text(error)}.") from error
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


define(FLAGS)
