"""A teacher has settings of its own: each is a flag that falls back to the plain one's value."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from metassl_tf import flag_definitions
from metassl_tf.choices import NETWORK_CHOICES
from metassl_tf.config import NETWORK_SETTINGS, Config, Network, TrainSettings
from metassl_tf.data.sources import load_dataset
from metassl_tf.engine.networks import build_learner
from metassl_tf.errors import UserError
from metassl_tf.flag_definitions import parse
from metassl_tf.flagfile import to_flagfile, unused
from metassl_tf.learner.schedules import Exponential
from metassl_tf.learner.update_rules import Adam, Sgd
from metassl_tf.meta import META_RULES, TEACHING_RULES
from metassl_tf.models.convnet import ConvNet
from metassl_tf.models.mlp import MLP

TEACHING = "--meta=meta_pseudo_labels"
PLAIN = ["--filters=3", "--dropout=0.25", "--momentum=0.5", "--learning_rate=0.2", "--ema_decay=0.9", "--steps=7"]
# One alternative for each of a teacher's settings that is in no table.
OWN = {
    "learning_rate": 0.5,
    "warmup_steps": 3,
    "l2_weight_decay": 0.125,
    "weight_decay_coverage": "all",
    "gradient_clip_norm": 2.0,
    "ema_decay": 0.75,
}


def taught(*given: str) -> tuple[Config, Network]:
    config = parse([TEACHING, *PLAIN, *given])
    assert config.teacher is not None
    return config, config.teacher


def reparsed(config: Config, folder: Path, *given: str) -> Config:
    path = folder / "config.flags"
    path.write_text(to_flagfile(config))
    return parse([f"--flagfile={path}", *given])


def test_rules_with_a_teacher_are_in_the_table() -> None:
    assert set(TEACHING_RULES) <= set(META_RULES)


def test_without_a_rule_that_has_one_there_is_no_teacher() -> None:
    for given in ([], ["--meta=per_example_weights"]):
        config = parse(given)
        assert config.teacher is None
        assert "--teacher_" not in to_flagfile(config)
        assert [name for name in config.values() if name.startswith("teacher_")] == []


def test_a_teacher_is_like_its_student_unless_told_otherwise(tmp_path: Path) -> None:
    config, teacher = taught()
    assert teacher == dataclasses.replace(config.student, prefix="teacher_")
    assert teacher.model == ConvNet(filters=3, dropout=0.25)
    assert reparsed(config, tmp_path) == config


def test_every_setting_of_a_teacher_can_be_its_own(tmp_path: Path) -> None:
    config, teacher = taught(*(f"--teacher_{name}={value}" for name, value in OWN.items()))
    assert set(OWN) == set(NETWORK_SETTINGS) - {choice.flag for choice in NETWORK_CHOICES}
    assert config.student == taught()[0].student
    assert teacher.train == dataclasses.replace(config.train, **OWN)
    assert all(getattr(TrainSettings(), name) != value != getattr(config.train, name) for name, value in OWN.items())
    assert reparsed(config, tmp_path) == config


def test_within_a_family_a_setting_that_is_not_given_is_the_plain_one() -> None:
    config, teacher = taught("--teacher_model=convnet", "--teacher_dropout=0", "--teacher_nesterov=false")
    assert teacher.model == ConvNet(filters=3, dropout=0.0)
    assert teacher.rule == Sgd(momentum=0.5, nesterov=False)
    assert config.model == ConvNet(filters=3, dropout=0.25)
    assert config.rule == Sgd(momentum=0.5)


def test_another_family_starts_from_its_own_defaults(tmp_path: Path) -> None:
    other = ["--teacher_model=mlp", "--teacher_hidden_units=", "--teacher_optimizer=adam", "--teacher_beta_1=0.5"]
    config, teacher = taught(*other, "--teacher_schedule=exponential", "--teacher_decay_steps=5")
    assert teacher.model == MLP(hidden_units=())  # not the dropout of the student
    assert (teacher.rule, teacher.schedule) == (Adam(beta_1=0.5), Exponential(decay_steps=5))
    assert (teacher.train.model, teacher.train.optimizer, teacher.train.schedule) == ("mlp", "adam", "exponential")
    assert config.student == taught()[0].student
    assert reparsed(config, tmp_path) == config


def test_a_function_has_no_settings(tmp_path: Path) -> None:
    config, teacher = taught("--teacher_model=package.module:function")
    assert teacher.model is None
    assert reparsed(config, tmp_path) == config


def test_a_teacher_that_learns_nothing_has_a_model_alone(tmp_path: Path) -> None:
    frozen = ["--freeze_teacher", "--init_teacher_from=DIR", "--teacher_filters=5"]
    config, teacher = taught(*frozen)
    written = set(re.findall(r"^--(teacher_\w+)=", to_flagfile(config), flags=re.MULTILINE))
    in_training = {"teacher_dropout", "teacher_batch_norm_momentum"}
    shape = {f"teacher_{field.name}" for field in dataclasses.fields(teacher.model)} - in_training
    assert written == {"teacher_model", *shape}
    assert reparsed(config, tmp_path) == config
    for given in ("--teacher_optimizer=adam", "--teacher_momentum=0.5", "--teacher_learning_rate=0.2"):
        with pytest.raises(UserError, match=r"^--teacher_\w+ has no effect here: .*--freeze_teacher .* left out"):
            taught(*frozen, given)


def test_a_flagfile_holds_all_of_the_teacher(tmp_path: Path) -> None:
    config, teacher = taught("--teacher_model=mlp")
    written = set(re.findall(r"^--(\w+)=", to_flagfile(config), flags=re.MULTILINE))
    assert written == set(config.values()) - set(unused(config))
    assert {name for name in written if name.startswith("teacher_")} == set(teacher.values())
    assert set(teacher.values()) >= {"teacher_learning_rate", "teacher_hidden_units", "teacher_momentum"}
    changed = reparsed(config, tmp_path, "--momentum=0.7")
    assert changed.rule == Sgd(momentum=0.7)
    assert changed.teacher == teacher


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--teacher_dropout=0.1"], r"--teacher_dropout has no effect without --meta=meta_pseudo_labels\."),
        (["--meta=per_example_weights", "--teacher_model=mlp"], r"--teacher_model has no effect without --meta=meta_"),
        ([TEACHING, "--teacher_dropout=2"], r"^--teacher_dropout=2\.0 is out of range\. Expected at least 0 and less"),
        ([TEACHING, "--dropout=2"], r"^--dropout=2\.0 is out of range"),
        ([TEACHING, "--teacher_ema_decay=1"], r"^--teacher_ema_decay=1\.0 is out of range\."),
        ([TEACHING, "--teacher_weight_decay_coverage=al"], r"^--teacher_weight_decay_coverage=al is .* mean 'all'"),
        ([TEACHING, "--teacher_model=convnets"], r"^--teacher_model=convnets is not known.*: mlp, .* mean 'convnet'\?"),
        ([TEACHING, "--teacher_optimizer=sdg"], r"^--teacher_optimizer=sdg is not known.*: sgd, .* mean 'sgd'\?"),
        ([TEACHING, "--model=mpl"], r"^--model=mpl is not known"),
        (
            [TEACHING, "--teacher_model=mlp", "--teacher_width=3"],
            r"^--teacher_width is not a setting of --teacher_model=mlp\. It uses: --teacher_activation, ",
        ),
        (
            [TEACHING, "--model=wide_resnet", "--width=3", "--teacher_model=mlp", "--teacher_hidden_units=a"],
            r"^--teacher_hidden_units=a is not a list of int .* --teacher_hidden_units=100,100",
        ),
        (
            [TEACHING, "--teacher_width=3"],
            r"^--teacher_width is not a setting of --model=convnet\. .*--teacher_fil",
        ),
        ([TEACHING, "--teacher_decay_rate=0.5"], r"is not a setting of --schedule=cosine_7_16\. .* none of its own\."),
        ([TEACHING, "--teacher_droput=0.5"], r"Unknown command line flag 'teacher_droput'. Did you mean: teacher_drop"),
        ([TEACHING, "--teacher_steps=5"], r"Unknown command line flag 'teacher_steps'"),
    ],
)
def test_mistakes_name_the_teachers_flag(given: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        parse(given)


def test_help_says_whose_it_is_and_what_it_falls_back_to() -> None:
    values = flags.FlagValues()
    flag_definitions.define(values)
    names = [name for name in values if name.startswith("teacher_")]
    entries = [entry for choice in NETWORK_CHOICES for entry in choice.table.values()]
    plain_names = {field.name for entry in entries for field in dataclasses.fields(entry)}.union(NETWORK_SETTINGS)
    assert set(names) == {f"teacher_{name}" for name in plain_names}
    for name in names:
        plain = name.removeprefix("teacher_")
        assert values[name].default is None
        assert values[name].help.startswith(f"As --{plain}, for the teacher. Default: the same")
        assert type(values[name].parser) is type(values[plain].parser)
    assert values["teacher_optimizer"].help.endswith("Default: the same.")
    assert values["teacher_filters"].help.endswith("Default: the same, if --model is the same for both.")


def test_both_networks_are_built_by_their_own_settings() -> None:
    dataset = load_dataset("digits")
    config, teacher = taught("--teacher_filters=2", "--teacher_momentum=0", "--teacher_learning_rate=0.5")
    learners = [build_learner(network, dataset, seed=0) for network in (config.student, teacher)]
    kernels = [learner.trainable_variables[0].numpy() for learner in learners]
    assert [kernel.shape for kernel in kernels] == [(3, 3, 1, 3), (3, 3, 1, 2)]
    assert [learner.optimization.rule for learner in learners] == [Sgd(momentum=0.5), Sgd(momentum=0.0)]
    assert [learner.optimization.learning_rate for learner in learners] == [0.2, 0.5]
    assert [learner.optimization.ema_decay for learner in learners] == [0.9, 0.9]
    alike = build_learner(config.student, dataset, seed=0).trainable_variables[0].numpy()
    assert np.all(alike != kernels[0])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--teacher_warmup_steps=7", r"^--teacher_warmup_steps=7 does not end before --steps=7\."),
        ("--teacher_model=a.b:c", r"^Of the network whose flags begin with --teacher_: --model=a\.b:c: the module a"),
    ],
)
def test_a_teacher_that_does_not_fit_is_named(given: str, expected: str) -> None:
    _, teacher = taught(given)
    with pytest.raises(UserError, match=expected):
        build_learner(teacher, load_dataset("digits"), seed=0)
