"""Meta Pseudo Labels in a run: two networks in the checkpoint, fine-tuning behind it, and what is refused before it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf import flag_definitions
from metassl_tf.config import Config
from metassl_tf.engine import run, setup
from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.fine_tune import fine_tune
from metassl_tf.engine.trained import open_run
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from tests.run_results import assert_same_run, final_variables

TAUGHT = {
    "algorithm": "uda",
    "meta": "meta_pseudo_labels",
    "feedback": "hard_cosine",  # the form with most state: its moving average
    "model": "mlp",
    "hidden_units": "16",
    "filters": None,
    "dropout": None,
    "teacher_hidden_units": "24",
    "teacher_learning_rate": 0.01,
    "student_wait_steps": 3,
    "fine_tune_steps": 6,
    "fine_tune_learning_rate": 0.01,
    "fine_tune_batch_size": 16,
}
FROZEN = {
    "freeze_teacher": "true",
    "feedback": None,
    "teacher_learning_rate": None,
    "threshold": None,
    "student_wait_steps": None,
}
ALL_LABELED = {"num_labeled": 0, "num_validation": 0, "labeled_in_unlabeled": "false"}


class Killed(BaseException):
    """The process died."""


@pytest.fixture(scope="module")
def taught_config(tiny_config: Callable[..., Config]) -> Callable[..., Config]:
    return lambda **changes: tiny_config(**{**TAUGHT, **changes})


@pytest.fixture(scope="module")
def finished(taught_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """A whole run."""
    workdir = Workdir(tmp_path_factory.mktemp("taught"))
    run.train(taught_config(), workdir)
    return workdir


def test_result_has_the_teacher_and_the_fine_tuned_student_beside_the_student(finished: Workdir) -> None:
    result = json.loads(finished.result.read_text())
    assert result["test_accuracy"] == result["last"]["test"]["ema"]["accuracy"]
    assert set(result["teacher"]) == set(result["fine_tuned"]) == {"labeled", "validation", "test"}
    found = {
        result["test_accuracy"],
        result["teacher"]["test"]["ema"]["accuracy"],
        result["fine_tuned"]["test"]["ema"]["accuracy"],
    }
    assert len(found) == 3
    assert {"student/loss", "feedback/cosine", "feedback/baseline", "loss/consistency"} <= set(result["train"])
    assert result["config"]["teacher_learning_rate"] == 0.01
    assert flag_definitions.parse([f"--flagfile={finished.config}"]).teacher.values()["teacher_hidden_units"] == (24,)


def test_a_teacher_without_feedback_is_what_its_algorithm_alone_makes(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    """To the last bit, dropout included: what is measured of feedback is then its own doing."""
    plain, taught = Workdir(tmp_path / "plain"), Workdir(tmp_path / "taught")
    short = {"algorithm": "uda", "steps": 3}
    run.train(tiny_config(**short), plain)
    run.train(tiny_config(**short, meta="meta_pseudo_labels", feedback="none"), taught)
    alone, found = final_variables(plain), final_variables(taught)
    learned = [name for name in alone if name.split("/")[0] in ("model", "slots", "ema")]
    assert len(learned) > 10
    for name in learned:
        np.testing.assert_array_equal(found[f"teacher_{name}"], alone[name])
    assert any((found[name] != alone[name]).any() for name in learned)  # the student has weights of its own


def test_fine_tuning_starts_from_the_averaged_student(finished: Workdir, taught_config: Callable[..., Config]) -> None:
    opened = open_run(finished, taught_config())
    (student, _), (tuned, step) = (
        opened.network(checkpoint=checkpoint, parameters="ema") for checkpoint in ("last", "fine_tuned")
    )
    assert step == 6
    for left, right in zip(student.trainable_variables, tuned.trainable_variables, strict=True):
        distance = np.linalg.norm(left.numpy() - right.numpy())
        assert 0 < distance < 0.2 * (1 + np.linalg.norm(left.numpy()))


def test_loss_that_explodes_in_fine_tuning_names_its_learning_rate(
    taught_config: Callable[..., Config], tmp_path: Path
) -> None:
    experiment = setup.build(taught_config(fine_tune_learning_rate=1e38))
    with pytest.raises(UserError, match=r"^While fine-tuning, with --fine_tune_learning_rate=1e\+38: .*NaN"):
        fine_tune(experiment, Workdir(tmp_path))


@pytest.mark.parametrize("phase", ["training", "fine-tuning"])
def test_killed_run_ends_the_same_to_the_last_bit(
    phase: str, finished: Workdir, taught_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = Workdir(tmp_path / "killed")
    save, folder = Checkpoints.save, {"training": "checkpoints", "fine-tuning": "fine_tuned"}[phase]

    def deadly(self: Checkpoints, step: int) -> None:
        save(self, step)
        if step == {"training": 8, "fine-tuning": 4}[phase] and self._folder.name == folder:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", deadly)
        with pytest.raises(Killed):
            run.train(taught_config(), killed)
    run.train(taught_config(), killed)
    assert_same_run(finished, killed)
    roles = {name.split("/")[0] for name in final_variables(killed)}
    assert {"model", "slots", "ema", "teacher_model", "teacher_slots", "teacher_ema", "teaching"} <= roles
    tuned = [tf.train.load_checkpoint(tf.train.latest_checkpoint(str(own.fine_tuned))) for own in (finished, killed)]
    for name in tuned[0].get_variable_to_dtype_map():
        if not name.startswith(("save_counter", "_CHECKPOINT")):
            np.testing.assert_array_equal(tuned[0].get_tensor(name), tuned[1].get_tensor(name))


def test_weights_are_learned_for_the_student(taught_config: Callable[..., Config], tmp_path: Path) -> None:
    """Of points, with a single logit; the labels in question are the teacher's, not those that it learns from."""
    config = taught_config(
        dataset="two_moons",
        num_labeled=6,
        algorithm="given_labels",
        given_labels="truth",
        threshold=None,
        single_logit="true",
        meta="meta_pseudo_labels,per_example_weights",
        num_meta_validation=30,
        weight_update_steps=2,
        weight_learning_rate=0.1,
        fine_tune_steps=None,
        fine_tune_learning_rate=None,
        fine_tune_batch_size=None,
    )
    workdir = Workdir(tmp_path)
    result = run.train(config, workdir)
    experiment = setup.build(config)
    assert experiment.weighting._learner is experiment.teaching.student
    assert experiment.weighting.first_due(0) == 4  # the student starts behind step 3, and every second step is due
    assert result["weights"]["updates_per_example"] > 0
    assert result["weights"]["percentile_100"] > 1
    assert {"weights/validation_loss", "feedback/cosine", "given_label_accuracy"} <= set(result["train"])
    rows = csv.DictReader(workdir.weights.read_text().splitlines())
    assert {row["given_label"] for row in rows} <= {*experiment.dataset.class_names}


