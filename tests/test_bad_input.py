"""Whatever a user gets wrong on the command line: one clear line before the first step, and no traceback."""

import re
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf

from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.workdir import Workdir
from tests.command_line import ROOT, ReachedTraining, error_of, forbid_training, run_here, start

# Flags behind these win over them. An MLP is built in no time.
GOOD = ("--dataset=digits", "--num_labeled=20", "--batch_size=8", "--model=mlp", "--steps=12")
QUICKSTART = ROOT / "flags/digits/quickstart.flags"

NAMES = {
    "--algorithm=fixmach": r"--algorithm=fixmach is not known.*: supervised, .* Did you mean 'fixmatch'\?",
    "--model=convnets": r"--model=convnets is not known.*: mlp, convnet.* Did you mean 'convnet'\?",
    "--optimizer=sdg": r"--optimizer=sdg is not known.*: sgd, adam.* Did you mean 'sgd'\?",
    "--schedule=cosin": r"--schedule=cosin is not known.*: constant, .* Did you mean 'cosine'\?",
    "--dataset=digit": r"--dataset=digit is not known.*: digits, .* Did you mean 'digits'\?",
    "--unlabeled_dataset=cifar": r"--unlabeled_dataset=cifar is not known.*: digits, .* Did you mean 'cifar1",
    "--strong_policy=fixmatsh": r"--strong_policy=fixmatsh is not known.*: fixmatch, .* Did you mean 'fixmatch'\?",
    "--unlabeled_ramp=linaer": r"--unlabeled_ramp=linaer is not known.*: constant, .* Did you mean 'linear'\?",
    "--best_metric=acc": r"--best_metric=acc is not known. Expected one of: accuracy, balanced_accuracy, loss",
    "--dataset=digits:test": r"digits takes nothing after a colon. Expected --dataset=digits\.",
    "digits": r"Unexpected argument 'digits'. Expected flags only, written as --name=value",
}
NO_EFFECT = {
    "--temperature=0.3": r"--temperature is not a setting of --algorithm=fixmatch\. It uses: --threshold\.",
    "--filters=3": r"--filters is not a setting of --model=mlp\. It uses: --activation, .*--hidden_units",
    "--beta_1=0.9": r"--beta_1 is not a setting of --optimizer=sgd\. It uses: .*--momentum",
    "--decay_rate=0.9": r"--decay_rate is not a setting of --schedule=cosine_7_16\. It uses: none of its own\.",
    "--num_train=9": r"--num_train is not a setting of --dataset=digits\. It uses: none of its own\.",
    "--algorithm=supervised --unlabeled_ratio=3": r"--unlabeled_ratio has no effect .* no unlabeled .* left out\.",
    "--algorithm=pseudo_label --strong_layers=2": r"--strong_layers has no effect here: .* uses no strong view",
    "--unlabeled_ramp_steps=4": r"--unlabeled_ramp_steps has no effect here: --unlabeled_ramp=constant does not grow",
    "--algorithm=supervised --meta=meta_pseudo_labels --unlabeled_weight=2": (
        r"--unlabeled_weight has no effect here: --algorithm=supervised has no unlabeled loss of its own"
    ),
    "--tpu=local": r"--tpu has no effect here: --distribution is not tpu",
}
NUMBERS = {
    "--batch_size=0": r"--batch_size=0 is out of range. Expected at least 1: Labeled examples per step",
    "--batch_size=-3": r"--batch_size=-3 is out of range. Expected at least 1",
    "--steps=0": r"--steps=0 is out of range. Expected at least 1: Training steps",
    "--steps=-1": r"--steps=-1 is out of range. Expected at least 1",
    "--eval_steps=0": r"--eval_steps=0 is out of range. Expected at least 1",
    "--threshold=1.5": r"--threshold=1.5 is out of range. Expected at least 0 and at most 1",
    "--learning_rate=-1": r"--learning_rate=-1.0 is out of range. Expected at least 0",
    "--learning_rate=nan": r"--learning_rate=nan is out of range. Expected at least 0",
    "--ema_decay=1": r"--ema_decay=1.0 is out of range. Expected at least 0 and less than 1",
    "--momentum=1": r"--momentum=1.0 is out of range. Expected at least 0 and less than 1",
    "--seed=-1": r"--seed=-1 is out of range. Expected at least 0 and at most 4294967295: Of initial weights",
    "--split_seed=4294967296": r"--split_seed=4294967296 is out of range. Expected .* at most 4294967295",
    "--hidden_units=a": r"--hidden_units=a is not a list of int values. Expected for example --hidden_units=100,100",
    "--hidden_units=8,0": r"--hidden_units=0 is out of range. Expected at least 1",
    "--strong_layers=100": r"--strong_layers=100 is out of range. Expected at least 0 and at most 16",
    "--strong_magnitude=31": r"--strong_magnitude=31 is out of range. Expected 0 to 30",
    "--channels=2": r"--channels=2 is not possible. Expected 1 \(grey\), 3 \(color\)",
    "--warmup_steps=12": r"--warmup_steps=12 does not end before --steps=12. Expected fewer",
    "--image_size=1": r"The images are 1 x 1 pixels. Expected at least 2 x 2: choose a larger --image_size",
}
COUNTS = {
    "--num_labeled=1300": r"--num_labeled=1300 asks for more .* than there are. Expected at most 1200.*Lower it",
    "--num_labeled=1100": r"--num_labeled=1100 asks for 110 .* of each .* has only 105. Expected at most 1059",
    "--num_labeled=5": r"--num_labeled=5 gives some of the 10 classes no label at all. Expected at least 10",
    "--num_validation=1190": r"--num_validation=1190 asks for more .* the 1180 labeled ones that are left.*Lower it",
    "--batch_size=1201": r"--batch_size=1201 is larger than the set, which has 1200 .* Expected at most 1200",
    "--batch_size=300": r"--unlabeled_ratio is 300 x 7 = 2100, larger than .* 1200 unlabeled .*: lower",
    "--algorithm=supervised --mixup=0.5 --batch_size=7": r"--mixup pairs .* each 7\. Expected an even number",
}
CASES = NAMES | NO_EFFECT | NUMBERS | COUNTS


