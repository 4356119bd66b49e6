"""Unlabeled examples by their learned weights: those that a person should look at, and where they lie in the plane."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, LinearSegmentedColormap
from matplotlib.figure import Figure

from metassl_tf.engine.learned_weights import LearnedWeights
from metassl_tf.engine.report import formats
from metassl_tf.engine.report.content import Content, Regions
from metassl_tf.engine.report.galleries import card, pictures
from metassl_tf.engine.report.markup import Html, chart, element, join, printable
from metassl_tf.engine.report.page import Section, paragraphs
from metassl_tf.engine.report.regions import MOST_POINTS, draw_plane
from metassl_tf.engine.report.weights import MEANINGS, initial_weight

_SUSPICIOUS = 40
_TRUSTED = 16
# Low, initial and high weights: legible on light and dark, and unlike the first classes' colors.
_SHADES = LinearSegmentedColormap.from_list("weights", ["#d6247f", "#8b949e", "#14b8a6"])


def suspicious_section(content: Content) -> Section | None:
    """The examples whose weights fell most."""
    weights = content.weights
    if weights is None or content.modality != "image":
        return None
    labels = weights.measure in ("given_label", "teacher_label")
    title = "Which of these labels are wrong?" if labels else "Most down-weighted examples"
    fell = (weights.weight < initial_weight(content)) | ((weights.weight == 0) & (weights.updates > 0))
    order = weights.most_suspicious_first
    return _gallery(content, weights, title, order[fell[order]], most=_SUSPICIOUS, moved="fell", trusted=False)


def trusted_section(content: Content) -> Section | None:
    """The examples whose weights rose most."""
    weights = content.weights
    if weights is None or content.modality != "image":
        return None
    order = weights.most_suspicious_first[::-1]
    rose = order[weights.weight[order] > initial_weight(content)]
    return _gallery(content, weights, "Most trusted examples", rose, most=_TRUSTED, moved="rose", trusted=True)


def _gallery(
    content: Content,
    weights: LearnedWeights,
    title: str,
    order: npt.NDArray[np.int64],
    *,
    most: int,
    moved: str,
    trusted: bool,
) -> Section:
    if not len(order):
        return Section(title=title, html=paragraphs(f"None: no weight {moved}."))
    shown = order[:most]
    note = (
        f"{len(shown)} of {len(order):,} examples whose weight {moved}, the {'highest' if trusted else 'lowest'} first."
    )
    known = shown[weights.measured[shown]]
    if len(known):
        _, right, wrong = MEANINGS[weights.measure]
        alike = weights.trustworthy == trusted
        note += (
            f" {(right if trusted else wrong).capitalize()}: {np.sum(alike[known])} of {len(known)}"
            f"{'' if len(known) == len(shown) else ' measured'}, against "
            f"{formats.percent(float(np.mean(alike[weights.measured])), digits=1)} of all."
        )
    cards = [
        _example(picture, content, weights, int(position))
        for picture, position in zip(pictures(content.unlabeled.take(shown)), shown, strict=True)
    ]
    return Section(title=title, html=join([paragraphs(note, class_="note"), element("div", *cards, class_="gallery")]))


def _example(picture: bytes, content: Content, weights: LearnedWeights, position: int) -> Html:
    def name(label: int) -> str:
        return printable(content.class_names[label], limit=40)

    told = [f"predicted {name(weights.predicted[position])}"]
    if weights.given_label is not None:
        given = int(weights.given_label[position])
        told.insert(0, f"given {name(given)}" if given >= 0 else "no label given")
    alt = f"unlabeled image, {', '.join(told)}"
    told[-1] += f", {formats.percent(float(weights.confidence[position]), digits=0)}"
    true = f"true {name(weights.truth[position])}" if weights.truth[position] >= 0 else ""
    lines = [*told, _verdict(weights, position, true), f"weight {weights.weight[position]:.3f}"]
    parts = [part for line in lines if line for part in (line, element("br"))][:-1]
    return card(picture, content.unlabeled, f"unlabeled {position}", position, alt, *parts)


def _verdict(weights: LearnedWeights, position: int, true: str) -> str:
    """The true class where it is known, marked where it says whether the example is trustworthy."""
    if not weights.measured[position]:
        return true
    right = bool(weights.trustworthy[position])
    if weights.measure == "pollution":
        true = ", ".join(part for part in ("belongs" if right else "does not belong", true) if part)
    return element("span", f"{'✓' if right else '✗'} {true}", class_="right" if right else "wrong")


def weights_map_section(content: Content) -> Section | None:
    """For points of the plane: where low and high weights lie."""
    if content.weights is None or content.regions is None:
        return None
    initial = initial_weight(content)
    picture = draw_weights(content.regions, content.unlabeled.inputs, content.weights.weight, initial=initial)
    shown = min(MOST_POINTS, len(content.unlabeled))
    note = (
        f"{shown:,} of {len(content.unlabeled):,} unlabeled points over the predicted classes, shaded by weight; grey: "
        f"the {initial:g} that all began at."
    )
    alt = f"Map of the plane by predicted class with {shown:,} unlabeled points shaded by weight."
    return Section(
        title="Weights over the plane",
        html=chart(picture, "Unlabeled points by weight", alt=alt, note=note, natural=True),
    )


def draw_weights(
    regions: Regions, points: npt.NDArray[np.float32], weight: npt.NDArray[np.float32], *, initial: float
) -> bytes:
    """Draws points shaded by their weights over the predicted classes, as Fig. 1 of arXiv:2007.01293 does.

    Args:
      regions: predictions on a grid.
      points: float32 [N, 2]; the first 1,500 are drawn, those that moved most on top.
      weight: float32 [N].
      initial: the weight that all began at.

    Returns:
      An SVG file.
    """
    points, moved = points[:MOST_POINTS], np.abs(weight[:MOST_POINTS] - initial)
    order = np.argsort(moved, kind="stable")
    reach = float(np.percentile(moved, 98)) or 1.0  # a few extremes shall not make the others alike

    def draw(figure: Figure, axes: Axes) -> None:
        dots = axes.scatter(
            points[order, 0],
            points[order, 1],
            c=weight[order],
            s=9,
            cmap=_SHADES,
            norm=CenteredNorm(initial, reach),
            linewidths=0,
        )
        figure.colorbar(dots, ax=axes, label="weight", extend="both", location="bottom", shrink=0.6, aspect=30)

    return draw_plane(regions, draw)
