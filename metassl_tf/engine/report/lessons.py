"""A teacher and its student: whether they fit their training data, how their losses agree, and what the teacher gives.

The pictures by which the papers tell what Meta Pseudo Labels does: v1 (version 1 of arXiv:2003.10580), Figures 8 to 10,
and the thesis (H. Pham, chapter 5), Figure 5.4.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from metassl_tf.algorithms.batch import TEACHER_LABEL
from metassl_tf.data.examples import Examples
from metassl_tf.engine.history import Row
from metassl_tf.engine.lessons import MOST_CLASSES, plain_targets
from metassl_tf.engine.report import charts, formats
from metassl_tf.engine.report.charts import Line
from metassl_tf.engine.report.content import Content
from metassl_tf.engine.report.curves import curve
from metassl_tf.engine.report.galleries import card, pictures
from metassl_tf.engine.report.markup import Html, element, image, join, printable, table
from metassl_tf.engine.report.page import Section, paragraphs

_NAMED = 3
_NAME_LENGTH = 18


def lessons_section(content: Content) -> Section | None:
    """Training accuracy of both networks, the cosine of the student's gradients, and how the targets change."""

    def line(name: str, *path: str, color: int = 0) -> Line:
        values = [_value(row, path) for row in content.rows]
        return Line(name=name, steps=[row["step"] for row in content.rows], values=values, color=color)

    if not any("lessons" in row for row in content.rows):
        return None
    accuracies = [
        line("teacher, labeled examples", "teacher_labeled", "raw", "accuracy", color=0),
        line("student, labeled examples", "labeled", "raw", "accuracy", color=1),
        line("student, the teacher's labels", "train", "student/agreement", color=2),
    ]
    figures = [
        *_curve(
            "Training accuracy",
            accuracies,
            "How often each network is right about labeled training examples, and how often the student agrees with "
            "the labels that it is taught. High early, they say that both have settled, on wrong labels too.",
            fraction=True,
        ),
        *_curve(
            "Cosine of the student's gradients on labeled and on unlabeled examples",
            [line("cosine", "train", "feedback/cosine")],
            "Mean over the last training batches before an evaluation. Above 0, learning the teacher's labels lowers "
            "the loss on labeled examples too. Gradients of batches are noisy: of much data it stays near 0.",
        ),
        *_curve(
            "Mean entropy of the targets below",
            [line("entropy", "lessons", "target_entropy")],
            f"In nats: 0 is certain, {np.log(len(content.class_names)):.2f} is no preference.",
        ),
        *_curve(
            "Targets below with another most probable class than at first",
            [line("share", "lessons", "changed_targets")],
            "Share of the examples for which the teacher has changed its mind since the first evaluation, or since "
            "labels were stored.",
            fraction=True,
        ),
    ]
    text = paragraphs(
        "The student learns the teacher's labels of unlabeled examples; a teacher that is given feedback learns from "
        "what they did to the student (arXiv:2003.10580)."
    )
    return Section(title="Teacher and student", html=join([text, element("div", *figures, class_="charts")]))


def _value(row: Row, path: Sequence[str]) -> float | None:
    """What a row has below these names, one inside the other; None where one of them is missing."""
    *outer, name = path
    for entry in outer:
        row = row.get(entry, {})
    return row.get(name)


def _curve(title: str, lines: list[Line], note: str, *, fraction: bool = False) -> list[Html]:
    """The chart of those lines that have a value; none where none has."""
    lines = [line for line in lines if line.points]
    return [curve(title, lines, fraction=fraction, note=note)] if lines else []


def targets_section(content: Content) -> Section | None:
    """What the teacher gives for a few examples: at first and at every quarter of the training."""
    rows = _shown_rows(content)
    if not rows:
        return None
    titles, targets = [f"step {row['step']:,}" for row in rows], [row["lessons"]["targets"] for row in rows]
    positions = np.array([target["example"] for target in targets[0]], np.int64)
    examples = content.unlabeled.take(positions)
    stored = examples.columns.get(TEACHER_LABEL)
    if stored is not None:
        titles, targets = ["stored", *titles], [plain_targets(positions, stored), *targets]
    cells = [
        [head, _distributions(content, int(label), titles, over_time)]
        for head, label, *over_time in zip(
            _heads(content, examples, targets[0]), examples.labels, *targets, strict=True
        )
    ]
    note = (
        f"What the teacher gives for {len(examples)} unlabeled examples, spread evenly over their list, without "
        f"augmentation and dropout: {'' if stored is None else 'what was stored before, then '}at the first evaluation "
        "and at those nearest to each quarter of the training. "
        "Orange: not the true class, as far as that is known. The flatter a target, the less it tells the student."
    )
    if len(content.class_names) > MOST_CLASSES:
        note += (
            f" Named are the {_NAMED} most probable classes of each of these evaluations; grey is the rest, in which a "
            f"class also counts while it is not among the {MOST_CLASSES} most probable."
        )
    body = table([], cells, label="Targets of unlabeled examples over the training", class_="views targets")
    return Section(title="Targets over the training", html=join([paragraphs(note, class_="note"), body]))


