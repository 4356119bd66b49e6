"""`result.json`: what a finished run is worth, taken from its history."""

import importlib.metadata
import json
import platform
import resource
import statistics
import sys
from typing import Any

from metassl_tf import __version__
from metassl_tf.engine.history import Row
from metassl_tf.engine.learned_weights import LearnedWeights
from metassl_tf.engine.setup import Experiment

MEDIAN_OF = 20
SETS = ("labeled", "validation", "test")
"""What a network is measured on; of a teacher under `teacher_<name>`. Labeled examples tell how well it has learned."""
_PACKAGES = ("tensorflow", "keras", "keras-hub", "tf-models-official", "tensorflow-datasets", "numpy")


def best_row(rows: list[Row], metric: str) -> Row | None:
    """The evaluation whose averaged weights do best on validation, the earliest of equals; None without validation."""
    rows = [row for row in rows if "validation" in row]
    sign = -1 if metric == "loss" else 1
    return max(rows, key=lambda row: sign * row["validation"]["ema"][metric], default=None)


def summarize(
    rows: list[Row],
    experiment: Experiment,
    weights: LearnedWeights | None = None,
    fine_tuned: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds the content of `result.json`.

    Args:
      rows: the run's evaluations, the last one at the last step.
      experiment: the run.
      weights: the learned weights, where there are some.
      fine_tuned: metrics by set after fine-tuning, where there was such a phase.

    Returns:
      A dict of plain values; `test_accuracy` is that of the averaged weights at the last step, None without a test
      set. Metrics of sets that do not exist are missing.
    """
    last = rows[-1]
    test_rows = [row["test"] for row in rows[-MEDIAN_OF:] if "test" in row]
    config = experiment.config
    best = best_row(rows, config.run.best_metric)
    teacher = {name: last[f"teacher_{name}"] for name in SETS if f"teacher_{name}" in last}
    learned: dict[str, Any] = {"weights": last["weights"]} if "weights" in last else {}
    if weights:
        # Of the weight and, to compare with, of what the model's predictions say, for telling examples to be trusted.
        learned |= {
            "weight_auroc": weights.auroc,
            "confidence_auroc": weights.confidence_auroc,
            "agreement_auroc": weights.agreement_auroc,
        }
    return {
        "test_accuracy": last["test"]["ema"]["accuracy"] if "test" in last else None,
        "step": last["step"],
        "last": _sets(last),
        "best_on_validation": {"step": best["step"], **_sets(best)} if best else None,
        "median_of_last_20": {
            kind: {"test_accuracy": statistics.median(row[kind]["accuracy"] for row in test_rows)}
            for kind in ("raw", "ema")
            if test_rows
        },
        **({"teacher": teacher} if teacher else {}),
        **({"fine_tuned": fine_tuned} if fine_tuned else {}),
        **learned,
        "train": last["train"],
        "seconds": last["seconds"],
        "examples_per_second": last["examples_per_second"],
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "seed": config.run.seed,
        "split_hash": experiment.split.hash,
        "num_parameters": experiment.learner.model.count_params(),
        "num_examples": {
            name: len(getattr(experiment, name))
            for name in ("labeled", "unlabeled", "validation", "meta_validation", "test")
        },
        "classes": list(experiment.dataset.class_names),
        "versions": versions(),
        "config": config.values(),
    }


def _sets(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in SETS if name in row}


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of what it stands on."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"metassl_tf": __version__, "python": platform.python_version(), **found}


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def to_json(values: dict[str, Any]) -> bytes:
    """Writes plain values as indented JSON."""
    return (json.dumps(values, indent=2) + "\n").encode()
