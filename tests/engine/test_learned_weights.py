"""What learned weights say about the unlabeled examples: who is measured, by what, and the table that is written."""

import csv
import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf import flag_definitions
from metassl_tf.data.pollution import POLLUTED
from metassl_tf.engine import setup
from metassl_tf.engine.learned_weights import LearnedWeights, learned_weights, write_weights
from metassl_tf.engine.run import describe
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.workdir import Workdir
from tests import weight_rows

BASIC = [
    "--dataset=digits", "--num_labeled=20", "--num_meta_validation=20", "--model=convnet", "--filters=4",
    "--batch_size=8", "--unlabeled_ratio=2", "--steps=12", "--meta=per_example_weights",
]  # fmt: skip
GIVEN = ("--algorithm=given_labels", "--given_labels=truth", "--flip_labels=0.3")
POLLUTION = ("--algorithm=fixmatch", "--unknown_classes=1,5", "--pollute_unlabeled=0.2")


@functools.cache
def experiment_of(*arguments: str) -> Experiment:
    """A run before its first step, with weights drawn at random."""
    experiment = setup.build(flag_definitions.parse([*BASIC, *arguments]))
    assert experiment.weighting is not None
    table = experiment.weighting.table
    random = np.random.RandomState(0)
    weight_rows.assign(
        table,
        weight=random.randint(0, 20, table.size) / 10,  # coarse, so that there are equal ones
        updates=random.randint(0, 9, table.size),
        latest_influence=random.randn(table.size),
    )
    for average in experiment.learner.ema:
        average.assign(1.5 * average)  # not what is trained
    return experiment


def found_in(*arguments: str) -> LearnedWeights:
    found = learned_weights(experiment_of(*arguments))
    assert found is not None
    return found


def auroc(positive: np.ndarray, score: np.ndarray) -> float:
    """The share of pairs in the right order, equal ones counted by half."""
    differences = score[positive][:, None] - score[~positive][None]
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))


def check_auroc(found: LearnedWeights, deserving: np.ndarray, measured: np.ndarray) -> None:
    assert 0 < deserving[measured].sum() < measured.sum() < len(measured)
    np.testing.assert_array_equal(found.measured, measured)
    np.testing.assert_array_equal(found.trustworthy[measured], deserving[measured])
    assert found.auroc == pytest.approx(auroc(deserving[measured], found.weight[measured]))
    assert found.confidence_auroc == pytest.approx(auroc(deserving[measured], found.confidence[measured]))
    assert found.agreement_auroc == pytest.approx(auroc(deserving[measured], found.agreement[measured]))


def unlabeled_only(experiment: Experiment) -> np.ndarray:
    """Where an unlabeled example is not a labeled one as well."""
    return ~np.isin(experiment.split.unlabeled, experiment.split.labeled)


def test_a_given_label_is_trustworthy_if_it_is_right() -> None:
    experiment, found = experiment_of(*GIVEN), found_in(*GIVEN)
    given = experiment.unlabeled.columns["given_label"]
    assert found.measure == "given_label"
    np.testing.assert_array_equal(found.given_label, given)
    assert np.sum(~unlabeled_only(experiment)) == 20
    check_auroc(found, given == experiment.unlabeled.labels, unlabeled_only(experiment))


def test_without_given_labels_what_belongs_is_trustworthy() -> None:
    experiment, found = experiment_of(*POLLUTION), found_in(*POLLUTION)
    assert found.measure == "pollution"
    assert found.given_label is None
    polluted = experiment.unlabeled.columns[POLLUTED] == 1
    assert (experiment.unlabeled.labels[polluted] == -1).all()
    check_auroc(found, ~polluted, unlabeled_only(experiment))


def test_a_label_of_a_teacher_is_trustworthy_if_it_is_right() -> None:
    arguments = ("--algorithm=uda", "--meta=meta_pseudo_labels,per_example_weights")
    experiment, found = experiment_of(*arguments), found_in(*arguments)
    assert found.measure == "teacher_label"
    inputs = experiment.views.plain(tf.constant(experiment.unlabeled.inputs))
    labels = experiment.teaching.teacher.predict(inputs, parameters="raw").numpy().argmax(axis=1)
    np.testing.assert_array_equal(found.given_label, labels)
    assert (found.predicted != labels).any()
    check_auroc(found, labels == experiment.unlabeled.labels, unlabeled_only(experiment))


def test_else_a_pseudo_label_is_trustworthy_if_it_is_right() -> None:
    arguments = ("--algorithm=fixmatch",)
    experiment, found = experiment_of(*arguments), found_in(*arguments)
    assert found.measure == "pseudo_label"
    assert found.given_label is None
    check_auroc(found, found.predicted == experiment.unlabeled.labels, unlabeled_only(experiment))


