"""A teacher that labels, and students that learn from what it said: from command to result."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.config import Config
from metassl_tf.engine import run, stored_labels
from metassl_tf.engine.labeling import fingerprint, label_examples
from metassl_tf.engine.learned_weights import learned_weights
from metassl_tf.engine.lessons import lessons_of
from metassl_tf.engine.load import load_split_examples
from metassl_tf.engine.predictor import from_saved, predict_examples
from metassl_tf.engine.stored_labels import LabelStore
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from metassl_tf.flagfile import to_flagfile
from metassl_tf.learner.update_rules import Adam
from tests.command_line import run_here
from tests.run_results import assert_same_variables, evaluations
from tests.stored import store_labels
from tests.trained_runs import trained

# The data of the run that `trained` makes of digits.
DATA = {"num_validation": 30, "normalization": "mean_std", "threshold": None, "algorithm": "noisy_student"}


@pytest.fixture
def student(tiny_config: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    def make(**changes: Any) -> Config:
        return tiny_config(
            **{**DATA, "stored_labels": str(tmp_path / "labels"), "steps": 6, "eval_steps": 3, **changes}
        )

    return make


@pytest.mark.parametrize("part_size", [8192, 40])  # 40: a part has labeled and unlabeled examples
def test_stored_distributions_are_the_teachers(
    student: Callable[..., Config], part_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_labels, "PART_SIZE", part_size)
    config, teacher = student(), trained("digits")
    labeled = label_examples(config, teacher.root)
    dataset, split, parts = load_split_examples(config)
    stored = LabelStore(Path(config.data.stored_labels)).read(split, dataset.class_names)
    predictor = from_saved(teacher.export)
    for own, part in ((stored.labeled, parts.labeled), (stored.unlabeled, parts.unlabeled)):
        logits = predict_examples(predictor, part, batch_size=64)["model"]
        np.testing.assert_allclose(own, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), atol=1e-5)
        np.testing.assert_allclose(own.sum(axis=1), 1.0, atol=1e-5)
    sizes = [len(np.load(path)) for path in sorted(Path(config.data.stored_labels).glob("part-*.npy"))]
    assert sizes == np.bincount(np.arange(len(parts.labeled) + len(parts.unlabeled)) // part_size).tolist()
    said = stored.unlabeled.argmax(axis=1)
    assert labeled.accuracy == pytest.approx(np.mean(said == parts.unlabeled.labels))
    assert labeled.counts == {str(digit): np.sum(said == digit) for digit in range(10)}
    assert f"right          {labeled.accuracy:.2%}" in labeled.describe()


def test_labeling_goes_on_where_it_was_stopped(student: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_labels, "PART_SIZE", 500)
    config = student()
    write, written = LabelStore.write, []

    def stopped_at_the_third(self: LabelStore, part: int, distributions: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(part)
        write(self, part, distributions)

    monkeypatch.setattr(LabelStore, "write", stopped_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        label_examples(config, trained("digits").root)
    with pytest.raises(UserError, match="not complete"):
        run.setup.build(config)
    monkeypatch.setattr(LabelStore, "write", lambda *args: (written.append(args[1]), write(*args)))
    label_examples(config, trained("digits").export)
    assert written == [0, 1, 2]
    label_examples(config, trained("digits").export)
    assert written == [0, 1, 2]


def reclassed(teacher: Workdir, folder: Path, class_names: list[str]) -> Path:
    """The same export that calls its outputs something else."""
    export = folder / "export"
    shutil.copytree(teacher.export, export)
    (path,) = export.rglob("interface.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "class_names": class_names}))
    return export


def test_classes_of_a_teacher_may_come_in_another_order(student: Callable[..., Config], tmp_path: Path) -> None:
    names = [str(digit) for digit in reversed(range(10))]
    straight = label_examples(student(), trained("digits").root)
    teacher = reclassed(trained("digits"), tmp_path, names)
    turned = label_examples(student(stored_labels=tmp_path / "turned"), teacher)
    assert turned.counts == {str(9 - int(digit)): count for digit, count in straight.counts.items()}


def test_fingerprints_tell_weights_apart(tmp_path: Path) -> None:
    export = tmp_path / "export"
    shutil.copytree(trained("digits").export, export)
    assert fingerprint(tmp_path) == fingerprint(export) == fingerprint(trained("digits").root)
    data = next((export / "variables").glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    assert fingerprint(export) != fingerprint(trained("digits").export)
    assert fingerprint(trained("digits").model) != fingerprint(trained("digits").export)


def warnings_of(caplog: pytest.LogCaptureFixture, config: Config, teacher: Path) -> str:
    caplog.clear()
    label_examples(config, teacher)
    return caplog.text


@pytest.mark.parametrize("form", ["root", "export", "model"])
def test_a_teacher_that_has_seen_what_the_student_is_judged_by(
    student: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    """The teacher has learned two examples of each class, of which the next runs validate with the second."""
    teacher = getattr(trained("digits"), form)
    assert "eacher" not in warnings_of(caplog, student(), teacher)
    for name in ("num_validation", "num_meta_validation"):
        seen = student(num_labeled=10, stored_labels=tmp_path / name, **{"num_validation": 0, name: 30})
        assert "has learned the labels of 10 examples that this run" in warnings_of(caplog, seen, teacher)
    other_test_set = student(split_seed=3, stored_labels=tmp_path / "other")
    expected = "trained with --split_seed=0, and here it is 3, which chooses other test examples"
    assert expected in warnings_of(caplog, other_test_set, teacher)


def test_a_teacher_that_predicts_no_numbers(student: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(predictor: Any, examples: Any, **_: Any) -> Any:
        yield {predictor.exported: np.full((len(examples), 10), np.nan, np.float32)}

    with monkeypatch.context() as patched:
        patched.setattr("metassl_tf.engine.labeling.predict_batches", predict)
        with pytest.raises(UserError, match=r"predictions are infinite or NaN. Expected"):
            label_examples(student(), trained("digits").root)
    label_examples(student(), trained("digits").model)  # another file of weights may go where nothing was stored


def test_a_pool_of_which_no_truth_is_known(
    student: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """None is told; and who is labeled does not depend on the pool, so that the teacher is known to have seen some."""
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), np.uint8)
    np.savez(
        tmp_path / "pool.npz",
        x_train=images,
        y_train=[0, 1] * 15,
        x_test=images,
        y_test=[0, 1] * 15,
        x_unlabeled=images,
    )
    config = student(num_labeled=10, unlabeled_dataset=f"npz:{tmp_path}/pool.npz", labeled_in_unlabeled="false")
    labeled = label_examples(config, trained("digits").root)
    assert labeled.accuracy is None
    assert sum(labeled.counts.values()) == labeled.contents.num_unlabeled == 30
    assert "right          not known" in labeled.describe()
    assert "has learned the labels of 10 examples" in caplog.text


def test_the_command_labels_for_the_run_of_its_flags(
    student: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "student.flags"
    path.write_text(to_flagfile(student()))
    assert run_here("label", [f"--flagfile={path}", f"--teacher={trained('digits').root}"]) is None
    output = capsys.readouterr().out
    assert re.search(r"labeled +20\n", output)
    assert output.endswith(f"written to     {tmp_path}/labels\n")
    assert "--teacher is missing" in str(run_here("label", [f"--flagfile={path}"]))


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


def test_mistakes_of_the_command(student: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--stored_labels is missing. Expected the folder"):
        label_examples(student(stored_labels=None), trained("digits").root)
    with pytest.raises(UserError, match=r"--teacher=.*nowhere does not exist"):
        label_examples(student(), tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r"--teacher=.* is a model of examples \[8, 8, 1\].*here they are \[16, 16, 1\]"
    ):
        label_examples(student(image_size=16), trained("digits").root)
    with pytest.raises(UserError, match=r"There are no unlabeled examples to label. Expected some"):
        label_examples(student(unlabeled_dataset="labeled", labeled_in_unlabeled="false"), trained("digits").root)
    with pytest.raises(UserError, match=r"--most_confident_per_class=9999 asks for more"):
        label_examples(student(most_confident_per_class=9999), trained("digits").root)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.flags").write_text("")
    with pytest.raises(UserError, match=r"--teacher=.*begun is the workdir of a run that has not ended.*command again"):
        label_examples(student(), tmp_path / "begun")
    assert not (tmp_path / "labels").exists()
    label_examples(student(), trained("digits").root)
    with pytest.raises(UserError, match=r"holds labels of other examples: there split_seed is 0"):
        label_examples(student(split_seed=1), trained("digits").root)
