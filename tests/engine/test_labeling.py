"""A teacher that labels: what is stored, whose it is, and what it may not be used for."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metassl_tf.config import Config
from metassl_tf.engine import run, stored_labels
from metassl_tf.engine.labeling import fingerprint, label_examples
from metassl_tf.engine.load import load_split_examples
from metassl_tf.engine.predictor import from_saved, predict_examples
from metassl_tf.engine.stored_labels import LabelStore
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from metassl_tf.flagfile import to_flagfile
from tests.command_line import run_here
from tests.trained_runs import trained


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