def test_predictions_are_those_of_the_averaged_weights() -> None:
    experiment, found = experiment_of(*GIVEN), found_in(*GIVEN)
    inputs = experiment.views.plain(tf.constant(experiment.unlabeled.inputs[:50]))
    probabilities = tf.nn.softmax(experiment.learner.predict(inputs, parameters="ema")).numpy()
    np.testing.assert_allclose(found.confidence[:50], probabilities.max(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(found.predicted[:50], probabilities.argmax(axis=1))
    given = experiment.unlabeled.columns["given_label"][:50]
    np.testing.assert_allclose(found.agreement[:50], probabilities[np.arange(50), given], rtol=1e-3)


def test_unknown_truth_is_not_measured() -> None:
    experiment = experiment_of(*GIVEN)
    labels = experiment.unlabeled.labels.copy()
    labels[:300] = -1
    given = experiment.unlabeled.columns["given_label"].copy()
    given[200:400] = -1
    unlabeled = dataclasses.replace(experiment.unlabeled, labels=labels).with_columns({"given_label": given})
    found = learned_weights(dataclasses.replace(experiment, unlabeled=unlabeled))
    assert found is not None
    assert not found.measured[:400].any()
    np.testing.assert_array_equal(found.measured[400:], unlabeled_only(experiment)[400:])
    blind = dataclasses.replace(unlabeled, labels=np.full(len(labels), -1))
    found = learned_weights(dataclasses.replace(experiment, unlabeled=blind))
    assert found is not None
    assert found.auroc is None
    assert found.confidence_auroc is None


def test_a_single_weight_says_nothing_about_examples() -> None:
    assert learned_weights(experiment_of(*GIVEN, "--single_weight")) is None
    plain = [argument for argument in BASIC if not argument.startswith(("--meta", "--num_meta"))]
    assert learned_weights(setup.build(flag_definitions.parse([*plain, "--algorithm=fixmatch"]))) is None


def written(experiment: Experiment, found: LearnedWeights, folder: Path) -> list[dict[str, str]]:
    workdir = Workdir(folder)
    write_weights(found, experiment, workdir)
    with workdir.weights.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_table_holds_every_example_once(tmp_path: Path) -> None:
    experiment, found = experiment_of(*GIVEN), found_in(*GIVEN)
    rows = written(experiment, found, tmp_path)
    assert list(rows[0]) == [
        *("index", "file", "weight", "updates", "influence"),
        *("given_label", "predicted_label", "confidence", "agreement"),
    ]
    assert sorted(int(row["index"]) for row in rows) == list(range(len(experiment.unlabeled)))
    given = experiment.unlabeled.columns["given_label"]
    names = experiment.dataset.class_names
    for row in rows:
        place = int(row["index"])
        assert row["file"] == f"unlabeled {place}"
        assert float(row["weight"]) == pytest.approx(found.weight[place], rel=1e-6)
        assert int(row["updates"]) == found.updates[place]
        assert float(row["influence"]) == pytest.approx(found.influence[place], rel=1e-6)
        assert row["given_label"] == names[given[place]]
        assert row["predicted_label"] == names[found.predicted[place]]
        assert float(row["confidence"]) == pytest.approx(found.confidence[place], rel=1e-6)
        assert float(row["agreement"]) == pytest.approx(found.agreement[place], rel=1e-6)


def test_table_begins_with_what_a_person_should_look_at(tmp_path: Path) -> None:
    rows = written(experiment_of(*GIVEN), found_in(*GIVEN), tmp_path)
    keys = [(float(row["weight"]), -float(row["influence"])) for row in rows]
    assert len({weight for weight, _ in keys}) < len(keys)
    assert all(earlier <= later for earlier, later in itertools.pairwise(keys))


def test_last_lines_of_a_run_name_the_table(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    assert "weights " not in describe({"test_accuracy": 0.5}, workdir)
    workdir.weights.write_text("")
    assert f"\nweights        {workdir.weights}\n" in describe({"test_accuracy": 0.5}, workdir)


def test_table_is_safe_to_open_in_a_spreadsheet(tmp_path: Path) -> None:
    experiment, found = experiment_of(*GIVEN), found_in(*GIVEN)
    names = np.array([f"folder/{number}.png" for number in range(len(experiment.unlabeled))], dtype="<U40")
    hostile = ["=1+1.png", "+a.png", "-b.png", "@c.png", '"d", e.png', "f\ng.png", "", "猫.png"]
    names[: len(hostile)] = hostile
    given = experiment.unlabeled.columns["given_label"].copy()
    given[5] = -1
    unlabeled = dataclasses.replace(experiment.unlabeled, names=names).with_columns({"given_label": given})
    found = dataclasses.replace(found, given_label=given)
    rows = written(dataclasses.replace(experiment, unlabeled=unlabeled), found, tmp_path)
    told = {int(row["index"]): row for row in rows}
    assert [told[place]["file"] for place in range(9)] == [
        "./=1+1.png", "./+a.png", "./-b.png", "./@c.png", '"d", e.png', "f\ng.png", "unlabeled 6", "猫.png",
        "folder/8.png",
    ]  # fmt: skip
    assert told[5]["given_label"] == ""
    assert not any(row["file"].startswith(tuple("=+-@")) for row in rows)


def test_table_without_given_labels_leaves_their_column_empty(tmp_path: Path) -> None:
    rows = written(experiment_of(*POLLUTION), found_in(*POLLUTION), tmp_path)
    assert {row["given_label"] for row in rows} == {""}
