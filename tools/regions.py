"""Meta Pseudo Labels on two moons (H. Pham's thesis, Section 5.3.1): decision regions, and how often they are right.

    python -m tools.regions --output=runs/regions
    python -m tools.regions --seeds=0..19 --write_headers

The first trains supervised learning, pseudo labels of what that has found, and Meta Pseudo Labels, fits a Laplacian
SVM, and draws what they decide into `two_moons_regions.png` (Figure 5.2). The second trains each with every seed, one
after the other in this process: accuracies go to `flags/two_moons/measured.json`, and how often each method separates
the moons to `regions.json` beside it. What was trained stays in `--runs_dir`: the same command again goes on where it
was stopped, and neither trains what the other has. With `--missing`, what `measured.json` has is not measured again.
"""

from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from metassl_tf import flag_definitions
from metassl_tf.errors import UserError
from tools import region_comparison, region_figure, toy_figure, toys
from tools.comparisons import parse_seeds
from tools.region_comparison import LAPLACIAN_SVM, METHODS, NAMES, PICTURE, flagfile
from tools.region_figure import Panel, Points

_OUTPUT = flags.DEFINE_string("output", None, f"Folder to draw {PICTURE} in; it is made where there is none.")
_SEEDS = flags.DEFINE_list("seeds", [], "Seeds or ranges, such as 0..19, to compare the methods with.")
_RUNS_DIR = flags.DEFINE_string("runs_dir", "runs/regions", "Folder of what each run measured, and of its network.")
_MISSING = flags.DEFINE_bool("missing", False, "Measure only what was not recorded before, in whatever folder.")
_WRITE_HEADERS = flags.DEFINE_bool("write_headers", False, "Bring `# Measured:` in the flagfiles up to date.")
flags.declare_key_flag("seed")


def draw(seed: int, folder: Path, runs_dir: Path) -> Path:
    """Trains what the figure shows, where that has not been done, and draws it.

    Args:
      seed: `--seed` and `--split_seed` of its runs.
      folder: where to; it is made where there is none.
      runs_dir: folder of what each run leaves; see `region_comparison.network`.

    Returns:
      The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    examples = region_comparison.examples_of(seed)
    labeled, unlabeled, test = examples.labeled, examples.unlabeled, examples.test
    grid = toy_figure.grid_of(np.concatenate([labeled.inputs, unlabeled.inputs, test.inputs]))
    margins = {LAPLACIAN_SVM: region_comparison.fit_laplacian_svm(examples)}
    for method in tqdm(METHODS, desc="figure", unit="run", disable=None):
        margins[method] = toys.stored_margin(region_comparison.network(flagfile(method), seed, runs_dir))
    panels = [
        Panel(name, grid.shaped(margins[method](grid.points)), region_comparison.accuracy_of(margins[method], test))
        for method, name in NAMES.items()
    ]
    path = folder / PICTURE
    region_figure.draw(panels, Points(unlabeled.inputs, labeled.inputs, labeled.labels), grid, path)
    return path


def main() -> None:
    """Runs the command line."""
    flag_definitions.given({"seed"}, why="the figure")
    seeds, runs_dir = parse_seeds(_SEEDS.value), Path(_RUNS_DIR.value)
    if not _OUTPUT.value and not seeds and not _WRITE_HEADERS.value:
        raise UserError("Nothing to do. Expected --output=DIR for the figure, --seeds=0..19 for the numbers, or both.")
    if flags.FLAGS["seed"].present and not _OUTPUT.value:
        raise UserError("--seed has no effect without --output: it is that of the figure. Expected --seeds.")
    if _MISSING.value and not seeds:
        raise UserError("--missing has no effect without --seeds, which are to be measured. Expected both.")
    if _OUTPUT.value:
        print(draw(flags.FLAGS["seed"].value, Path(_OUTPUT.value), runs_dir))
    if seeds:
        print(region_comparison.table(region_comparison.compare(seeds, runs_dir, missing=_MISSING.value)), end="")
    if _WRITE_HEADERS.value:
        for method in METHODS:
            flagfile(method).write_header()


if __name__ == "__main__":
    flag_definitions.run_binary(main)
