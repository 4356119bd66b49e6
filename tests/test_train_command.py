"""`python -m metassl_tf.train` as a user runs it: killed, repeated, reproduced, and asked for help."""

import json
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from absl import flags

from metassl_tf import flag_definitions
from metassl_tf.choices import CHOICES
from metassl_tf.config import Config
from metassl_tf.engine.run import default_workdir, describe
from metassl_tf.engine.workdir import Workdir
from tests.command_line import FLAGS, ReachedTraining, arguments, forbid_training, run_here, start
from tests.engine.conftest import TINY
from tests.run_results import assert_same_run, evaluations, final_variables

STEPS = 90
# Something is evaluated or saved at two of three steps, so that most kills fall into that.
KILLED = {**TINY, "steps": STEPS, "eval_steps": 3, "checkpoint_steps": 2, "log_steps": 5}
assert float(KILLED["dropout"]) > 0
# A kill falls a random moment after the checkpoint of a random one of these steps.
KILL_STEPS = (range(2, 30), range(30, 60))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], tuple[Workdir, str, str]]]:
    """A run in a process of its own, which goes on while others are killed; called, it waits for the end."""
    workdir = Workdir(tmp_path_factory.mktemp("uninterrupted"))
    ended: list[tuple[str, str]] = []

    def wait() -> tuple[Workdir, str, str]:
        if not ended:
            ended.append(process.communicate(timeout=600))
        assert process.returncode == 0, ended[0][1]
        return workdir, *ended[0]

    with start("train", arguments({**KILLED, "workdir": workdir.root})) as process:
        yield wait
        process.kill()


@pytest.fixture(scope="module")
def helping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """`--help`, in a process that works while the other tests do."""
    with start("train", ["--help"], folder=tmp_path_factory.mktemp("help")) as process:
        yield process
        process.kill()


def newest_checkpoint(workdir: Workdir) -> int:
    steps = (path.stem.partition("-")[2] for path in workdir.checkpoints.glob("step-*.index"))
    return max(map(int, steps), default=0)


def kill_behind(process: subprocess.Popen[str], workdir: Workdir, step: int, seconds: float) -> None:
    """Sends SIGKILL some time after a checkpoint of at least a step has appeared."""
    deadline = time.monotonic() + 600
    while newest_checkpoint(workdir) < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(seconds)
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("helping")  # works while this test waits
def test_run_killed_at_any_moment_ends_in_the_same_bits(
    uninterrupted: Callable[[], tuple[Workdir, str, str]], tmp_path: Path
) -> None:
    workdir = Workdir(tmp_path / "killed")
    given = arguments({**KILLED, "workdir": workdir.root})
    moments = random.Random(0)
    reached = []
    for steps in KILL_STEPS:
        process = start("train", given)
        kill_behind(process, workdir, moments.choice(steps), moments.uniform(0.0, 0.2))
        assert process.returncode < 0
        assert not workdir.result.exists()
        reached.append(newest_checkpoint(workdir))
    process = start("train", given)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert 0 < reached[0] < reached[1] < STEPS
    whole, _, _ = uninterrupted()
    assert [row["step"] for row in evaluations(whole)] == list(range(3, STEPS + 1, 3))
    assert final_variables(whole)["run/0/.ATTRIBUTES/VARIABLE_VALUE"] == STEPS
    assert_same_run(whole, workdir)


def test_output_names_what_there_is_and_is_quiet(uninterrupted: Callable[[], tuple[Workdir, str, str]]) -> None:
    workdir, output, errors = uninterrupted()
    assert re.fullmatch(
        rf"""test accuracy  0\.\d{{4}}
result         {workdir.result}
report         {workdir.report}/index.html
export         {workdir.export}
TensorBoard    tensorboard --logdir {workdir.tensorboard}
""",
        output,
    )
    assert workdir.result.is_file()
    assert (workdir.report / "index.html").is_file()
    assert (workdir.export / "saved_model.pb").is_file()
    assert list(workdir.tensorboard.glob("events.*"))
    # Neither a progress bar nor warnings; TensorFlow may complain of missing GPUs.
    assert not re.search(r"\r|%\||step/s|examples/s|warning", errors, flags=re.IGNORECASE), errors


