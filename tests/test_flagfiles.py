"""Every flagfile parses, survives validation and says what it should; its measured numbers are those of the data."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metassl_tf import flag_definitions
from metassl_tf.augment.policies import find_policy
from metassl_tf.config import Config
from metassl_tf.flagfile import unused
from metassl_tf.meta.meta_pseudo_labels import MetaPseudoLabels
from metassl_tf.models.build import build_model
from tools import toy_comparison
from tools.comparisons import differences, summary
from tools.measurements import FIELDS, Flagfile

ROOT = Path(__file__).parent.parent
FLAGFILES = {flagfile.name: flagfile for flagfile in map(Flagfile, sorted((ROOT / "flags").glob("*/*.flags")))}
QUICKSTART = "digits/quickstart"
ALGORITHMS = ("supervised", "pseudo_label", "uda", "fixmatch")
LABELS = {"cifar10": (40, 250, 500, 1000, 2000, 4000), "svhn": (250, 500, 1000, 2000, 4000)}
POINTS = toy_comparison.DATASETS
SHAPES = {**dict.fromkeys(POINTS, (2,)), "digits": (8, 8, 1)}
WITHOUT_FILES = ("digits", *POINTS)


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links and commands start from the root of the project."""
    monkeypatch.chdir(ROOT)


def config_of(name: str) -> Config:
    return flag_definitions.parse([f"--flagfile={FLAGFILES[name].path}"])


each = pytest.mark.parametrize("name", FLAGFILES)
each_with_header = pytest.mark.parametrize("name", [name for name in FLAGFILES if name != QUICKSTART])


@each
def test_parses_and_survives_validation(name: str) -> None:
    config = config_of(name)
    assert config.train.warmup_steps < config.train.steps
    if "strong_policy" not in unused(config) and config.augment.strong_policy != "auto":
        find_policy(config.augment.strong_policy)


def test_models_are_those_of_the_papers() -> None:
    models = {}
    for name in FLAGFILES:
        config = config_of(name)
        models[name] = (config.train.model, config.model, SHAPES.get(name.split("/")[0], (32, 32, 3)))
    counts = {model: count_trainable(*model) for model in set(models.values())}
    sizes = {name: counts[model] for name, model in models.items()}
    # What the released networks count; see the table in metassl_tf/models/wide_resnet.py.
    for dataset in LABELS:
        assert {sizes[f"{dataset}/{name}_1000"] for name in ("supervised", "pseudo_label", "fixmatch")} == {1_469_642}
        assert sizes[f"{dataset}/uda_1000"] == 1_467_610
    assert {size for name, size in sizes.items() if "/thesis_" in name and "moons" not in name} == {1_472_170}
    assert sizes["two_moons/thesis_supervised_6"] == (2 * 8 + 8) + (8 * 8 + 8) + (8 * 2 + 2)


def count_trainable(model: str, settings: Any, shape: tuple[int, ...]) -> int:
    network = build_model(model, settings, shape, 2 if len(shape) == 1 else 10)
    return sum(variable.value.shape.num_elements() for variable in network.trainable_variables)


@each
def test_stands_alone(name: str) -> None:
    """Complete in itself, each flag once, nothing of one machine: it works from any folder and when copied."""
    flags = FLAGFILES[name].flags()
    names = [flag.split("=")[0] for flag in flags]
    assert [flag for flag, count in Counter(names).items() if count > 1] == []
    assert all(flag.startswith("--") for flag in flags)
    own_affair = {"--flagfile", "--workdir", "--data_dir", "--seed", "--split_seed", "--download", "--init_from"}
    assert own_affair.isdisjoint(names)
    assert [flag for flag in flags if "=/" in flag or "=~" in flag] == []
    assert all(len(line) <= 120 for line in FLAGFILES[name].path.read_text().splitlines())


