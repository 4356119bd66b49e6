"""Learned weights on points of the plane (arXiv:2007.01293, section 4.1): the figure, and what it is worth over seeds.

    python -m tools.figures --output=runs/figures
    python -m tools.figures --seeds=0..19 --write_headers

The first draws the decision boundary and the weights after some steps, for linearly separable points, circles and
moons, into `toy_weights.png`. The second trains every method with every seed, one after the other in this process, and
compares them: accuracies go to the `measured.json` beside the flagfiles, and what is about pairs of runs and about the
weights to `figures.json` there. The same command again goes on where it was stopped.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from metassl_tf import flag_definitions
from metassl_tf.engine.workdir import write_atomically
from metassl_tf.errors import UserError
from tools import toy_figure, toys
from tools.comparisons import better_of, choose, differences, parse_seeds, summary, with_spread
from tools.measurements import Flagfile, Measurement

DATASETS = ("linear", "circles", "two_moons")
METHODS = {
    "weights_10": "learned weights",
    "weights_pseudo_label_10": "pseudo labels",
    "weights_supervised_10": "supervised",
    "weights_supervised_40": "supervised, 30 validation points as well",
}
"""Flagfile -> what it is; the first is compared with the others."""
OURS, SUPERVISED = "weights_10", "weights_supervised_10"
STEPS = (1, 10, 30, 100, 300)
"""Where a run is looked at, beside its last step."""

_OUTPUT = flags.DEFINE_string("output", None, "Folder for the figure; it is made where there is none.")
_SEEDS = flags.DEFINE_list("seeds", [], "Seeds to compare the methods over, such as 0..19; none by default.")
_ONLY = flags.DEFINE_list("only", [], f"Sets of points, of {', '.join(DATASETS)}; default: all.")
_RUNS_DIR = flags.DEFINE_string("runs_dir", "runs/figures", "Folder of what was measured, a file for each run.")
_WRITE_HEADERS = flags.DEFINE_bool("write_headers", False, "Bring `# Measured:` in the flagfiles up to date.")
flags.declare_key_flag("seed")


def _flagfile(dataset: str, method: str) -> Flagfile:
    return Flagfile(Path("flags") / dataset / f"{method}.flags")


def _draw(datasets: Sequence[str], seed: int, folder: Path) -> Path:
    rows = [_row(dataset, seed) for dataset in tqdm(datasets, desc="figure", unit="set", disable=None)]
    path = folder / "toy_weights.png"
    toy_figure.draw(rows, path)
    return path


def _row(dataset: str, seed: int) -> toy_figure.Row:
    """Trains with learned weights and without unlabeled points, and looks at both on the way."""
    looks: dict[str, list[tuple[int, Any]]] = {}
    for method in (OURS, SUPERVISED):
        experiment = toys.build(_flagfile(dataset, method), seed)
        grid = toy_figure.grid_of(np.concatenate([experiment.dataset.train.inputs, experiment.dataset.test.inputs]))
        table = experiment.weighting and experiment.weighting.table
        found = looks.setdefault(method, [])

        def look(step: int) -> None:
            weight = table.columns()["weight"].numpy() if table else None  # noqa: B023  (called within the loop)
            margin = grid.shaped(toys.margin(experiment, grid.points))  # noqa: B023
            found.append((step, (weight, margin, toys.accuracy_of(experiment))))  # noqa: B023

        toys.train(experiment, STEPS, look)
    return experiment, looks
