"""Plots of ablations: what each variant reaches, and how it gets there over the steps."""

import statistics
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.ablation_data import Outcome, Results

_STYLE = {"font.size": 8.0, "axes.spines.right": False, "axes.spines.top": False, "axes.linewidth": 0.7}
_DOTS_PER_INCH = 130
_TITLE_WIDTH = 90  # characters
_BLUE, _GREY = "#2f6fd0", "#8a8f98"


def draw_variants(title: str, results: Results, path: Path) -> None:
    """Draws a line for each variant: every run a dot, and mean ± sample standard deviation.

    Args:
      title: of the plot.
      results: cases with their runs; those without runs are left out.
      path: PNG file to write.
    """
    measured = [(case.name, runs) for case, runs in results if runs]

    def draw(figure: Figure) -> None:
        panels = {"test accuracy, %": [[100.0 * run.test_accuracy for run in runs] for _, runs in measured]}
        aurocs = [[run.weight_auroc for run in runs if run.weight_auroc is not None] for _, runs in measured]
        if any(aurocs):
            panels["AUROC of the weights"] = aurocs
        places = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (name, columns) in zip(places, panels.items(), strict=True):
            _draw_spreads(axes, columns)
            axes.set_xlabel(name)
        places[0].set_yticks(range(len(measured)), [name for name, _ in measured])
        places[0].set_ylim(len(measured) - 0.5, -0.5)  # the first on top
        figure.suptitle(_lines(title), fontsize=9)

    _save(draw, path, width=7.0, height=1.1 + 0.26 * len(measured))


def _draw_spreads(axes: Axes, columns: Sequence[Sequence[float]]) -> None:
    for place, values in enumerate(columns):
        if values:
            axes.scatter(values, [place] * len(values), s=9, color=_GREY, linewidths=0)
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            axes.errorbar(statistics.fmean(values), place, xerr=spread, fmt="o", color=_BLUE, markersize=4, capsize=2)
    axes.grid(visible=True, axis="x", linewidth=0.4)


def draw_over_steps(title: str, results: Results, path: Path) -> None:
    """Draws mean test accuracy over the steps, a line for each variant, with a standard deviation to either side.

    Args:
      title: of the plot.
      results: cases with their runs; those without runs are left out.
      path: PNG file to write.
    """
    measured = [(case.name, runs) for case, runs in results if runs]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name, runs in measured:
            steps, columns = _by_step(runs)
            means = np.mean(columns, axis=1)
            spread = np.std(columns, axis=1, ddof=1) if len(runs) > 1 else np.zeros(len(steps))
            (line,) = axes.plot(steps, means, label=name, linewidth=1.3, marker="o", markersize=2)
            axes.fill_between(steps, means - spread, means + spread, color=line.get_color(), alpha=0.1, linewidth=0)
        axes.set_xlabel("step")
        axes.set_ylabel("test accuracy, %")
        axes.grid(visible=True, axis="y", linewidth=0.4)
        figure.legend(loc="outside right center", frameon=False)
        figure.suptitle(_lines(title), fontsize=9)

    _save(draw, path, width=7.0, height=3.4)


def _lines(title: str) -> str:
    return textwrap.fill(title.replace("Table ", "Table\N{NO-BREAK SPACE}"), _TITLE_WIDTH)


def _by_step(runs: Sequence[Outcome]) -> tuple[list[int], list[list[float]]]:
    """Steps at which every run was evaluated, and the accuracies of all runs there, in percent."""
    steps = sorted(set.intersection(*({int(step) for step in run.accuracies} for run in runs)))
    return steps, [[100.0 * run.accuracies[str(step)] for run in runs] for step in steps]


def _save(draw: Callable[[Figure], None], path: Path, *, width: float, height: float) -> None:
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})
