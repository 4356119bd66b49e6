"""The figure of decision regions on points of the plane (Figure 5.2 of H. Pham's thesis).

A panel is a method. Areas are what it decides, small dots unlabeled points, large ones labeled points in the color of
their class.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tools.toy_figure import Grid
from tools.toys import Floats

REGIONS = ("#f6c9bd", "#bfe0cb")
"""Of class 0 and class 1, as are the points."""
POINTS = ("#c8332b", "#1d7a43")

_UNLABELED, _BOUNDARY = "#57606a", "#24292f"
_MARKERS = ("o", "^")  # who cannot tell red from green can tell these
_PANEL, _COLUMNS = 2.4, 3  # inches, panels of a row
_DOTS_PER_INCH = 130


class Panel(NamedTuple):
    """What a method has learned.

    Attributes:
      name: of the method.
      margin: on the grid, [H, W]; above 0 for class 1.
      accuracy: share of the test points that are right.
    """

    name: str
    margin: Floats
    accuracy: float


class Points(NamedTuple):
    """What all methods have learned from.

    Attributes:
      unlabeled: [U, 2].
      labeled: [L, 2].
      labels: 0 or 1, [L].
    """

    unlabeled: npt.NDArray[Any]
    labeled: npt.NDArray[Any]
    labels: npt.NDArray[Any]


def draw(panels: Sequence[Panel], points: Points, grid: Grid, path: Path) -> None:
    """Draws the figure.

    Args:
      panels: row by row.
      points: drawn into each.
      grid: where the margins were taken.
      path: PNG file to write.
    """
    with style.context(["default", {"font.size": 8.0, "axes.linewidth": 0.6}]):
        columns = min(len(panels), _COLUMNS)
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(_PANEL * columns, (_PANEL + 0.3) * rows + 0.4), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).flatten()
        for panel, axes in zip(panels, places, strict=False):
            _draw_panel(axes, panel, points, grid)
        for axes in places[len(panels) :]:
            axes.remove()
        figure.legend(handles=_legend(), loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})


def _draw_panel(axes: Axes, panel: Panel, points: Points, grid: Grid) -> None:
    margin = panel.margin
    limit = np.abs(margin).max() + 1.0  # filled contours want an end on both sides, also where all is of one class
    axes.contourf(*grid, margin, levels=[-limit, 0.0, limit], colors=REGIONS)
    if margin.min() < 0 < margin.max():
        axes.contour(*grid, margin, levels=[0.0], colors=_BOUNDARY, linewidths=0.8)
    horizontal, vertical = points.unlabeled.T
    axes.scatter(horizontal, vertical, s=2, color=_UNLABELED, linewidths=0)
    for label, (color, marker) in enumerate(zip(POINTS, _MARKERS, strict=True)):
        horizontal, vertical = points.labeled[points.labels == label].T
        axes.scatter(
            horizontal, vertical, s=46, color=color, marker=marker, edgecolors="white", linewidths=0.9, zorder=3
        )
    axes.set_title(panel.name, fontsize=9)
    axes.set_xlabel(f"{100.0 * panel.accuracy:.1f} % of test points right")
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def _legend() -> list[Line2D]:
    styles: dict[str, Any] = {"linestyle": "none", "markeredgecolor": "white"}
    labeled = [
        Line2D([], [], marker=marker, markersize=7.0, color=color, label=f"labeled, class {label}", **styles)
        for label, (color, marker) in enumerate(zip(POINTS, _MARKERS, strict=True))
    ]
    return [*labeled, Line2D([], [], marker="o", markersize=3.5, color=_UNLABELED, label="unlabeled", **styles)]