def test_last_lines_name_the_fine_tuned_student_and_the_teacher_where_they_were_tested(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    measured = {"raw": {"accuracy": 0.1}, "ema": {"accuracy": 0.81254}}
    taught = {"test_accuracy": 0.8, "teacher": {"test": measured, "validation": {}}}
    first = {
        "test accuracy  0.8000\nteacher        0.8125\nresult ": taught,
        "test accuracy  0.8000\nfine-tuned     0.8125\nteacher        0.8125\nresult ": taught
        | {"fine_tuned": {"test": measured}},
        "test accuracy  0.8000\nresult ": {"test_accuracy": 0.8, "fine_tuned": {"validation": measured}},
        "test accuracy  not measured: no test set\nresult ": {"test_accuracy": None, "teacher": {}},
    }
    for lines, result in first.items():
        assert describe(result, workdir).startswith(lines)


def test_help_explains_every_flag(helping: subprocess.Popen[str]) -> None:
    output, errors = helping.communicate(timeout=600)
    words = " ".join(output.split())
    defined = flags.FlagValues()
    flag_definitions.define(defined)
    for name in (*defined, "workdir"):
        assert re.search(rf"--(\[no\])?{name}: \w+", words), name
    expected = "One of: supervised, pseudo_label, uda, fixmatch, given_labels, noisy_student. (def"
    assert f"noisy_student with --meta=reduced_meta_pseudo_labels. {expected}" in words
    assert re.search(r"--batch_size: [^-]* \(default: '64'\) \(an integer\)", words)
    assert re.search(
        r"--threshold: [^-]* Used by --algorithm: pseudo_label 0\.95\. [^-]* --algorithm: uda 0\.8\.", words
    )
    headings = re.findall(r"^(\w.*):$", output, re.MULTILINE)
    assert headings[:5] == ["This program", "Data", "Views", "Training", "Evaluation, seeds, files and hardware"]
    assert headings[5:-1] == [f"What some choices of --{choice.flag} have" for choice in CHOICES]
    below = {
        heading: set(re.findall(r"^  --(?:\[no\])?(\w+):", part, re.MULTILINE))
        for heading, part in zip(headings, re.split(r"^\w.*:$", output, flags=re.MULTILINE)[1:], strict=True)
    }
    assert below["This program"] == {"workdir"}
    assert {"num_labeled", "data_dir"} <= below["Data"]
    assert {"teacher_model", "teacher_learning_rate"} <= below["What a teacher can have of its own"]
    assert sorted(name for names in below.values() for name in names) == sorted((*defined, "workdir"))
    assert "Traceback" not in errors
    assert helping.returncode == 0


def test_flagfile_of_a_run_alone_reproduces_it(tmp_path: Path) -> None:
    first, second = Workdir(tmp_path / "first"), Workdir(tmp_path / "second")
    given = arguments({**TINY, "model": "mlp", "filters": None, "steps": 6, "workdir": first.root})
    assert run_here("train", given) is None
    assert run_here("train", [f"--flagfile={first.config}", f"--workdir={second.root}"]) is None
    assert first.config.read_text() == second.config.read_text()
    assert_same_run(first, second)


def test_same_command_after_the_end_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = Workdir(tmp_path / "run")
    given = arguments({**TINY, "model": "mlp", "filters": None, "steps": 2, "workdir": workdir.root})
    assert run_here("train", given) is None
    copy = Workdir(shutil.copytree(workdir.root, tmp_path / "copy"))
    forbid_training(monkeypatch)
    assert run_here("train", given) is None
    assert_same_run(copy, workdir)
    assert json.loads(copy.result.read_text())["last"] == json.loads(workdir.result.read_text())["last"]


def test_workdir_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    forbid_training(monkeypatch)
    with pytest.raises(ReachedTraining):
        run_here("train", arguments({**TINY, "model": "mlp", "filters": None, "seed": 3}))
    assert Workdir("runs/digits-fixmatch-20-3").config.is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "runs/digits-fixmatch-20-0"),
        ({"dataset": "tfds:mnist:train"}, "runs/tfds-mnist-train-fixmatch-20-0"),
        ({"dataset": "npz:/data/own.npz"}, "runs/npz--data-own.npz-fixmatch-20-0"),
        ({"algorithm": "uda", "seed": 7, "num_labeled": 40}, "runs/digits-uda-40-7"),
    ],
)
def test_default_workdir_is_one_folder_below_runs(changes: dict[str, str | int], expected: str) -> None:
    config: Config = flag_definitions.parse(arguments({**TINY, **changes}))
    assert default_workdir(config) == Path(expected)


def test_flags_of_this_process_stay_as_they_were(tmp_path: Path) -> None:
    before = {name: FLAGS[name].value for name in FLAGS}
    run_here("train", [f"--workdir={tmp_path}", "--steps=0", "--algorithm=uda"])
    assert {name: FLAGS[name].value for name in FLAGS} == before
