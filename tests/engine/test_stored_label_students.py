"""Students that learn from what a teacher has stored: with a network that calibrates it, with weights, and without."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.config import Config
from metassl_tf.engine import evaluated_sets, run
from metassl_tf.engine.labeling import label_examples
from metassl_tf.engine.learned_weights import learned_weights
from metassl_tf.engine.lessons import lessons_of
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from metassl_tf.learner.update_rules import Adam
from tests.run_results import assert_same_variables, evaluations
from tests.stored import store_labels
from tests.trained_runs import trained


def test_calibrator_is_what_the_settings_say(student: Callable[..., Config]) -> None:
    config = student(
        meta="reduced_meta_pseudo_labels",
        calibrator_units=5,
        calibrator_start="random",
        calibrator_learning_rate=0.25,
        calibrator_l2_weight_decay=0.125,
        learning_rate=0.5,
    )
    store_labels(config)
    experiment = run.setup.build(config)
    own = experiment.teaching.teacher.optimization
    assert own.rule == Adam(beta_1=0.9, beta_2=0.999, epsilon=1e-7)
    assert (own.learning_rate, own.l2_weight_decay) == (0.25, 0.125)
    assert [variable.shape for variable in experiment.teaching.teacher.trainable_variables][:2] == [(10, 5), (5,)]
    assert config.needs.labeled_views == {"strong": "strong", "judged": "weak"}
    assert experiment.config.needs.labeled_columns == ("teacher_label",)


def test_targets_of_a_calibrator_are_recorded(student: Callable[..., Config]) -> None:
    """The identity gives back what was stored, flattened by the temperature."""
    config = student(meta="reduced_meta_pseudo_labels", distillation_temperature=2.0)
    store_labels(config)
    experiment = run.setup.build(config)
    record = lessons_of(experiment).record(0, [])
    for target in record["targets"]:
        stored = experiment.unlabeled.columns["teacher_label"][target["example"]][target["classes"]]
        np.testing.assert_allclose(target["probabilities"], stored**0.5 / (stored**0.5).sum(), atol=2e-5)


@pytest.mark.parametrize("start", ["identity", "random"])
def test_a_calibrator_is_compared_with_what_was_stored(student: Callable[..., Config], start: str) -> None:
    """From the first record on; one that begins at random says something else than the teacher did."""
    config = student(meta="reduced_meta_pseudo_labels", calibrator_start=start)
    store_labels(config)
    experiment = run.setup.build(config)
    (labeled,) = evaluated_sets.of_teacher(experiment, experiment.teaching).values()
    accuracy = labeled.metrics(0)["raw"]["accuracy"]
    right = experiment.labeled.columns["teacher_label"].argmax(axis=1) == experiment.labeled.labels
    kept = start == "identity"
    assert (accuracy == pytest.approx(right.mean())) == kept
    assert (lessons_of(experiment).record(0, [])["changed_targets"] == 0.0) == kept


@pytest.mark.parametrize("policy", ["digits", "mpl"])
def test_feedback_changes_nothing_of_what_is_seen(student: Callable[..., Config], policy: str) -> None:
    """Noisy Student differs in the missing feedback alone, also where strong views may start from weak ones."""
    store_labels(student())
    step, seen = tf.constant(3, tf.int64), []
    for meta in (None, "reduced_meta_pseudo_labels"):
        batch = run.setup.build(student(meta=meta, strong_policy=policy)).pipeline().batch_function()(step)
        seen.append([batch.labeled.views["strong"], batch.unlabeled.views["strong"]])
    for plain, taught in zip(*seen, strict=True):
        np.testing.assert_array_equal(plain, taught)


@pytest.mark.parametrize("meta", ["per_example_weights", "reduced_meta_pseudo_labels,per_example_weights"])
def test_weights_are_measured_by_the_labels_that_they_weigh(student: Callable[..., Config], meta: str) -> None:
    """Stored ones, or what a calibrator that begins with these makes of them; not what the student thinks."""
    config = student(meta=meta, num_meta_validation=20)
    store_labels(config)
    experiment = run.setup.build(config)
    found = learned_weights(experiment)
    assert found is not None
    assert found.measure == "teacher_label"
    stored = experiment.unlabeled.columns["teacher_label"].argmax(axis=1)
    np.testing.assert_array_equal(found.given_label, stored)
    np.testing.assert_array_equal(found.trustworthy, stored == experiment.unlabeled.labels)
    assert (found.predicted != stored).any()


@pytest.mark.parametrize(
    "changes",
    [
        {"most_confident_per_class": 20, "balance_classes": "true"},
        {"meta": "reduced_meta_pseudo_labels", "fine_tune_steps": 2},
        {"meta": "reduced_meta_pseudo_labels", "feedback": "none", "calibrator_start": "random"},
        {"meta": "reduced_meta_pseudo_labels,per_example_weights", "num_meta_validation": 20},
    ],
)
def test_students_learn_from_stored_labels(
    student: Callable[..., Config], tmp_path: Path, changes: dict[str, Any]
) -> None:
    data = {name: value for name, value in changes.items() if name == "num_meta_validation"}
    label_examples(student(**data), trained("digits").root)
    config, workdir = student(**changes), Workdir(tmp_path / "student")
    result = run.train(config, workdir)
    assert 0 <= result["test_accuracy"] <= 1
    row = evaluations(workdir)[-1]["train"]
    prefix = "student/" if "meta" in changes else ""
    assert 0 < row[f"{prefix}teacher_label_accuracy"] < 1
    assert ("feedback/cosine" in row) == (changes.get("feedback") != "none" and "meta" in changes)
    assert ("fine_tuned" in json.loads(workdir.result.read_text())) == ("fine_tune_steps" in changes)
    assert (workdir.report / "index.html").is_file()


def test_kill_and_resume_is_bit_identical(
    student: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = student(meta="reduced_meta_pseudo_labels", checkpoint_steps=2)
    label_examples(config, trained("digits").root)
    whole, parts = Workdir(tmp_path / "whole"), Workdir(tmp_path / "parts")
    monkeypatch.setattr(run.Run, "finish", lambda _: {})  # what is trained is all that matters
    run.train(config, whole)
    save = run.Run._save

    def killed(self: run.Run, step: int) -> None:
        save(self, step)
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(run.Run, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        run.train(config, parts)
    monkeypatch.setattr(run.Run, "_save", save)
    run.train(config, parts)
    assert_same_variables(whole, parts)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"meta": "reduced_meta_pseudo_labels", "algorithm": "fixmatch", "stored_labels": None},
            r"--algorithm learns from none. Expected --algorithm=noisy_student",
        ),
        (
            {"meta": "reduced_meta_pseudo_labels,meta_pseudo_labels"},
            r"--meta=reduced_meta_pseudo_labels,meta_pseudo_labels names two teachers of one student. Expected one",
        ),
        ({"algorithm": "fixmatch"}, r"--stored_labels has no effect here: --algorithm=fixmatch uses no stored labels"),
        ({"meta": "reduced_meta_pseudo_labels", "teacher_model": "mlp"}, r"--teacher_model has no effect without"),
        ({"meta": "reduced_meta_pseudo_labels", "feedback": "hard"}, r"--feedback=hard is not known.*soft_jvp, soft"),
    ],
)
def test_mistakes_are_explained(student: Callable[..., Config], changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        run.setup.build(student(**changes))
