"""What the predictions are like: which classes are confused, which are found, and whether confidence can be trusted."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from metassl_tf.engine.metrics import CALIBRATION_BINS, calibration, confusion_matrix
from metassl_tf.engine.report import charts, formats
from metassl_tf.engine.report.content import Content, Predictions
from metassl_tf.engine.report.markup import Html, chart, element, join, printable, table
from metassl_tf.engine.report.page import Section, paragraphs

_FEW = 6
_NUMBERS_UP_TO = 15
_NAMES_UP_TO = 40
_LISTED_CONFUSIONS = 10
_LISTED_RECALLS = 120
_NAME_LENGTH = 18
_BAR_NAME_LENGTH = 20
_NO_GAP = 0.005


def confusion_section(content: Content) -> Section | None:
    """The confusion matrix and its most frequent mistakes."""
    predictions = content.predictions
    if predictions is None:
        return None
    counts = _confusions(predictions, len(content.class_names))
    wrong = int(counts.sum() - np.trace(counts))
    alt = (
        f"Confusion matrix of {len(content.class_names)} classes on the {predictions.name} set: "
        f"{counts.sum() - wrong:,} right, {wrong:,} wrong. The most frequent mistakes stand in the table."
    )
    note = (
        "Rows: true class. Columns: predicted class. The stronger the color, the larger the share of the true class "
        "(its root)."
    )
    if len(content.class_names) > _NAMES_UP_TO:
        note += " Classes are numbered in their order."
    figure = chart(
        draw_confusions(counts, content.class_names),
        f"{counts.sum():,} {predictions.name} examples by true and predicted class",
        alt=alt,
        note=note,
        natural=True,
        scrolls=len(content.class_names) > _FEW,
    )
    mistakes = _frequent_mistakes(counts, content.class_names)
    heading = element("h3", "Most frequent mistakes")
    listed = element("div", heading, mistakes) if wrong else paragraphs("No mistakes.")
    return Section(title="Confusion matrix", html=element("div", figure, listed, class_="columns"))


def _confusions(predictions: Predictions, num_classes: int) -> npt.NDArray[np.int64]:
    return confusion_matrix(predictions.examples.labels, predictions.predicted, num_classes)


def draw_confusions(counts: npt.NDArray[np.int64], class_names: Sequence[str]) -> bytes:
    """Draws a confusion matrix: blue on the diagonal, orange off it.

    Args:
      counts: int64 [K, K], true class by predicted class.
      class_names: K names.

    Returns:
      An SVG file; with numbers up to 15 classes, with names up to 40.
    """
    num_classes = len(class_names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    colors = np.empty((num_classes, num_classes, 4))
    colors[..., :3] = to_rgb(charts.ORANGE)
    colors[np.diag_indices(num_classes)] = (*to_rgb(charts.BLUE), 0.0)
    # The root makes rare mistakes visible; no mistakes stay clear.
    colors[..., 3] = np.sqrt(share)
    side = max(3.2, 1.6 + 0.36 * num_classes) if num_classes <= _NUMBERS_UP_TO else 6.5

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.imshow(colors, interpolation="none")
        axes.spines[:].set_visible(True)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        _label_classes(axes, class_names, cell=0.75 * side / num_classes)
        if num_classes <= _NUMBERS_UP_TO:
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    ink = "white" if colors[row, column, 3] > 0.75 else charts.INK
                    axes.text(column, row, f"{count}", ha="center", va="center", color=ink, fontsize=8)

    return charts.svg(draw, width=side, height=side)


def _label_classes(axes: Axes, class_names: Sequence[str], *, cell: float) -> None:
    """Puts names on both axes; upright ones where a cell, of so many inches, is too narrow for them."""
    num_classes = len(class_names)
    if num_classes > _NAMES_UP_TO:
        return
    names = [printable(name, limit=_NAME_LENGTH) for name in class_names]
    size = 9 if num_classes <= _NUMBERS_UP_TO else 6.5
    upright = size / 72 * 0.7 * max(map(len, names)) > cell  # a letter is about 0.7 of its size wide
    axes.set_xticks(range(num_classes), names, rotation=90 if upright else 0, fontsize=size)
    axes.set_yticks(range(num_classes), names, fontsize=size)
    axes.tick_params(length=0)


def _frequent_mistakes(counts: npt.NDArray[np.int64], class_names: Sequence[str]) -> Html:
    mistakes = counts - np.diag(np.diag(counts))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_LISTED_CONFUSIONS]
    rows = []
    for true, predicted in zip(*np.unravel_index(order, mistakes.shape), strict=True):
        times = int(mistakes[true, predicted])
        if times:
            share = formats.percent(times / counts[true].sum(), digits=1)
            rows.append([class_names[true], class_names[predicted], f"{times:,}", share])
    return table(["true", "predicted", "times", "of the class"], rows, label="Most frequent mistakes")


def recall_section(content: Content) -> Section | None:
    """A bar per class; of very many classes, the worst ones."""
    predictions = content.predictions
    if predictions is None:
        return None
    counts = _confusions(predictions, len(content.class_names))
    present = counts.sum(axis=1)
    recall = np.diag(counts) / np.maximum(present, 1)
    shown = np.arange(len(recall))
    note = f"The share of each class's {predictions.name} examples that is recognised."
    if len(shown) > _LISTED_RECALLS:
        shown = np.argsort(np.where(present > 0, recall, 2.0), kind="stable")[:_LISTED_RECALLS]
        note += f" The {_LISTED_RECALLS} classes with the lowest recall of {len(recall):,}."
    bars = [
        _bar(content.class_names[number], float(recall[number]) if present[number] else None, int(present[number]))
        for number in shown
    ]
    longest = max(len(printable(content.class_names[number], limit=_BAR_NAME_LENGTH)) for number in shown)
    chart_of_bars = element("ul", *bars, class_="bars", style=f"--name:{max(longest, 2)}ch")
    return Section(title="Recall per class", html=join([paragraphs(note, class_="note"), chart_of_bars]))


def _bar(name: str, recall: float | None, count: int) -> Html:
    fill = element("span", class_="fill", style=f"width:{100 * (recall or 0.0):.1f}%")
    shown = printable(name, limit=60)
    return element(
        "li",
        element("span", shown, class_="name", title=f"{shown}, {count:,} examples"),
        element("span", fill, class_="track"),
        element("span", formats.percent(recall, digits=1), class_="value"),
    )


def calibration_section(content: Content) -> Section | None:
    """Reliability diagram and expected calibration error."""
    predictions = content.predictions
    if predictions is None:
        return None
    share, confidence, accuracy = calibration(predictions.examples.labels, predictions.probabilities)
    error = float(np.nansum(share * np.abs(confidence - accuracy)))
    mean_confidence = float(predictions.confidence.mean())
    mean_accuracy = float(1.0 - predictions.wrong.mean())
    gap = mean_confidence - mean_accuracy
    tendency = "about as confident as right" if abs(gap) < _NO_GAP else "overconfident" if gap > 0 else "underconfident"
    title = f"Reliability diagram, expected calibration error {error:.3f}"
    figure = chart(
        draw_reliability(share, accuracy),
        title,
        alt=f"{title}. Mean confidence {formats.percent(mean_confidence)}, accuracy {formats.percent(mean_accuracy)}.",
        note="Above: accuracy of the predictions of each confidence; on the dashed line confidence is what it says. "
        "Below: how many predictions have that confidence.",
    )
    text = paragraphs(
        f"On the {predictions.name} set the model is {formats.percent(mean_confidence)} confident on average and "
        f"{formats.percent(mean_accuracy)} right; it is {tendency}.",
        f"The expected calibration error, {error:.3f}, is the mean distance between the two over {CALIBRATION_BINS} "
        "bins of confidence (arXiv:1706.04599). Near 0, a confidence can be read as the chance of being right.",
    )
    return Section(title="Calibration", html=element("div", figure, element("div", text), class_="columns"))


def draw_reliability(share: npt.NDArray[np.float64], accuracy: npt.NDArray[np.float64]) -> bytes:
    """Draws accuracy over confidence, and the share of predictions below it.

    Args:
      share: float64 [bins], of all examples.
      accuracy: float64 [bins], NaN in an empty bin.

    Returns:
      An SVG file.
    """
    centers = (np.arange(len(share)) + 0.5) / len(share)
    width = 0.92 / len(share)

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        above.plot([0, 1], [0, 1], color=charts.INK, linestyle="--", linewidth=1)
        above.bar(centers, np.nan_to_num(accuracy), width, color=charts.BLUE, alpha=0.85)
        above.set_ylabel("accuracy")
        above.set_ylim(0, 1.02)
        below.bar(centers, share, width, color=charts.BLUE, alpha=0.5)
        below.set_ylabel("share")
        below.set_xlabel("confidence")
        below.set_xlim(0, 1)
        for axes in (above, below):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        below.xaxis.set_major_formatter(PercentFormatter(1.0))

    return charts.svg(draw, width=4.4, height=4.0)