@pytest.mark.parametrize("given", CASES)
def test_mistake_is_explained_before_the_first_step(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_training(monkeypatch)
    message = error_of([*GOOD, f"--workdir={tmp_path / 'run'}", *given.split(" ")])
    assert re.search(CASES[given], message), message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--agorithm=uda", r"Unknown command line flag 'agorithm'. Did you mean: algorithm"),
        ("--steps=many", r"flag --steps=many: invalid literal"),
        ("--download=perhaps", r"flag --download=perhaps: .*Non-boolean"),
        ("--flagfile=nowhere.flags", r"Unable to open flagfile: .*nowhere.flags"),
    ],
)
def test_what_absl_cannot_parse_is_explained(given: str, expected: str) -> None:
    assert re.search(rf"^error: {expected}", error_of([given]))


@pytest.mark.parametrize("written", ["--flagfile={}", "-flagfile={}", "--flagfile {}"])
def test_flagfile_behind_other_flags_is_refused(written: str) -> None:
    message = error_of(["--steps=3", *written.format(QUICKSTART).split(" ")])
    assert re.search(r"^error: -{1,2}flagfile.* stands behind --steps=3.* Put --flagfile first", message)


def test_flags_behind_a_flagfile_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_training(monkeypatch)
    with pytest.raises(ReachedTraining):
        run_here("train", [f"--flagfile={QUICKSTART}", *GOOD, f"--workdir={tmp_path}"])
    assert "--steps=12\n" in Workdir(tmp_path).config.read_text()


def test_workdir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = error_of([*GOOD, f"--workdir={tmp_path / 'file'}"])
    assert re.search(r"--workdir=.*/file cannot be made or written: File exists. Expected a folder", message)


@pytest.mark.parametrize("folder", ["/proc/self", "/proc/new"])  # where not even root can make files
def test_workdir_that_cannot_be_written_is_refused(folder: str) -> None:
    message = error_of([*GOOD, f"--workdir={folder}"])
    assert re.search(rf"--workdir={folder} cannot be made or written: .*choose another --workdir", message)


def test_workdir_of_another_configuration_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_training(monkeypatch)
    given = [*GOOD, f"--workdir={tmp_path}"]
    with pytest.raises(ReachedTraining):
        run_here("train", given)
    Checkpoints(tmp_path / "checkpoints", {"run": [tf.Variable(1)]}).save(4)
    message = error_of([*given, "--learning_rate=0.5"])
    assert re.search(r"--workdir=.* --learning_rate=0.03, .* --learning_rate=0.5\. Choose another --workdir", message)


def test_mistake_can_be_mended_in_the_same_workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_training(monkeypatch)
    given = [*GOOD, f"--workdir={tmp_path}"]
    error_of([*given, "--num_labeled=5"])
    error_of([*given, "--num_labeled=40", f"--init_from={tmp_path / 'nowhere'}"])
    with pytest.raises(ReachedTraining):
        run_here("train", given)
    assert "--num_labeled=20\n" in Workdir(tmp_path).config.read_text()


def test_real_command_ends_with_status_1_and_one_line(tmp_path: Path) -> None:
    commands = ("--algorithm=fixmach", "--num_labeled=5")
    processes: dict[str, subprocess.Popen[str]] = {
        given: start("train", [*GOOD, given], folder=tmp_path) for given in commands
    }
    for given, process in processes.items():
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 1, errors
        assert len(re.findall("^error: ", errors, flags=re.MULTILINE)) == 1
        assert re.search(f"^error: {CASES[given]}", errors.splitlines()[-1])
        assert "Traceback" not in errors
        assert output == ""
