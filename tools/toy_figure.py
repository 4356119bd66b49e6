"""The figure of learned weights on points of the plane (arXiv:2007.01293, Figures 1 and 2).

A row is a set of points, a column a number of steps. Lines are decision boundaries, dots unlabeled points, shaded from
black (a weight of 0) to pink.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tools.toys import Floats

OURS, SUPERVISED, TRUTH, LABELED = "#2f6fd0", "#24292f", "#2f9e57", "#f08a24"
SHADES = LinearSegmentedColormap.from_list("black_to_pink", ["#111111", "#8c2f63", "#ff9ecb"])

_SIDE = 120
_MARGIN = 0.06
_PANEL = 1.9  # inches
_DOTS_PER_INCH = 130
_LARGEST_SHADE = 2.0  # times the initial weight


class Panel(NamedTuple):
    """A set of points after a number of steps.

    Attributes:
      step: how many.
      weight: of each unlabeled point, [U].
      ours: margin on the grid, [H, W], with learned weights.
      supervised: the same, of the labeled points alone.
      accuracies: test accuracy of the two.
    """

    step: int
    weight: npt.NDArray[np.float32]
    ours: Floats
    supervised: Floats
    accuracies: tuple[float, float]


class Grid(NamedTuple):
    """Places of the plane.

    Attributes:
      horizontal: [W], rising.
      vertical: [H], rising.
    """

    horizontal: Floats
    vertical: Floats

    @property
    def points(self) -> Floats:
        """Every place, [H * W, 2]."""
        return np.stack(np.meshgrid(self.horizontal, self.vertical), axis=-1).reshape(-1, 2)

    def shaped(self, values: Floats) -> Floats:
        """Values of `points`, [H * W], as [H, W]."""
        return values.reshape(len(self.vertical), len(self.horizontal))


class Row(NamedTuple):
    """A set of points while it is learned.

    Attributes:
      name: of the set.
      unlabeled: [U, 2].
      labeled: [L, 2].
      grid: where the margins were taken.
      truth: margin of the ground truth, [H, W].
      panels: one per column, by rising step.
    """

    name: str
    unlabeled: npt.NDArray[Any]
    labeled: npt.NDArray[Any]
    grid: Grid
    truth: Floats
    panels: Sequence[Panel]


def grid_of(points: npt.NDArray[Any]) -> Grid:
    """A grid that covers points, [N, 2], with a margin; squares, so that sets of any shape fill a panel."""
    centre = (points.max(axis=0) + points.min(axis=0)) / 2.0
    reach = float(np.ptp(points, axis=0).max()) * (0.5 + _MARGIN)
    horizontal, vertical = (np.linspace(middle - reach, middle + reach, _SIDE) for middle in centre.astype(float))
    return Grid(horizontal, vertical)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws the figure.

    Args:
      rows: at least one, with the same number of panels each.
      path: PNG file to write.
    """
    columns = len(rows[0].panels)
    with style.context(["default", {"font.size": 8.0, "axes.linewidth": 0.6}]):
        figure = Figure(figsize=(_PANEL * columns + 0.9, (_PANEL + 0.35) * len(rows) + 0.5), layout="constrained")
        axes = figure.subplots(len(rows), columns, squeeze=False)
        shades = ScalarMappable(Normalize(0.0, _LARGEST_SHADE), SHADES)
        for row, line in zip(rows, axes, strict=True):
            for panel, place in zip(row.panels, line, strict=True):
                _draw_panel(place, row, panel, shades)
            line[0].set_ylabel(row.name)
        bar = figure.colorbar(shades, ax=axes, extend="max", shrink=0.6, aspect=30, pad=0.01)
        bar.set_label("weight of an unlabeled point")
        figure.legend(handles=_legend(), loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})


def _draw_panel(axes: Axes, row: Row, panel: Panel, shades: ScalarMappable) -> None:
    order = np.argsort(-panel.weight)  # the lowest are drawn last, on top of the others
    horizontal, vertical = row.unlabeled[order].T
    axes.scatter(horizontal, vertical, s=4, c=shades.to_rgba(panel.weight[order]), linewidths=0)
    horizontal, vertical = row.labeled.T
    axes.scatter(horizontal, vertical, s=26, color=LABELED, edgecolors="white", linewidths=0.7, zorder=3)
    for margin, color, dashes, width in (
        (row.truth, TRUTH, "solid", 1.0),
        (panel.supervised, SUPERVISED, "dashed", 1.0),
        (panel.ours, OURS, "solid", 1.8),
    ):
        if margin.min() < 0 < margin.max():  # else everything is of one class
            axes.contour(*row.grid, margin, levels=[0.0], colors=color, linestyles=dashes, linewidths=width, zorder=2)
    axes.set_title(f"step {panel.step:,}", fontsize=8)
    ours, supervised = (f"{100.0 * accuracy:.0f} %" for accuracy in panel.accuracies)
    axes.set_xlabel(f"{ours} (supervised {supervised})", fontsize=7)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def _legend() -> list[Line2D]:
    def dot(color: str, size: float) -> dict[str, Any]:
        return {"marker": "o", "linestyle": "none", "markersize": size, "color": color, "markeredgecolor": "white"}

    return [
        Line2D([], [], color=OURS, linewidth=1.8, label="with learned weights"),
        Line2D([], [], color=SUPERVISED, linewidth=1.0, linestyle="dashed", label="supervised"),
        Line2D([], [], color=TRUTH, linewidth=1.0, label="ground truth"),
        Line2D([], [], label="labeled point", **dot(LABELED, 6.0)),
    ]
