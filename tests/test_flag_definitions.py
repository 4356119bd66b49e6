"""Every setting is one flag, every flag reaches its setting, and a run's flagfile alone gives the run's config."""

import dataclasses
import errno
import logging
import os
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from absl import flags
from absl import logging as absl_logging

from metassl_tf import flag_definitions
from metassl_tf.choices import CHOICES, NETWORK_CHOICES, Choice
from metassl_tf.config import SECTIONS, Config
from metassl_tf.errors import UserError
from metassl_tf.flag_definitions import parse
from metassl_tf.flagfile import to_flagfile, unused
from tests.command_line import ending_of

# Values that an automatic choice cannot know.
ALTERNATIVES: dict[str, Any] = {
    "distribution": "tpu",
    "unlabeled_ramp": "linear",
    "algorithm": "uda",
    "unknown_classes": ("cat", "5"),
    "unlabeled_dataset": "tfds:svhn_cropped:extra",
}
# Flags of which every setting of a section needs one for an effect.
USERS = {"data": [["--algorithm=given_labels"], ["--algorithm=noisy_student"]]}
# Flags that an entry of a table needs.
COMPANIONS = {"reduced_meta_pseudo_labels": ["--algorithm=noisy_student"]}
NAMES = [choice.flag for choice in CHOICES]
ENTRIES = [(choice, name) for choice in CHOICES for name in choice.table]
OF_TEACHERS = [(choice, name) for choice in NETWORK_CHOICES for name in choice.table]
DATASETS = {"tfds": "tfds:mnist"}


def alternative(field: dataclasses.Field[Any], kind: Any) -> Any:
    """A value within a setting's range that is not its default."""
    if field.name in ALTERNATIVES:
        return ALTERNATIVES[field.name]
    bounds = field.metadata
    if bounds["choices"]:
        return next(value for value in bounds["choices"] if value != field.default)
    if kind is bool:
        return not field.default
    if kind is int:
        return field.default + 1 if field.default != bounds["maximum"] else field.default - 1
    if kind is float:
        limit = next((bounds[bound] for bound in ("maximum", "below") if bounds[bound] is not None), field.default + 1)
        return (field.default + limit) / 2 if limit != field.default else field.default / 2
    if kind is str:
        return 'some "text" with = and, signs'
    return (3, 5)


