"""Pictures: the most confident mistakes, the labeled examples, and what the views look like."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from metassl_tf.data.examples import Examples
from metassl_tf.data.images import resize_images
from metassl_tf.data.protocols import ranks_in_class
from metassl_tf.data.views import reader
from metassl_tf.engine.report import formats
from metassl_tf.engine.report.content import Content, Predictions
from metassl_tf.engine.report.markup import Html, element, image, join, printable, table
from metassl_tf.engine.report.page import Section, paragraphs

_MISTAKES = 24
_LABELED = 40
_LARGEST_SIDE = 96
_PIXELATED_BELOW = 64
_STRIP_HEIGHT = 52
_GAP = 4


def mistakes_section(content: Content) -> Section | None:
    """The wrong predictions of the highest confidence: what the model does not know that it does not know."""
    predictions = content.predictions
    if predictions is None or content.modality != "image":
        return None
    wrong = np.flatnonzero(predictions.wrong)
    if not len(wrong):
        text = f"None: all {len(predictions.wrong):,} {predictions.name} images are right."
        return Section(title="Most confident mistakes", html=paragraphs(text))
    worst = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:_MISTAKES]
    examples = predictions.examples.take(worst)
    cards = [
        _mistake(picture, predictions, int(position), content.class_names)
        for picture, position in zip(pictures(examples), worst, strict=True)
    ]
    note = f"{len(worst)} of {len(wrong):,} mistakes on the {predictions.name} set, the most confident first."
    return Section(
        title="Most confident mistakes",
        html=join([paragraphs(note, class_="note"), element("div", *cards, class_="gallery")]),
    )


def _mistake(picture: bytes, predictions: Predictions, position: int, class_names: tuple[str, ...]) -> Html:
    true = printable(class_names[predictions.examples.labels[position]], limit=40)
    predicted = printable(class_names[predictions.predicted[position]], limit=40)
    confidence = formats.percent(float(predictions.confidence[position]), digits=1)
    return card(
        picture,
        predictions.examples,
        f"{predictions.name} number {position:,}",
        position,
        f"{predictions.name} image of class {true}, taken for {predicted}",
        element("span", f"predicted {predicted}, {confidence}", class_="wrong"),
        element("br"),
        element("span", f"true {true}", class_="right"),
    )


def card(picture: bytes, examples: Examples, origin: str, position: int, alt: str, *lines: object) -> Html:
    """A picture with its caption; below it the file's name, or else where the picture comes from.

    Args:
      picture: a PNG file, as `pictures` makes it.
      examples: those that it is one of.
      origin: what stands for the name of an example that has none; may be empty.
      position: its place in `examples`.
      alt: what it shows.
      *lines: the caption.

    Returns:
      A `figure` element for a box of the class `gallery`.
    """
    path = printable("" if examples.names is None else examples.names[position]) or origin
    file = [element("br"), element("span", printable(path, limit=48), class_="file", title=path)] if path else []
    kind = "picture pixels" if max(examples.shape[:2]) < _PIXELATED_BELOW else "picture"
    caption = element("figcaption", *lines, *file)
    return element("figure", image(picture, alt, class_=kind), caption)


def labeled_section(content: Content) -> Section | None:
    """The labeled examples, equally many of each class where there are too many to show."""
    if content.modality != "image" or not len(content.labeled):
        return None
    labels = content.labeled.labels
    chosen = np.argsort(ranks_in_class(labels), kind="stable")[:_LABELED]
    chosen = chosen[np.argsort(labels[chosen], kind="stable")]
    cards = []
    for picture, position in zip(pictures(content.labeled.take(chosen)), chosen, strict=True):
        name = printable(content.class_names[labels[position]], limit=40)
        alt = f"labeled image of class {name}"
        cards.append(card(picture, content.labeled, "", int(position), alt, name))
    note = f"{len(chosen)} of {len(labels):,}." if len(chosen) < len(labels) else f"All {len(labels)}."
    return Section(
        title="Labeled examples",
        html=join([paragraphs(note, class_="note"), element("div", *cards, class_="gallery")]),
    )


def views_section(content: Content) -> Section | None:
    """The first images of the first batch under each view; an image keeps its column."""
    if not content.views:
        return None
    sides: dict[str, Mapping[str, npt.NDArray[np.uint8]]] = {}
    for name, images in content.views.items():
        side, _, view = name.partition("/")
        sides[side] = {**sides.get(side, {}), view: images}
    tables = [
        element("div", element("h3", formats.sentence_case(side)), _strips(side, views))
        for side, views in sides.items()
    ]
    note = "What the network sees: the first images of the first batch, one column each."
    return Section(title="Views", html=join([paragraphs(note, class_="note"), *tables]))


def _strips(side: str, views: Mapping[str, npt.NDArray[np.uint8]]) -> Html:
    rows = [[name, _strip(images, f"{len(images)} {side} images, {name} view")] for name, images in views.items()]
    return table([], rows, label=f"Views of {side} images", class_="views")


def _strip(images: npt.NDArray[np.uint8], alt: str) -> Html:
    """Images side by side with clear gaps, small ones enlarged by a whole factor."""
    images = _thumbnails(images)
    factor = max(1, round(_STRIP_HEIGHT / images.shape[1]))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    num_images, height, width, _ = images.shape
    strip = np.zeros((height, num_images, width + _GAP, 4), np.uint8)
    strip[:, :, :width, :3] = images.transpose(1, 0, 2, 3)  # grey spreads over the three colors
    strip[:, :, :width, 3] = 255
    return image(png(strip.reshape(height, -1, 4)), alt, class_="strip")


def pictures(examples: Examples) -> list[bytes]:
    """Reads and encodes images.

    Args:
      examples: few of them, in memory or streamed from files.

    Returns:
      A PNG file each, at most 96 pixels high and wide.
    """
    if not len(examples):
        return []
    images = reader(examples)(tf.range(len(examples), dtype=tf.int64)).numpy()
    return [png(thumbnail) for thumbnail in _thumbnails(images)]


def _thumbnails(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Shrinks uint8 [N, H, W, C] so that neither side is longer than 96 pixels."""
    height, width, channels = images.shape[1:]
    scale = min(1.0, _LARGEST_SIDE / max(height, width))
    return resize_images(images, (max(1, round(height * scale)), max(1, round(width * scale)), channels))


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encodes uint8 [H, W, C] as a PNG file; C is 1, 3, or 4 with transparency."""
    encoded: bytes = tf.io.encode_png(pixels).numpy()
    return encoded