@each_with_header
def test_header_is_complete(name: str) -> None:
    header = FLAGFILES[name].header()
    assert set(FIELDS) <= set(header) <= {*FIELDS, "Data", "Departs", "Compared", "Teacher", "Before"}
    train, module, program, flagfile, *rest = header["Command"].split()
    assert [train, module, program] == ["python", "-m", "metassl_tf.train"]
    assert flagfile == f"--flagfile=flags/{name}.flags"
    assert rest in ([], ["--data_dir=DIR"])
    assert bool(rest) == (config_of(name).data.dataset not in WITHOUT_FILES)
    assert FLAGFILES[name].expected() or header["Expected"].startswith("none: ")
    others = {
        field: f"{name.partition('/')[0]}/{header[field]}" for field in ("Compared", "Teacher") if field in header
    }
    assert set(others.values()) <= set(FLAGFILES)
    assert ("Teacher" in header) == ("Before" in header)
    config = config_of(name)
    taught = config.meta_rule(MetaPseudoLabels)
    sources = (config.data.stored_labels, config.data.given_labels, taught.init_teacher_from if taught else "")
    assert ("Teacher" in header) == any(source.startswith("runs/") for source in sources)


@each_with_header
def test_copies_in_another_order_are_mentioned(name: str) -> None:
    """Where the first examples are labeled, whoever has another order than the paper should know."""
    by_order = config_of(name).data.split_protocol != "stratified"
    assert by_order == ("TFDS" in FLAGFILES[name].header().get("Data", ""))


@each_with_header
def test_measured_line_is_that_of_the_data(name: str) -> None:
    assert FLAGFILES[name].with_measured() == FLAGFILES[name].path.read_text(), (
        "Run `python -m tools.paper_table --print_only --runs=FLAGFILE --write_headers`."
    )


def test_data_belong_to_present_flagfiles() -> None:
    for path in sorted((ROOT / "flags").glob("*/measured.json")):
        for stem, entry in json.loads(path.read_text()).items():
            flagfile = FLAGFILES[f"{path.parent.name}/{stem}"]
            assert entry["flags_sha256"] == flagfile.digest(), f"{stem} changed since it was measured: measure again."


def test_every_experiment_has_its_flagfile() -> None:
    papers = {f"{dataset}/{algorithm}_{n}" for dataset in LABELS for n in LABELS[dataset] for algorithm in ALGORITHMS}
    small = ("digits/{}_40", "two_moons/{}_10", "cifar10/cpu_{}_250")
    quick = {pattern.format(algorithm) for pattern in small for algorithm in ALGORITHMS}
    assert papers | quick | {"image_folder/fixmatch", "image_folder/weights", QUICKSTART} <= set(FLAGFILES)