def written(name: str, value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"--{name}={text}"


def reparsed(config: Config, folder: Path) -> Config:
    """What a flagfile of the config alone gives."""
    path = folder / "config.flags"
    path.write_text(to_flagfile(config))
    return parse([f"--flagfile={path}"])


def test_defaults_are_those_of_the_fields(tmp_path: Path) -> None:
    config = parse([])
    for part, section in SECTIONS.items():
        assert getattr(config, part) == section()
    for choice in CHOICES:
        expected = () if choice.several else choice.table[config.values()[choice.flag]]()
        assert getattr(config, choice.part) == expected
    assert reparsed(config, tmp_path) == config


@pytest.mark.parametrize("part", SECTIONS)
def test_every_flag_reaches_its_setting(part: str, tmp_path: Path) -> None:
    kinds = typing.get_type_hints(SECTIONS[part])
    fields = [field for field in dataclasses.fields(SECTIONS[part]) if field.name not in NAMES]
    values = {field.name: alternative(field, kinds[field.name]) for field in fields}
    assert all(values[field.name] != field.default for field in fields)
    seen = set()
    for users in USERS.get(part, [[]]):
        changed = dataclasses.replace(parse(users), **{part: SECTIONS[part](**values)})
        own = {name: value for name, value in values.items() if name not in unused(changed)} if users else values
        config = parse([*users, *(written(name, value) for name, value in own.items())])
        for name, value in own.items():
            assert getattr(getattr(config, part), name) == value
            assert type(getattr(getattr(config, part), name)) is type(value)
        assert reparsed(config, tmp_path) == config
        seen |= own.keys()
    assert seen == values.keys()


def as_chosen(choice: Choice, config: Config) -> Any:
    part = getattr(config, choice.part)
    return part[0] if choice.several else part


@pytest.mark.parametrize(("choice", "name"), ENTRIES, ids=[f"{choice.flag}={name}" for choice, name in ENTRIES])
def test_every_flag_of_a_choice_reaches_its_setting(choice: Choice, name: str, tmp_path: Path) -> None:
    entry = choice.table[name]
    kinds = typing.get_type_hints(entry)
    chosen = [*COMPANIONS.get(name, []), f"--{choice.flag}={DATASETS.get(name, name)}"]
    assert as_chosen(choice, parse(chosen)) == entry()
    values = {field.name: alternative(field, kinds[field.name]) for field in dataclasses.fields(entry)}
    if choice.several:
        values = {name: value for name, value in values.items() if name not in entry(**values).unused()}
    config = parse([*chosen, *(written(name, value) for name, value in values.items())])
    assert as_chosen(choice, config) == entry(**values)
    assert reparsed(config, tmp_path) == config


@pytest.mark.parametrize(
    ("choice", "name"), OF_TEACHERS, ids=[f"teacher_{choice.flag}={name}" for choice, name in OF_TEACHERS]
)
def test_every_flag_of_a_teachers_choice_reaches_its_setting(choice: Choice, name: str, tmp_path: Path) -> None:
    entry = choice.table[name]
    kinds = typing.get_type_hints(entry)
    values = {field.name: alternative(field, kinds[field.name]) for field in dataclasses.fields(entry)}
    given = [f"--teacher_{choice.flag}={name}", *(written(f"teacher_{name}", value) for name, value in values.items())]
    config = parse(["--meta=meta_pseudo_labels", *given])
    assert getattr(config.teacher, choice.part) == entry(**values)
    assert getattr(config, choice.part) == getattr(parse([]), choice.part)
    assert reparsed(config, tmp_path) == config


def test_model_of_ones_own_has_no_settings(tmp_path: Path) -> None:
    config = parse(["--model=package.module:function"])
    assert config.model is None
    assert reparsed(config, tmp_path) == config
    with pytest.raises(UserError, match=r"--filters is not a setting of --model=package.module:function"):
        parse(["--model=package.module:function", "--filters=3"])


def test_empty_list_is_a_value(tmp_path: Path) -> None:
    config = parse(["--model=mlp", "--hidden_units="])
    assert config.model.hidden_units == ()
    assert reparsed(config, tmp_path) == config


def test_flag_that_several_share_defaults_to_the_chosen_ones_own_value() -> None:
    own = {name: parse([f"--algorithm={name}"]).algorithm.threshold for name in ("pseudo_label", "uda", "fixmatch")}
    assert len(set(own.values())) > 1
    assert parse(["--algorithm=uda", "--threshold=0.6"]).algorithm.threshold == 0.6


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "fixmatch"),
        (["--meta=per_example_weights"], "fixmatch"),
        (["--meta=meta_pseudo_labels"], "uda"),
        (["--meta=per_example_weights,meta_pseudo_labels"], "uda"),
        (["--meta=meta_pseudo_labels", "--algorithm=fixmatch"], "fixmatch"),
        (["--meta=reduced_meta_pseudo_labels"], "noisy_student"),
    ],
)
def test_algorithm_that_is_not_given_is_the_usual_one(arguments: list[str], expected: str, tmp_path: Path) -> None:
    config = parse(arguments)
    assert config.train.algorithm == expected
    assert reparsed(config, tmp_path) == config


def test_flags_with_one_name_have_one_type() -> None:
    for choice in CHOICES:
        kinds: dict[str, set[Any]] = {}
        for entry in choice.table.values():
            for name, kind in typing.get_type_hints(entry).items():
                if name in {field.name for field in dataclasses.fields(entry)}:
                    kinds.setdefault(name, set()).add(str if typing.get_origin(kind) is typing.Literal else kind)
        assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def test_help_names_choices_defaults_and_owners() -> None:
    values = flags.FlagValues()
    flag_definitions.define(values)
    for name in values:
        assert values[name].help.endswith("."), name
        assert len(values[name].help) > 10
    assert "One of: supervised, pseudo_label, uda, fixmatch, given_labels, noisy_student." in values["algorithm"].help
    assert "One of: digits, two_moons, circles, linear, tfds, image_folder, npz." in values["dataset"].help
    assert "One of: accuracy, balanced_accuracy, loss." in values["best_metric"].help
    assert values["threshold"].help == (
        "Probability above which a prediction becomes a pseudo label; 0 uses all. Used by --algorithm: pseudo_label "
        "0.95. Probability above which a target is used; 0 uses all. Used by --algorithm: uda 0.8. Probability from "
        "which on a prediction becomes a pseudo label. Used by --algorithm: fixmatch 0.95."
    )
    assert re.search(r"soft_jvp, none\. Used by --meta: meta_pseudo_labels \w+\. ", values["feedback"].help)
    assert values["feedback"].help.endswith("soft, none. Used by --meta: reduced_meta_pseudo_labels soft_jvp.")
    assert values["pretrained"].help.endswith("Used by --model: resnet50, efficientnet_b0.")
    assert values["steps"].default == 1000
    assert values["threshold"].default is None


