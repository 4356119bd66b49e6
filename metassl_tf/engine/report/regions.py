"""For points of the plane: which class the model sees where."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from metassl_tf.data.examples import Examples
from metassl_tf.engine.report import charts
from metassl_tf.engine.report.content import Content, Predictions, Regions
from metassl_tf.engine.report.markup import chart, printable
from metassl_tf.engine.report.page import Section

MOST_POINTS = 1500
_MOST_NAMES = 10


def regions_section(content: Content) -> Section | None:
    """A map of the predicted classes with the labeled points and the mistakes on it."""
    if content.regions is None:
        return None
    picture = draw_regions(
        content.regions,
        labeled=content.labeled,
        unlabeled=content.unlabeled,
        predictions=content.predictions,
        class_names=content.class_names,
    )
    note = "The stronger the color, the more confident the model. Small dots: unlabeled points, in no class's color."
    alt = f"Map of the plane by predicted class with {len(content.labeled):,} labeled points marked."
    if content.predictions is not None:
        count = int(content.predictions.wrong.sum())
        note += f" Crosses: mistakes on the {content.predictions.name} set ({count:,})."
        alt += f" {count:,} mistakes on the {content.predictions.name} set."
    return Section(
        title="Decision regions",
        html=chart(picture, "Predicted class over the plane", alt=alt, note=note, natural=True),
    )


def draw_regions(
    regions: Regions,
    *,
    labeled: Examples,
    unlabeled: Examples,
    predictions: Predictions | None,
    class_names: tuple[str, ...],
) -> bytes:
    """Draws the map.

    Args:
      regions: predictions on a grid.
      labeled: points [L, 2], drawn large in the color of their class.
      unlabeled: points [U, 2], drawn small; the first 1,500.
      predictions: whose mistakes are crossed; None for none.
      class_names: for the legend.

    Returns:
      An SVG file.
    """
    colors = _class_colors(len(class_names))

    def draw(figure: Figure, axes: Axes) -> None:
        dots = unlabeled.inputs[:MOST_POINTS]
        axes.scatter(dots[:, 0], dots[:, 1], s=3, color=charts.INK, alpha=0.35, linewidths=0)
        if predictions is not None:
            wrong = predictions.examples.inputs[predictions.wrong]
            axes.scatter(wrong[:, 0], wrong[:, 1], s=22, marker="x", color=charts.INK, linewidths=1)
        for number in np.unique(labeled.labels):
            points = labeled.inputs[labeled.labels == number]
            name = printable(class_names[number], limit=30) if number < _MOST_NAMES else None
            axes.scatter(
                points[:, 0],
                points[:, 1],
                s=60,
                color=colors[number],
                edgecolors="white",
                linewidths=1.4,
                zorder=3,
                label=None if name is None else f"labeled: {name}",
            )
        figure.legend(loc="outside lower center", ncols=2)

    return draw_plane(regions, draw)


def draw_plane(regions: Regions, draw: Callable[[Figure, Axes], None]) -> bytes:
    """Draws something over the predicted classes of the plane.

    Args:
      regions: predictions on a grid.
      draw: adds to the axes, and what stands beside them to the figure.

    Returns:
      An SVG file.
    """

    def both(figure: Figure) -> None:
        axes = figure.subplots()
        _paint(axes, regions)
        draw(figure, axes)
        axes.set_aspect("equal")

    aspect = float(np.ptp(regions.vertical) / np.ptp(regions.horizontal))
    return charts.svg(both, width=6.5, height=min(max(0.7 + 6.0 * aspect, 2.5), 9.0))


def _class_colors(num_classes: int) -> npt.NDArray[np.float64]:
    return np.array([to_rgb(charts.COLORS[number % len(charts.COLORS)]) for number in range(num_classes)])  # [K, 3]


def _paint(axes: Axes, regions: Regions) -> None:
    """Colors each place by its class, transparent where the model is no surer than chance."""
    num_classes = regions.probabilities.shape[-1]
    colors = _class_colors(num_classes)
    chance = 1.0 / num_classes
    confidence = (regions.probabilities.max(axis=-1) - chance) / (1.0 - chance)
    pixels = np.concatenate(
        [colors[regions.probabilities.argmax(axis=-1)], 0.08 + 0.42 * confidence[..., None]], axis=-1
    )
    left, right = regions.horizontal[[0, -1]]
    bottom, top = regions.vertical[[0, -1]]
    axes.imshow(pixels, extent=(left, right, bottom, top), origin="lower", interpolation="none")
