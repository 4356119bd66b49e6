"""Learned weights, pseudo labels and supervised learning on points of the plane, compared over seeds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tools import toys
from tools.comparisons import differences, summary
from tools.measurements import Flagfile, Measurement
from tools.outputs import write_json

DATASETS = ("linear", "circles", "two_moons")
OURS, PSEUDO_LABEL, SUPERVISED = "weights_10", "weights_pseudo_label_10", "weights_supervised_10"
METHODS = {
    OURS: "learned weights",
    PSEUDO_LABEL: "pseudo labels",
    SUPERVISED: "supervised",
    # What the validation points are worth as labels.
    "weights_supervised_40": "supervised, validation points as well",
}
"""Stem of a flagfile -> what it is."""
STEPS = (1, 10, 30, 100, 300)
"""Where a run is looked at, beside its last step."""

Results = dict[str, dict[int, dict[str, Any]]]


def flagfile(dataset: str, method: str) -> Flagfile:
    """The flagfile of a method for a set of points."""
    return Flagfile(Path("flags") / dataset / f"{method}.flags")


def compare(datasets: Sequence[str], seeds: Sequence[int], runs_dir: Path) -> dict[str, Any]:
    """Trains every method with every seed, where that has not been done, and stores what it says.

    Args:
      datasets: of `DATASETS`.
      seeds: each is `--seed` and `--split_seed`.
      runs_dir: folder of what each run measured, a file for each.

    Returns:
      Set of points -> what its `figures.json` holds; see `summarize`.
    """
    summaries = {}
    with tqdm(total=len(datasets) * len(METHODS) * len(seeds), unit="run", disable=None) as progress:
        for dataset in datasets:
            results: Results = {method: {} for method in METHODS}
            for seed in seeds:
                for method in METHODS:
                    progress.set_description(f"{dataset}/{method}, seed {seed}")
                    results[method][seed] = measured(flagfile(dataset, method), seed, STEPS, runs_dir)
                    progress.update()
            for method, runs in results.items():
                for run in runs.values():
                    flagfile(dataset, method).record(Measurement(**run["measurement"]))
            summaries[dataset] = summarize(dataset, results)
            write_json(Path("flags") / dataset / "figures.json", summaries[dataset])
    return summaries


def measured(experiment: Flagfile, seed: int, steps: Sequence[int], runs_dir: Path) -> dict[str, Any]:
    """Measures a run, where that has not been done; see `toys.measure`.

    Args:
      experiment: on points of the plane.
      seed: `--seed` and `--split_seed`.
      steps: where the weights are looked at, beside the last one.
      runs_dir: folder of what each run measured, a file for each.
    """
    path = stored_at(experiment, seed, runs_dir)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, toys.measure(experiment, seed, steps))
    stored: dict[str, Any] = json.loads(path.read_text())
    return stored


def stored_at(experiment: Flagfile, seed: int, runs_dir: Path) -> Path:
    """Where `measured` keeps a run: another file as soon as its flags, or those of its teacher, change."""
    return runs_dir / f"{experiment.name}-{experiment.digest()[:8]}" / f"seed_{seed}.json"


def summarize(dataset: str, results: Results) -> dict[str, Any]:
    """What `figures.json` holds of a set of points.

    Args:
      dataset: of `DATASETS`.
      results: method -> seed -> what `toys.measure` returned.

    Returns:
      `seeds`; `flags_sha256` and `test_accuracy` of each method; `differences`, test accuracy of learned weights less
      that of each other method with the same seed, and in how many of the seeds that is above 0 (`positive`);
      `weights`, for each step what `toys.down_weighted` says. Numbers are `mean`, `std` (divisor n - 1) and `n`.
    """
    accuracy = {
        method: {seed: run["measurement"]["test_accuracy"] for seed, run in runs.items()}
        for method, runs in results.items()
    }
    ahead = {method: differences(accuracy[OURS], accuracy[method]) for method in METHODS if method != OURS}
    looks: dict[int, list[dict[str, Any]]] = {}
    for run in results[OURS].values():
        for look in run["weights"]:
            looks.setdefault(look["step"], []).append(look)
    return {
        "seeds": list(results[OURS]),
        "flags_sha256": {method: flagfile(dataset, method).digest() for method in METHODS},
        "test_accuracy": {method: summary(list(values.values())) for method, values in accuracy.items()},
        "differences": {
            method: {**summary(values), "positive": sum(value > 0 for value in values)}
            for method, values in ahead.items()
        },
        "weights": {str(step): _means(found) for step, found in looks.items()},
    }


def _means(looks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = {name: [look[name] for look in looks if look[name] is not None] for name in looks[0] if name != "step"}
    return {name: summary(values) for name, values in columns.items() if values}


def table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Writes Markdown tables of what `compare` returned."""
    first = ["Test accuracy in %, mean ± sample standard deviation over seeds.", ""]
    first += table_head(["Points", "n", *METHODS.values()])
    second = ["", "Learned weights less another method with the same seed, in points of test accuracy.", ""]
    second += table_head(["Points", "less", "difference", "ahead in"])
    third = ["", f"What the lowest {toys.LOWEST:.0%} of the weights belong to, in %, beside all unlabeled points.", ""]
    third += table_head(
        ["Points", "step", "wrong pseudo label", "of all", "across the true boundary", "of all", "AUROC"]
    )
    for dataset, found in summaries.items():
        accuracies = [percent(found["test_accuracy"][method]) for method in METHODS]
        first.append(table_line([dataset, len(found["seeds"]), *accuracies]))
        for method, value in found["differences"].items():
            second.append(
                table_line([dataset, METHODS[method], percent(value), f"{value['positive']} of {value['n']}"])
            )
        for step, look in found["weights"].items():
            shares = [percent(look[f"{kind}_of_{of}"]) for kind in ("wrong", "astray") for of in ("lowest", "all")]
            auroc = _number(look["auroc"], 1.0, 3) if "auroc" in look else ""
            third.append(table_line([dataset, step, *shares, auroc]))
    return "\n".join([*first, *second, *third]) + "\n"


def table_head(names: Sequence[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [table_line(names), "|" + "---|" * len(names)]


def table_line(cells: Sequence[object]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def percent(value: Mapping[str, Any]) -> str:
    """Writes what `summary` says of shares: mean ± sample standard deviation, in percent."""
    return _number(value, 100.0, 2)


def _number(value: Mapping[str, Any], factor: float, decimals: int) -> str:
    spread = "" if value["std"] is None else f" ± {factor * value['std']:.{decimals}f}"
    return f"{factor * value['mean']:.{decimals}f}{spread}"