@pytest.mark.parametrize(
    "given",
    [
        ["--algorithm=supervised"],
        ["--algorithm=pseudo_label"],
        ["--algorithm=fixmatch"],
        ["--algorithm=fixmatch", "--unlabeled_ramp=linear", "--unlabeled_ramp_steps=7"],
        ["--algorithm=fixmatch", "--pollute_unlabeled=0.3"],
        ["--algorithm=given_labels"],
    ],
)
def test_settings_without_an_effect_are_in_no_flagfile_and_refused(given: list[str]) -> None:
    config = parse(given)
    written_names = set(re.findall(r"^--(\w+)=", to_flagfile(config), flags=re.MULTILINE))
    assert written_names == set(config.values()) - set(unused(config))
    for name in unused(config):
        with pytest.raises(UserError, match=f"--{name} has no effect here: "):
            parse([*given, f"--{name}={config.values()[name]}"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--agorithm=uda"], r"Unknown command line flag 'agorithm'. Did you mean: algorithm"),
        (["--steps=many"], r"flag --steps=many"),
        (["train"], r"Unexpected argument 'train'"),
        (["--steps=3", "--flagfile=a"], r"--flagfile=a stands behind --steps=3"),
        (["--flagfile=a", "--steps", "3", "--flagfile", "b"], r"--flagfile stands behind --steps"),
    ],
)
def test_bad_arguments_raise(arguments: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        parse(arguments)


@pytest.mark.parametrize("arguments", [[], ["--flagfile=a", "--flagfile=b", "--steps=3"], ["-flagfile", "a", "--xla"]])
def test_flagfiles_may_come_first(arguments: list[str]) -> None:
    flag_definitions.check_flagfile_first(arguments)


def test_binary_turns_an_interruption_into_advice() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    message = ending_of(lambda: flag_definitions.run_binary(interrupted), ["program"])
    assert re.search(r"Stopped\. Give the same command again to resume", str(message))


@pytest.mark.parametrize(("filename", "named"), [("runs/teacher", "runs/teacher"), (None, "A file")])
def test_binary_says_which_file_is_forbidden(filename: str | None, named: str) -> None:
    def forbidden() -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), filename)

    message = ending_of(lambda: flag_definitions.run_binary(forbidden), ["program"])
    assert str(message).startswith(f"error: {named}: Permission denied. Expected files that you may use")


def test_binary_leaves_errors_of_the_program_alone() -> None:
    def broken() -> None:
        raise RuntimeError("a defect, not a mistake of the user")

    with pytest.raises(RuntimeError, match="a defect"):
        ending_of(lambda: flag_definitions.run_binary(broken), ["program"])


@pytest.mark.parametrize(("given", "verbosity"), [([], absl_logging.WARNING), (["--verbosity=1"], absl_logging.DEBUG)])
def test_binary_logs_warnings_unless_asked_for_more(given: list[str], verbosity: int) -> None:
    found = []
    ending = ending_of(
        lambda: flag_definitions.run_binary(lambda: found.append(absl_logging.get_verbosity())), ["program", *given]
    )
    assert ending is None
    assert found == [verbosity]


@pytest.mark.parametrize(
    ("given", "expected"), [([], r"^WARNING: mind it$"), (["--verbosity=0"], r"^W\d+ .*\] mind it")]
)
def test_binary_warns_in_words_alone_unless_asked_for_more(
    given: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = absl_logging.get_absl_handler().python_handler
    monkeypatch.setattr(handler, "formatter", absl_logging.PythonFormatter())
    ending_of(lambda: flag_definitions.run_binary(lambda: None), ["program", *given])
    assert re.search(
        expected, handler.format(logging.LogRecord("", logging.WARNING, "file.py", 7, "mind it", (), None))
    )
