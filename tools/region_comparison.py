"""How often Meta Pseudo Labels, supervised learning, pseudo labels and a Laplacian SVM separate two moons."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from metassl_tf import flag_definitions
from metassl_tf.data.examples import Examples
from metassl_tf.data.splits import SplitExamples
from metassl_tf.engine.load import load_examples
from tools import toy_comparison, toys
from tools.comparisons import with_spread
from tools.laplacian_svm import LaplacianSVM, Margin
from tools.measurements import Flagfile, Measurement
from tools.outputs import write_json
from tools.toy_comparison import table_head, table_line

DATASET = "two_moons"
OURS = "thesis_mpl_6"
METHODS = {
    "thesis_supervised_6": "supervised, thesis",
    "thesis_pseudo_label_6": "pseudo labels, thesis",
    OURS: "Meta Pseudo Labels, thesis",
    "supervised_6": "supervised",
    "pseudo_label_6": "pseudo labels",
    "mpl_6": "Meta Pseudo Labels",
    "mpl_without_feedback_6": "the same without feedback",
    "uda_6": "UDA, tuned",
}
"""Stem of a flagfile -> what it is: three methods as in the thesis, the same three with settings under which the last
of them separates the moons, and controls of it."""
LAPLACIAN_SVM = "laplacian_svm"
NAMES = {**METHODS, LAPLACIAN_SVM: "Laplacian SVM"}
PICTURE = "two_moons_regions.png"
SUCCESS = 0.99
"""A run has separated the moons if more than this share of the test points is right. The thesis does not say when it
counts one. With noise of 0.1 the moons hardly touch: a boundary between them errs in a few of the 1,000 test points at
most, a straight one in more than a hundred."""


def flagfile(method: str) -> Flagfile:
    """The flagfile of a method of `METHODS`."""
    return toy_comparison.flagfile(DATASET, method)


def examples_of(seed: int) -> SplitExamples:
    """The points of a run: those of every method with this seed as `--split_seed`."""
    return load_examples(flag_definitions.parse([f"--flagfile={flagfile(OURS).path}", f"--split_seed={seed}"])).examples


def fit_laplacian_svm(examples: SplitExamples) -> Margin:
    """Fits the reference to a run's labeled and unlabeled points."""
    labeled = examples.labeled
    return LaplacianSVM().fit(labeled.inputs, 2 * labeled.labels - 1, examples.unlabeled.inputs)


def accuracy_of(margin: Margin, test: Examples) -> float:
    """Share of the points that a margin, which is above 0 for class 1, puts on their side."""
    return float(np.mean((margin(test.inputs) > 0) == test.labels))


def _stored() -> Path:
    return flagfile(OURS).path.with_name("regions.json")


def sections() -> list[str]:
    """What a page of results says of the comparison that is stored, Markdown; nothing before there is one."""
    path = _stored()
    if not path.exists():
        return []
    picture = f"![What each method decides]({path.with_name(PICTURE).as_posix()})"
    return [f"## Two moons with six labels\n\n{table(json.loads(path.read_text()))}\n{picture}\n"]


def network(experiment: Flagfile, seed: int, runs_dir: Path) -> Path:
    """The network of a run, as `toys.save` writes it; trained where that has not been done.

    Args:
      experiment: on points of the plane. Where its header names a teacher, it learns from that one's network of the
        same seed.
      seed: `--seed` and `--split_seed`.
      runs_dir: folder of what each run leaves: what it measured, and beside that its network.
    """
    path = _network_path(experiment, seed, runs_dir)
    if not path.exists():
        _train(experiment, seed, runs_dir)
    return path


def measured(experiment: Flagfile, seed: int, runs_dir: Path) -> Measurement:
    """What a run measured, trained where that has not been done; see `network`."""
    path = toy_comparison.stored_at(experiment, seed, runs_dir)
    if not path.exists():
        _train(experiment, seed, runs_dir)
    return Measurement(**json.loads(path.read_text())["measurement"])


def _network_path(experiment: Flagfile, seed: int, runs_dir: Path) -> Path:
    return toy_comparison.stored_at(experiment, seed, runs_dir).with_suffix(".keras")


def _train(experiment: Flagfile, seed: int, runs_dir: Path) -> None:
    other = experiment.other("Teacher")
    teacher = network(other, seed, runs_dir) if other else None
    path = toy_comparison.stored_at(experiment, seed, runs_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = toys.measure(experiment, seed, (), teacher=teacher, network=_network_path(experiment, seed, runs_dir))
    if not path.exists():  # one that lacks its network alone has been recorded as it was measured
        write_json(path, found)


def compare(seeds: Sequence[int], runs_dir: Path, *, missing: bool = False) -> dict[str, Any]:
    """Trains every method with every seed, where that has not been done, and stores what it says.

    The Laplacian SVM takes less than a second and is fitted again each time.

    Args:
      seeds: each is `--seed` and `--split_seed`.
      runs_dir: folder of what each run leaves; see `network` and `measured`.
      missing: take what is recorded beside the flagfiles as it is, wherever it was measured.

    Returns:
      What `regions.json` holds; see `summarize`.
    """
    accuracy: dict[str, dict[int, float]] = {method: {} for method in NAMES}
    for seed in tqdm(seeds, desc="regions", unit="seed", disable=None):
        for method in METHODS:
            own = flagfile(method)
            recorded = next((run for run in own.measurements() if run.seed == seed), None) if missing else None
            if recorded is None:
                own.record(recorded := measured(own, seed, runs_dir))
            accuracy[method][seed] = recorded.test_accuracy
        examples = examples_of(seed)
        accuracy[LAPLACIAN_SVM][seed] = accuracy_of(fit_laplacian_svm(examples), examples.test)
    found = summarize(accuracy)
    write_json(_stored(), found)
    return found


def summarize(accuracy: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
    """What `regions.json` holds.

    Args:
      accuracy: method of `NAMES` -> seed -> test accuracy.

    Returns:
      `seeds`; `flags_sha256` of the methods that are trained and the settings of the one that is not;
      `success_above`, which is `SUCCESS`; of each method in how many seeds that was reached (`successes`), and its
      `test_accuracies` in the order of the seeds.
    """
    return {
        "seeds": list(accuracy[OURS]),
        "flags_sha256": {method: flagfile(method).digest() for method in METHODS},
        LAPLACIAN_SVM: dataclasses.asdict(LaplacianSVM()),
        "success_above": SUCCESS,
        "successes": {method: sum(value > SUCCESS for value in runs.values()) for method, runs in accuracy.items()},
        "test_accuracies": {method: list(runs.values()) for method, runs in accuracy.items()},
    }


def table(found: Mapping[str, Any]) -> str:
    """Writes a Markdown table of what `compare` returned."""
    count = len(found["seeds"])
    lines = [
        f"A run succeeds if more than {100.0 * found['success_above']:g} % of the test points are right. Test accuracy "
        "in %, mean ± sample standard deviation over seeds. What the thesis compares stands first with its settings, "
        "then with settings that separate the moons.",
        "",
        *table_head(["Method", "success rate", "successes", "test accuracy"]),
    ]
    for method, name in NAMES.items():
        successes = found["successes"][method]
        accuracy = with_spread([100.0 * value for value in found["test_accuracies"][method]])
        lines.append(table_line([name, f"{100.0 * successes / count:.0f} %", f"{successes} of {count}", accuracy]))
    return "\n".join(lines) + "\n"