@pytest.mark.parametrize("dataset", LABELS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_files_of_one_recipe_differ_in_the_number_of_labels_alone(dataset: str, algorithm: str) -> None:
    """A recipe is written out for each number of labels, so that a file can be read alone; here they are compared."""
    recipes = {}
    for number in LABELS[dataset]:
        values = config_of(f"{dataset}/{algorithm}_{number}").values()
        assert values.pop("num_labeled") == number
        if (algorithm, number) == ("uda", 40):  # the first 40 images do not have every class
            assert values.pop("split_protocol") == "stratified"
            values["split_protocol"] = "first"
        recipes[number] = values
    assert all(recipe == recipes[1000] for recipe in recipes.values())


def test_datasets_share_the_recipes() -> None:
    for algorithm in ALGORITHMS:
        cifar, svhn = (config_of(f"{dataset}/{algorithm}_1000").values() for dataset in LABELS)
        different = {name for name in cifar if cifar[name] != svhn[name]}
        assert different - {"unlabeled_weight"} == {"dataset", "weak_flip"}


def test_quickstart_is_fixmatch_of_the_table() -> None:
    assert config_of(QUICKSTART) == config_of("digits/fixmatch_40")


def test_small_experiments_compare_algorithms_under_one_protocol() -> None:
    for pattern in ("digits/{}_40", "two_moons/{}_10", "cifar10/cpu_{}_250"):
        configs = [config_of(pattern.format(algorithm)) for algorithm in ALGORITHMS]
        for part in ("data", "model", "rule", "schedule", "source", "run"):
            assert len({json.dumps(shared_values(config, part)) for config in configs}) == 1, part
        assert len({(config.train.steps, config.train.batch_size) for config in configs}) == 1


def shared_values(config: Config, part: str) -> dict[str, str]:
    """A part of the config without what is about unlabeled examples."""
    values = vars(getattr(config, part))
    return {name: str(value) for name, value in values.items() if name != "labeled_in_unlabeled"}


def test_ramp_of_pseudo_labels_ends_at_two_fifths() -> None:
    for name in FLAGFILES:
        config = config_of(name)
        if config.train.algorithm == "pseudo_label" and config.train.unlabeled_ramp == "linear":
            assert config.train.unlabeled_ramp_steps == int(0.4 * config.train.steps), name


def test_thesis_leaves_41000_unlabeled_images_of_cifar10() -> None:
    """50,000 less the first 5,000 and the 4,000 labeled ones, in batches of equal size."""
    for algorithm in ("pseudo_label", "uda"):
        config = config_of(f"cifar10/thesis_{algorithm}_4000")
        assert config.data.split_protocol == "skip_5000_then_first"
        assert not config.data.labeled_in_unlabeled
        assert config.train.unlabeled_ratio == 1
        assert config.data.num_labeled == 4000


def test_points_share_the_recipes_of_learned_weights() -> None:
    for method in toy_comparison.METHODS:
        recipes = [config_of(f"{dataset}/{method}").values() for dataset in POINTS]
        for values in recipes:
            assert values.pop("dataset") in POINTS
            values.pop("noise")
        assert all(values == recipes[0] for values in recipes)


@pytest.mark.parametrize("dataset", POINTS)
def test_learned_weights_on_points_are_compared_under_one_protocol(dataset: str) -> None:
    """The same experiment without weights, without unlabeled points, and with the validation points as labels."""
    ours, pseudo_label, *supervised = (config_of(f"{dataset}/{method}") for method in toy_comparison.METHODS)
    assert (ours.data.num_labeled, ours.data.num_meta_validation) == (10, 30)
    assert pseudo_label == replace(ours, meta=(), train=replace(ours.train, meta=()))
    data = replace(ours.data, labeled_in_unlabeled=True)  # which has no effect here
    assert [config.data for config in supervised] == [data, replace(data, num_labeled=40, num_meta_validation=0)]
    for config in supervised:
        assert all(
            getattr(config, part) == getattr(ours, part) for part in ("model", "rule", "schedule", "source", "run")
        )
        assert (config.train.steps, config.train.learning_rate) == (ours.train.steps, ours.train.learning_rate)


@pytest.mark.parametrize("dataset", POINTS)
def test_comparison_on_points_is_that_of_the_measured_runs(dataset: str) -> None:
    path = ROOT / "flags" / dataset / "figures.json"
    if not path.exists():
        pytest.skip("not compared yet")
    stored = json.loads(path.read_text())
    accuracy = {}
    for method in toy_comparison.METHODS:
        flagfile = FLAGFILES[f"{dataset}/{method}"]
        assert stored["flags_sha256"][method] == flagfile.digest(), "Run `python -m tools.figures --seeds=0..19`."
        found = {run.seed: run.test_accuracy for run in flagfile.measurements()}
        accuracy[method] = {seed: found[seed] for seed in stored["seeds"]}
        assert stored["test_accuracy"][method] == summary(list(accuracy[method].values()))
    for method, value in stored["differences"].items():
        ahead = differences(accuracy[toy_comparison.OURS], accuracy[method])
        assert value == {**summary(ahead), "positive": sum(difference > 0 for difference in ahead)}
