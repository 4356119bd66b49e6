"""What the README says can be typed, exists and does what it says."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf import flag_definitions
from metassl_tf.algorithms import ALGORITHMS
from metassl_tf.models import MODELS
from tests.command_line import ROOT, run_here
from tools.measurements import Flagfile, measured_lines

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
SHELL = [block for language, block in BLOCKS if language in ("sh", "bash", "shell")]
# Lines that end in a backslash go on.
COMMANDS = [line for block in SHELL for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)


def python_commands() -> list[list[str]]:
    """Program and arguments of every `python -m metassl_tf.PROGRAM ...`, in blocks and in the running text."""
    inline = re.findall(r"`(python -m metassl_tf[^`]*)`", TEXT)
    found = [words(command) for command in (*COMMANDS, *inline) if "-m metassl_tf." in command]
    return [command[command.index("-m") + 1 :] for command in found]


def flags_of(program: str) -> set[str]:
    """Names of the flags that a program defines itself."""
    source = (ROOT / "metassl_tf" / f"{program}.py").read_text()
    return set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title!r}"
    return found.group(1)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_there_are_two_commands() -> None:
    block = re.search(r"```sh\n(.*?)```", section("Two commands"), flags=re.DOTALL)
    assert block
    assert [words(line) for line in block.group(1).splitlines()] == [["make", "quickstart"], ["make", "test"]]


def test_every_make_target_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)(?=`|\s+#|\s*$|\s+&&)", TEXT, flags=re.MULTILINE))
    assert {"quickstart", "test", "venv", "check"} <= named <= make_targets()


@pytest.mark.parametrize("command", python_commands(), ids=" ".join)
def test_every_command_is_understood(command: list[str]) -> None:
    program = command[0].removeprefix("metassl_tf.")
    assert (ROOT / "metassl_tf" / f"{program}.py").is_file()
    own = flags_of(program) | {"help"}
    settings = [argument for argument in command[1:] if argument.lstrip("-").partition("=")[0] not in own]
    if program in ("train", "label"):
        flag_definitions.parse(rooted(settings))
    else:
        known = set(flag_definitions.parse([]).values())
        assert {argument.lstrip("-").partition("=")[0] for argument in settings} <= known


def test_every_flag_exists() -> None:
    # Flags of other programs, such as docker, stand in blocks.
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    values = flag_definitions.flags.FlagValues()
    flag_definitions.define(values)
    known = {*values, "help", "flagfile"}.union(
        *(flags_of(program) for program in ("train", "evaluate", "export", "label"))
    )
    named = set(re.findall(r"--(\w+)", prose))
    assert named
    assert named - known == set()


def test_numbers_in_the_text_are_those_measured() -> None:
    text = section(re.escape("Which of these labels are wrong?")) + section("Results")
    expected = {
        "digits/weights_flipped": ("AUROC of weight", "AUROC of agreement", "points to"),
        "digits/weights_flipped_paper": ("AUROC of weight",),
        "digits/weights_polluted": ("AUROC of weight",),
        "digits/weights_weak_teacher": ("AUROC of weight", "AUROC of confidence", "points to"),
        "circles/weights_10": ("(n = 20",),
        "circles/weights_pseudo_label_10": ("(n = 20",),
        "circles/weights_supervised_40": ("(n = 20",),
        "cifar10/cpu_fixmatch_250": ("(n = 3", "points to"),
    }
    for name, kinds in expected.items():
        flagfile = Flagfile(ROOT / f"flags/{name}.flags")
        lines = measured_lines(flagfile.measurements(), flagfile.comparisons())
        for kind in kinds:
            (number,) = [re.search(r"\d+\.\d+ ± \d+\.\d+", line)[0] for line in lines if kind in line]
            assert number in text.replace("\n", " "), f"{name}, {kind}: {number}"


def test_every_file_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", TEXT) if "://" not in link]
    paths = re.findall(r"`((?:flags|tools|metassl_tf|tests)/[\w./-]+)`", TEXT)
    assert links
    assert [path for path in (*links, *paths) if not (ROOT / path.partition("#")[0]).exists()] == []


def test_algorithms_and_models_are_those_of_the_tables() -> None:
    assert re.findall(r"^\| `(\w+)` \|", section("Algorithms"), flags=re.MULTILINE) == list(ALGORITHMS)
    assert {name for name in MODELS if f"`{name}`" not in section("Algorithms")} == set()


def rooted(given: list[str]) -> list[str]:
    """Arguments that find their flagfile from any folder."""
    return [argument.replace("--flagfile=", f"--flagfile={ROOT}/") for argument in given]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of the quickstart, cut to two steps."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    plan = subprocess.run(["make", "-n", "quickstart"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in plan.splitlines() if "-m metassl_tf.train" in line)
    given = words(line)[words(line).index("metassl_tf.train") + 1 :]
    assert "--workdir=runs/quickstart" in given
    workdir = tmp_path_factory.mktemp("quickstart")
    short = ["--steps=2", "--eval_steps=1", "--num_validation=50", f"--workdir={workdir}"]
    assert run_here("train", [*rooted(given), *short]) is None
    return workdir


def test_a_run_leaves_what_the_readme_lists(quickstart: Path) -> None:
    rows = re.findall(r"^\| (`.*?) \|", section("What a run leaves"), flags=re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert {"result.json", "report/index.html", "export/", "model.keras", "checkpoints/"} <= set(listed)
    for name in listed:
        assert (quickstart / name).is_dir() if name.endswith("/") else (quickstart / name).is_file(), name


def test_the_export_serves_what_the_readme_says(quickstart: Path) -> None:
    text = section("Serving")
    signatures = tf.saved_model.load(str(quickstart / "export")).signatures
    for name, argument in (("serving_default", "images"), ("serving_bytes", "encoded")):
        assert f"`{name}` takes" in re.sub(r"\s+", " ", text)
        assert f"`{argument}`" in text
        assert list(signatures[name].structured_input_signature[1]) == [argument]
        assert {output for output in signatures[name].structured_outputs if f"`{output}`" not in text} == set()
    assert '"signature_name": "serving_bytes", "inputs": {"encoded": ' in text


def photos(root: Path, counts: dict[str, int]) -> None:
    """Images of noise, so many in each folder."""
    random = np.random.default_rng(0)
    for folder, count in counts.items():
        (root / "photos" / folder).mkdir(parents=True)
        for number in range(count):
            encoded = tf.io.encode_jpeg(random.integers(0, 256, (9, 12, 3), np.uint8)).numpy()
            (root / "photos" / folder / f"{number}.jpg").write_bytes(encoded)


def commands_of(title: str) -> list[list[str]]:
    block = re.search(r"```sh\n(.*?)```", section(re.escape(title)), flags=re.DOTALL)
    assert block
    return [words(line) for line in block.group(1).splitlines()]


def test_commands_for_ones_own_images_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path, {"labeled/cat": 20, "labeled/dog": 20, "unlabeled/anything": 100, "test/cat": 2})
    commands = commands_of("Your own images in ten lines")
    assert [command[2] for command in commands] == ["metassl_tf.train", "metassl_tf.evaluate"]
    assert run_here("train", [*rooted(commands[0][3:]), "--steps=1"]) is None
    assert run_here("evaluate", commands[1][3:]) is None
    table = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(table) == 1 + 100
    assert "anything/0.jpg" in table[1]


def test_suspicious_labels_of_ones_own_images_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = {"labeled": 6, "weak": 40, "validation": 5}
    photos(tmp_path, {f"{part}/{name}": count for part, count in parts.items() for name in ("cat", "dog")})
    (command,) = commands_of("Which of these labels are wrong?")
    assert command[2] == "metassl_tf.train"
    assert run_here("train", [*rooted(command[3:]), "--steps=2", "--eval_steps=2"]) is None
    _, *rows = (tmp_path / "runs/suspicious/weights.csv").read_text().splitlines()
    assert len(rows) == 2 * parts["weak"]
    assert all("weak/" in row for row in rows)