def test_frozen_teacher_comes_from_another_run(
    finished: Workdir, taught_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = taught_config(
        **FROZEN,
        init_teacher_from=str(finished.root),
        teacher_hidden_units="16",
        fine_tune_steps=None,
        fine_tune_learning_rate=None,
        fine_tune_batch_size=None,
    )
    workdir = Workdir(tmp_path)
    result = run.train(config, workdir)
    before, after = final_variables(finished), final_variables(workdir)
    for name, value in before.items():
        if name.startswith("ema/"):
            np.testing.assert_array_equal(after[f"teacher_model/{name.removeprefix('ema/')}"], value)
    expected = json.loads(finished.result.read_text())["test_accuracy"]
    assert result["teacher"]["test"]["raw"]["accuracy"] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {**FROZEN},
            r"--freeze_teacher keeps .* random.* Expected --init_teacher_from",
        ),
        ({**FROZEN, "threshold": 0.5}, r"--threshold has no effect here: a teacher that --freeze_teacher holds"),
        ({**FROZEN, "unlabeled_weight": 2}, r"--unlabeled_weight has no effect here: a teacher that --freeze_te"),
        ({**FROZEN, "teacher_dropout": 0.5}, r"--teacher_dropout has no effect here: a teacher that --freeze_te"),
        (
            {**FROZEN, "student_wait_steps": 3},
            r"--student_wait_steps has no effect here: a teacher that --freeze_teacher",
        ),
        ({"student_wait_steps": 12}, r"--student_wait_steps=12 does not end before --steps=12"),
        ({"teacher_model": "no_such"}, r"--teacher_model=no_such is not known"),
        ({"feedback": "soft", "baseline_decay": 0.5}, r"--baseline_decay has no effect here"),
        ({"fine_tune_steps": 0}, r"--fine_tune_.* has no effect here: --fine_tune_steps is 0"),
        ({"feedback": "none", "feedback_weight": 2}, r"--feedback_weight has no effect here: there is no feedback"),
        (
            {"feedback": "none", "student_labels": "argmax", "distillation_temperature": 2},
            r"--distillation_temperature has no effect here: --student_labels=argmax",
        ),
        (
            {"warmup_steps": 9},
            r"--student_wait_steps=3 and --warmup_steps=9 behind them do not end before --steps=12\.",
        ),
        (
            {"algorithm": "supervised", "threshold": None, **ALL_LABELED},
            r"^--meta=meta_pseudo_labels learns from unlabeled examples and there are none",
        ),
    ],
)
def test_mistakes_are_explained(changes: dict[str, Any], message: str, taught_config: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=message):
        setup.build(taught_config(**changes))


@pytest.mark.parametrize("source", ["nowhere", "other"])
def test_teacher_s_weights_have_to_fit(
    source: str, finished: Workdir, taught_config: Callable[..., Config], tmp_path: Path
) -> None:
    path, message = {
        "nowhere": (str(tmp_path / "nowhere"), r"--init_teacher_from=.*nowhere holds no weights"),
        "other": (str(finished.root), r"--init_teacher_from=.*: variable .* Expected the same --teacher_model"),
    }[source]
    with pytest.raises(UserError, match=message):
        run.train(taught_config(init_teacher_from=path, teacher_hidden_units="20"), Workdir(tmp_path / "run"))
