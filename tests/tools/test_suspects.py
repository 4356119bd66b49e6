"""The picture shows the lowest weights, each over the label that came with it."""

import csv
from pathlib import Path

import numpy as np
import pytest

from metassl_tf import flag_definitions
from metassl_tf.engine import setup
from metassl_tf.engine.workdir import Workdir
from metassl_tf.flagfile import to_flagfile
from tests.command_line import run_here
from tools.suspect_figure import suspects

FLAGS = ["--num_labeled=20", "--algorithm=given_labels", "--given_labels=truth", "--flip_labels=0.5", "--image_size=8"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """What a run would leave: its flags, and weights in an order of their own."""
    config = flag_definitions.parse(FLAGS)
    own = Workdir(tmp_path_factory.mktemp("run"))
    own.config.write_text(to_flagfile(config))
    given = setup.build(config).unlabeled.columns["given_label"]
    with own.weights.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "weight", "given_label", "predicted_label"])
        for place, index in enumerate((7, 3, 11)):
            writer.writerow([index, place / 10, given[index] if index != 11 else "", 4])
    return own


def test_suspects_are_the_first_rows_with_their_images_and_labels(workdir: Workdir) -> None:
    experiment = setup.build(flag_definitions.parse(FLAGS))
    found = suspects(workdir, 2)
    assert [suspect.weight for suspect in found] == [0.0, 0.1]
    for suspect, index in zip(found, (7, 3), strict=True):
        np.testing.assert_array_equal(suspect.pixels, experiment.unlabeled.inputs[index])
        given, truth = (
            values[index] for values in (experiment.unlabeled.columns["given_label"], experiment.unlabeled.labels)
        )
        assert (suspect.label, suspect.right) == (str(given), given == truth)
    assert suspects(workdir, 9)[2].label == "4"  # predicted: none was given


def test_picture_is_drawn(workdir: Workdir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "suspicious.png"
    assert run_here("../tools/suspects", [f"--workdir={workdir.root}", f"--output={path}", "--count=3"]) is None
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "the 3 lowest weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--workdir is missing"),
        (["--workdir=nowhere"], "nowhere/weights.csv does not exist"),
        (["--workdir=nowhere", "--output=no/folder/x.png"], "there is no folder no/folder"),
    ],
)
def test_mistakes_are_explained(given: list[str], message: str) -> None:
    assert message in str(run_here("../tools/suspects", given))
