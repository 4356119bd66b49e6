"""The picture of the most suspicious images of a run: each over the label that came with it."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from matplotlib.figure import Figure

from metassl_tf import flag_definitions
from metassl_tf.data.views import reader
from metassl_tf.engine.load import load_examples
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError

WRONG, RIGHT, UNKNOWN = "#c8332b", "#8c959f", "#24292f"
_COLUMNS, _PANEL, _DOTS_PER_INCH = 12, 0.8, 110


class Suspect(NamedTuple):
    """One image.

    Attributes:
      pixels: uint8 [H, W, C].
      label: name of the label that came with it, or of the predicted one where none did.
      right: whether that is the truth; None where it is not known.
      weight: learned.
    """

    pixels: npt.NDArray[np.uint8]
    label: str
    right: bool | None
    weight: float


def suspects(workdir: Workdir, count: int) -> list[Suspect]:
    """Reads the first rows of `weights.csv` and their images.

    Args:
      workdir: of a finished run.
      count: at most so many.

    Raises:
      UserError: the run has no weights or is not finished, or its examples are no images.
    """
    if not workdir.weights.is_file():
        raise UserError(
            f"{workdir.weights} does not exist. Expected the workdir of a finished run with --meta=per_example_weights."
        )
    dataset, _, parts = load_examples(flag_definitions.parse([f"--flagfile={workdir.existing_config()}"]))
    if dataset.modality != "image":
        raise UserError("The examples of the run are points, not images. tools.figures draws points of the plane.")
    with workdir.weights.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:count]
    index = np.array([int(row["index"]) for row in rows])
    truth = parts.unlabeled.labels[index]
    labels = [row["given_label"] or row["predicted_label"] for row in rows]
    return [
        Suspect(
            pixels=pixels,
            label=label,
            right=dataset.class_names[true] == label if true >= 0 else None,
            weight=float(row["weight"]),
        )
        for pixels, label, true, row in zip(
            reader(parts.unlabeled)(tf.constant(index)).numpy(), labels, truth, rows, strict=True
        )
    ]


def draw(found: Sequence[Suspect], path: Path) -> None:
    """Draws images in rows, the most suspicious first, into a PNG file."""
    columns = min(_COLUMNS, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(columns * _PANEL, rows * _PANEL * 1.3), dpi=_DOTS_PER_INCH, layout="tight")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, suspect in zip(panels, found, strict=False):
        panel.imshow(suspect.pixels.squeeze(), cmap="gray_r", vmin=0, vmax=255)
        color = UNKNOWN if suspect.right is None else RIGHT if suspect.right else WRONG
        panel.text(0.5, -0.08, suspect.label, transform=panel.transAxes, ha="center", va="top", color=color)
    figure.savefig(path)