def _shown_rows(content: Content) -> list[Row]:
    """The first evaluation with targets, and those nearest to each quarter of the training."""
    rows = [row for row in content.rows if "lessons" in row]
    if not rows:
        return []
    steps = np.array([row["step"] for row in rows])
    nearest = [int(np.abs(steps - content.result["step"] * quarter / 4).argmin()) for quarter in (1, 2, 3, 4)]
    return [rows[number] for number in dict.fromkeys([0, *nearest])]


def _heads(content: Content, examples: Examples, targets: Sequence[Mapping[str, Any]]) -> list[Html]:
    """What each example is: a picture or a place in the list, and its true class where that is known."""
    trues = [
        f"true {printable(content.class_names[label], limit=40)}" if label >= 0 else "" for label in examples.labels
    ]
    origins = [f"unlabeled {target['example']}" for target in targets]
    if content.modality != "image":
        if examples.shape == (2,):
            origins = [
                f"{origin}, at {x:.2f}, {y:.2f}" for origin, (x, y) in zip(origins, examples.inputs, strict=True)
            ]
        return [join([origin, element("br"), true]) for origin, true in zip(origins, trues, strict=True)]
    return [
        card(picture, examples, origin, position, f"{origin}, an image", true)
        for position, (picture, origin, true) in enumerate(zip(pictures(examples), origins, trues, strict=True))
    ]


def _distributions(content: Content, label: int, titles: Sequence[str], targets: Sequence[Mapping[str, Any]]) -> Html:
    """The bars of one example."""
    count = len(content.class_names)
    kept = count if count <= MOST_CLASSES else _NAMED
    classes = sorted({number for target in targets for number in target["classes"][:kept]})
    probabilities = np.zeros((len(targets), len(classes)))
    for row, target in zip(probabilities, targets, strict=True):
        given = dict(zip(target["classes"], target["probabilities"], strict=True))
        row[:] = [given.get(number, 0.0) for number in classes]
    names = [printable(content.class_names[number], limit=_NAME_LENGTH) for number in classes]
    colors = [charts.BLUE if label in (number, -1) else charts.ORANGE for number in classes]
    if len(classes) < count:
        names, colors = [*names, "all others"], [*colors, charts.GREY]
        probabilities = np.column_stack([probabilities, np.maximum(0.0, 1.0 - probabilities.sum(axis=1))])
    told = [
        f"{title}: "
        + ", ".join(
            f"{printable(content.class_names[number], limit=_NAME_LENGTH)} {formats.percent(probability, digits=0)}"
            for number, probability in list(zip(target["classes"], target["probabilities"], strict=True))[:_NAMED]
        )
        for title, target in zip(titles, targets, strict=True)
    ]
    picture = draw_targets(names, colors, titles, probabilities)
    return image(picture, f"Targets of unlabeled {targets[0]['example']}. {'; '.join(told)}.", kind="svg+xml")


def draw_targets(
    names: Sequence[str], colors: Sequence[str], titles: Sequence[str], probabilities: npt.NDArray[np.float64]
) -> bytes:
    """Draws distributions side by side, a bar for each class.

    Args:
      names: of the classes.
      colors: of their bars.
      titles: of the distributions.
      probabilities: float64 [distributions, classes].

    Returns:
      An SVG file.
    """

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(titles), sharex=True, sharey=True, squeeze=False)[0]
        for axes, title, values in zip(panels, titles, probabilities, strict=True):
            axes.barh(range(len(names)), values, color=colors)
            axes.set_title(title, fontsize=9)
            axes.grid(visible=True, axis="x")
            axes.tick_params(length=0, labelsize=7.5)
        panels[0].set_xlim(0, 1)
        panels[0].set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
        panels[0].set_yticks(range(len(names)), names)
        panels[0].invert_yaxis()

    return charts.svg(draw, width=1.3 + 1.45 * len(titles), height=0.5 + 0.15 * len(names))
