"""Charts as SVG, drawn with matplotlib's objects and no global figure.

Whoever opens the page may have a light or a dark screen. Lines and letters are therefore drawn in two placeholder
colors, which become CSS variables that follow the screen; the series' own colors are legible on both.
"""

import dataclasses
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

INK = "#010203"
FAINT = "#040506"
BLUE = "#3f83c8"
ORANGE = "#e07b29"
GREY = "#8b949e"
COLORS = (BLUE, ORANGE, "#3fa36b", "#c9548c", "#8a6fc9", "#a8872b", "#2fa3b5", "#d25146", "#7f8c3a", "#8c7b75")

_MARKERS_BELOW = 40
_BINS = 40
_TICKS = (1, 2, 2.5, 5, 10)
_LOG_FROM_RATIO = 200.0
# On top of matplotlib's own defaults: a matplotlibrc of the user changes nothing.
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": 9.0,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",  # real letters: small, sharp, and in any script that the reader's fonts know
    "svg.hashsalt": "metassl_tf",  # the same chart has the same bytes
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a class name is a dollar sign
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
}
_CSS = (
    ":root{--ink:#24292f;--faint:#d0d7de}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--faint:#3d444d}}"
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif!important}"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart.

    Attributes:
      name: for the legend.
      steps: where its values were measured.
      values: as many; None where there was nothing to measure.
      color: position in `COLORS`.
      dashed: drawn dashed and thinner.
    """

    name: str
    steps: Sequence[int]
    values: Sequence[float | None]
    color: int = 0
    dashed: bool = False

    @property
    def points(self) -> list[tuple[int, float]]:
        """Steps and values where there is a finite value."""
        return [
            (step, value)
            for step, value in zip(self.steps, self.values, strict=True)
            if value is not None and math.isfinite(value)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Band:
    """What lies between two values at each step.

    Attributes:
      name: for the legend.
      steps: where they were measured, rising.
      low: lower ends, as many.
      high: upper ends, as many.
    """

    name: str
    steps: Sequence[int]
    low: Sequence[float]
    high: Sequence[float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bars:
    """One of the kinds of things that a histogram counts.

    Attributes:
      name: for the legend.
      values: float [N], finite; may be empty.
      color: a color of this module.
    """

    name: str
    values: npt.NDArray[Any]
    color: str


def svg(draw: Callable[[Figure], None], *, width: float, height: float) -> bytes:
    """Draws a chart.

    Args:
      draw: fills an empty figure.
      width: in inches of 72 points; letters have 9 points.
      height: the same.

    Returns:
      An SVG file without anything from outside; the same for the same drawing.
    """
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        # Letters that matplotlib's own font lacks come from the reader's fonts.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("<defs>", f"<defs><style>{_CSS}</style>", 1)
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    text = text.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    return text.encode()


def line_chart(lines: Sequence[Line], *, fraction: bool, bands: Sequence[Band] = ()) -> bytes:
    """Draws values over steps.

    Args:
      lines: at least one.
      fraction: values are shares of 1, shown as percentages.
      bands: areas behind the lines, each within the one before.

    Returns:
      An SVG file. The vertical axis is logarithmic where positive values span more than two decades.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        handles: list[Artist] = []
        covered = 1.0  # what shows through the bands so far
        for shade, band in zip(np.linspace(0.18, 0.55, len(bands)), bands, strict=True):
            alpha, covered = 1.0 - (1.0 - shade) / covered, 1.0 - shade
            axes.fill_between(band.steps, band.low, band.high, color=BLUE, alpha=alpha, linewidth=0)
            handles.append(Patch(color=BLUE, alpha=shade, linewidth=0, label=band.name))
        for line in lines:
            steps, values = [list(column) for column in zip(*line.points, strict=True)] or ([], [])
            handles += axes.plot(
                steps,
                values,
                color=COLORS[line.color % len(COLORS)],
                label=line.name,
                linestyle="--" if line.dashed else "-",
                linewidth=1.1 if line.dashed else 1.7,
                marker="o" if len(steps) < _MARKERS_BELOW else None,
                markersize=2.5,
            )
        shown = [value for line in lines for _, value in line.points]
        _style_axes(axes, [*shown, *(value for band in bands for value in (*band.low, *band.high))], fraction=fraction)
        if in_legend > 1:
            figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=1.8, columnspacing=1.2)

    in_legend = len(lines) + len(bands)
    legend_rows = math.ceil(in_legend / 2) if in_legend > 1 else 0
    return svg(draw, width=4.4, height=2.5 + 0.19 * legend_rows)


def histogram(kinds: Sequence[Bars], *, label: str) -> bytes:
    """Draws how many examples have which value.

    Args:
      kinds: drawn on top of each other; at least one has values. Whole numbers get whole bins.
      label: what the values are.

    Returns:
      An SVG file.
    """
    kinds = [kind for kind in kinds if len(kind.values)]
    values = np.concatenate([kind.values for kind in kinds])
    if values.dtype.kind == "i":
        width = -(-int(np.ptp(values) + 1) // _BINS)
        edges = np.arange(values.min(), values.max() + 1 + width, width) - 0.5
    else:
        edges = np.histogram_bin_edges(values, _BINS)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.hist(
            [kind.values for kind in kinds],
            bins=edges.tolist(),
            stacked=True,
            color=[kind.color for kind in kinds],
            label=[kind.name for kind in kinds],
        )
        axes.set_xlabel(label)
        axes.set_ylabel("examples")
        axes.grid(visible=True, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=_TICKS, integer=values.dtype.kind == "i"))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=_TICKS, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
        if len(kinds) > 1:
            figure.legend(loc="outside lower center", ncols=2, handlelength=1.8, columnspacing=1.2)

    return svg(draw, width=4.4, height=2.5 + (0.19 * math.ceil(len(kinds) / 2) if len(kinds) > 1 else 0.0))


def _style_axes(axes: Axes, values: Sequence[float], *, fraction: bool) -> None:
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=_TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.grid(visible=True, axis="y")
    if fraction:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=_TICKS))
        # Around a constant, matplotlib leaves room for shares below none and above all.
        low, high = axes.get_ylim()
        margin = 0.03 * (high - low)  # a line at the edge stays whole
        axes.set_ylim(max(low, -margin), min(high, 1.0 + margin))
    elif min(values) > 0 and max(values) / min(values) > _LOG_FROM_RATIO:
        axes.set_yscale("log")
        # matplotlib's own labels of powers are formulas, which these charts do not typeset.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=_TICKS))
