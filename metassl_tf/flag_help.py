"""What `--help` prints: a program's flags below what they are about, not in one list of the alphabet."""

import dataclasses
import sys

from absl import flags

from metassl_tf.choices import CHOICES
from metassl_tf.config import SECTIONS, TEACHER_PREFIX

# Asked for as absl does; its --helpfull shows the flags of other libraries as well.
_ASKING = {f"{dashes}{name}" for dashes in ("-", "--") for name in ("help", "helpshort", "h", "?")}
_TITLES = {"data": "Data", "augment": "Views", "train": "Training", "run": "Evaluation, seeds, files and hardware"}


def asked_for(arguments: list[str]) -> bool:
    """Whether a command line, without the program, asks for help."""
    return not _ASKING.isdisjoint(arguments)


def _groups(names: set[str]) -> dict[str, set[str]]:
    """Title -> flags; one that several choices share is among the first of them."""
    groups = {
        _TITLES[name]: {field.name for field in dataclasses.fields(section)} for name, section in SECTIONS.items()
    }
    for choice in CHOICES:
        groups[f"What some choices of --{choice.flag} have"] = {
            field.name for entry in choice.table.values() for field in dataclasses.fields(entry)
        }
    groups["What a teacher can have of its own"] = {name for name in names if name.startswith(TEACHER_PREFIX)}
    own = names.difference(*groups.values())
    return {"This program": own, **groups}


def text(program: str, values: flags.FlagValues) -> str:
    """Writes the help of a program.

    Args:
      program: its docstring.
      values: all flags; those are shown that the program defines or has declared its own.
    """
    left = {flag.name: flag for flag in values.get_key_flags_for_module(sys.argv[0])}
    parts = [program.strip()]
    for title, names in _groups(set(left)).items():
        shown = flags.FlagValues()
        for name in sorted(names & left.keys()):
            shown[name] = left.pop(name)
        if len(shown):
            parts.append(f"{title}:\n{shown.get_help(prefix='  ', include_special_flags=False)}")
    return "\n\n".join(parts)
