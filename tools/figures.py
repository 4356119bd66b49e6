"""Learned weights on points of the plane (arXiv:2007.01293, section 4.1): the figure, and what it is worth over seeds.

    python -m tools.figures --output=runs/figures
    python -m tools.figures --seeds=0..19 --write_headers

The first draws weights and decision boundaries after some steps, for linearly separable points, circles and moons,
into `toy_weights.png`. The second trains every method with every seed, one after the other in this process, and
compares them: accuracies go to the `measured.json` beside the flagfiles, and what is about pairs of runs and about
weights to `figures.json` there. The same command again goes on where it was stopped.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from metassl_tf import flag_definitions
from metassl_tf.errors import UserError
from tools import toy_comparison, toy_figure, toys
from tools.comparisons import choose, parse_seeds
from tools.toy_comparison import DATASETS, METHODS, OURS, SUPERVISED, flagfile

NAME = "toy_weights.png"

_OUTPUT = flags.DEFINE_string("output", None, f"Folder to draw {NAME} in; it is made where there is none.")
_SEEDS = flags.DEFINE_list("seeds", [], "Seeds or ranges, such as 0..19, to compare the methods with.")
_ONLY = flags.DEFINE_list("only", [], f"Sets of points, of {', '.join(DATASETS)}; default: all.")
_RUNS_DIR = flags.DEFINE_string("runs_dir", "runs/figures", "Folder of what was measured, a file for each run.")
_WRITE_HEADERS = flags.DEFINE_bool("write_headers", False, "Bring `# Measured:` in the flagfiles up to date.")
flags.declare_key_flag("seed")


def draw(datasets: Sequence[str], seed: int, folder: Path) -> Path:
    """Trains what the figure shows and draws it.

    Args:
      datasets: its rows.
      seed: `--seed` and `--split_seed` of its runs.
      folder: where to; it is made where there is none.

    Returns:
      The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(dataset, seed) for dataset in tqdm(datasets, desc="figure", unit="set", disable=None)]
    path = folder / NAME
    toy_figure.draw(rows, path)
    return path


def _row(dataset: str, seed: int) -> toy_figure.Row:
    supervised = toys.build(flagfile(dataset, SUPERVISED), seed)
    grid = toy_figure.grid_of(np.concatenate([supervised.dataset.train.inputs, supervised.dataset.test.inputs]))
    margins, accuracies = {}, {}
    for step in toys.train(supervised, toy_comparison.STEPS):
        margins[step] = grid.shaped(toys.margin(supervised, grid.points))
        accuracies[step] = toys.accuracy_of(supervised)
    ours = toys.build(flagfile(dataset, OURS), seed)
    panels = [
        toy_figure.Panel(
            step=step,
            weight=toys.weights_of(ours),
            ours=grid.shaped(toys.margin(ours, grid.points)),
            supervised=margins[step],
            accuracies=(toys.accuracy_of(ours), accuracies[step]),
        )
        for step in toys.train(ours, toy_comparison.STEPS)
    ]
    return toy_figure.Row(
        name=dataset,
        unlabeled=ours.unlabeled.inputs,
        labeled=ours.labeled.inputs,
        grid=grid,
        truth=grid.shaped(toys.true_margin(ours, grid.points)),
        panels=panels,
    )


def main() -> None:
    """Runs the command line."""
    flag_definitions.given({"seed"}, why="the figure")
    seeds = parse_seeds(_SEEDS.value)
    datasets = choose(_ONLY.value, DATASETS, flag="only", what="a set of points")
    if not _OUTPUT.value and not seeds and not _WRITE_HEADERS.value:
        raise UserError("Nothing to do. Expected --output=DIR for the figure, --seeds=0..19 for the numbers, or both.")
    if flags.FLAGS["seed"].present and not _OUTPUT.value:
        raise UserError("--seed has no effect without --output: it is that of the figure. Expected --seeds.")
    if _OUTPUT.value:
        print(draw(datasets, flags.FLAGS["seed"].value, Path(_OUTPUT.value)))
    if seeds:
        print(toy_comparison.table(toy_comparison.compare(datasets, seeds, Path(_RUNS_DIR.value))), end="")
    if _WRITE_HEADERS.value:
        for dataset in datasets:
            for method in METHODS:
                flagfile(dataset, method).write_header()


if __name__ == "__main__":
    flag_definitions.run_binary(main)
