"""A run that learns from another one's labels or network: its teacher comes first, and belongs to what was measured."""

from pathlib import Path

import pytest

from tests.tools.fake_training import FIRST, FakeTraining, paper_table

pytestmark = pytest.mark.usefixtures("project")


@pytest.mark.parametrize(
    ("flag", "source"), [("stored_labels", "labels_1"), ("given_labels", "seed_1"), ("init_teacher_from", "seed_1")]
)
def test_a_teacher_comes_first(flag: str, source: str, training: FakeTraining) -> None:
    text = FIRST.path.read_text().replace("# Measured:", "# Teacher:   second\n# Measured:")
    FIRST.path.write_text(f"{text}--{flag}=runs/labels\n")
    paper_table("--runs=flags/toy/first.flags", "--seeds=1", "--data_dir=somewhere")
    teacher, *labeling, student = training.commands
    assert [Path(flags["flagfile"]).stem for flags in (teacher, student)] == ["second", "first"]
    assert Path(student[flag]).name == source
    if labeling:
        assert labeling[0]["teacher"] == teacher["workdir"]
        assert labeling[0]["stored_labels"] == student[flag]
        assert labeling[0].items() >= {"seed": "1", "split_seed": "1", "data_dir": "somewhere"}.items()
    assert len(labeling) == (flag == "stored_labels")
    training.commands.clear()
    paper_table("--runs=flags/toy/first.flags", "--seeds=1,2", "--data_dir=somewhere")
    assert {flags["seed"] for flags in training.commands} == {"2"}


def test_a_student_becomes_a_teacher(training: FakeTraining) -> None:
    """The teacher's own teacher comes before it, and each labels for the next one alone."""
    third = FIRST.path.with_name("third.flags")
    for path, teacher in ((FIRST.path, "second"), (third, "first")):
        text = FIRST.path.with_name("second.flags").read_text()
        text = text.replace("# Measured:", f"# Teacher:   {teacher}\n# Measured:")
        path.write_text(f"{text}--stored_labels=runs/labels\n")
    paper_table("--runs=flags/toy/third.flags", "--seeds=1")
    second, first_labels, first, third_labels, last = training.commands
    names = [Path(flags["flagfile"]).stem for flags in training.commands]
    assert names == ["second", "first", "first", "third", "third"]
    assert first_labels["teacher"] == second["workdir"]
    assert third_labels["teacher"] == first["workdir"]
    assert first_labels["stored_labels"] == first["stored_labels"] != third_labels["stored_labels"]
    assert last["stored_labels"] == third_labels["stored_labels"]
    training.commands.clear()
    paper_table("--runs=flags/toy/third.flags,flags/toy/first.flags", "--seeds=1")
    assert not training.commands


def test_other_flags_of_a_teacher_make_numbers_void(training: FakeTraining) -> None:
    text = FIRST.path.read_text().replace("# Measured:", "# Teacher:   second\n# Measured:")
    FIRST.path.write_text(f"{text}--given_labels=runs/labels\n")
    paper_table("--runs=flags/toy/first.flags", "--seeds=1")
    assert len(FIRST.measurements()) == 1
    assert len(training.commands) == 2
    second = FIRST.path.with_name("second.flags")
    second.write_text(second.read_text().replace("--steps=3", "--steps=4"))
    assert FIRST.measurements() == []


def test_labeling_that_fails_is_reported(training: FakeTraining) -> None:
    text = FIRST.path.read_text().replace("# Measured:", "# Teacher:   second\n# Measured:")
    FIRST.path.write_text(f"{text}--stored_labels=runs/labels\n")
    training.fail.add("label")
    message = str(paper_table("--runs=flags/toy/first.flags", "--seeds=1"))
    assert "toy/first, seed 1: labeling ended with status 1. error: no such model." in message
