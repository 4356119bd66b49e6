"""The curves, read from the evaluations by name alone: a metric that is logged tomorrow has its curve tomorrow."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from metassl_tf.engine.history import Row
from metassl_tf.engine.report import charts, formats
from metassl_tf.engine.report.charts import Line
from metassl_tf.engine.report.content import Content
from metassl_tf.engine.report.markup import Html, chart, element, join
from metassl_tf.engine.report.page import Section, paragraphs

_ACCURACY = "Accuracy"
_SHARES = "Shares and accuracies in training batches"
_LOSSES = "Loss terms in training batches"
# What sections of their own show: entries of a row, and beginnings of training metrics.
_OTHER_ENTRIES = ("weights", "lessons")
_OTHER_METRICS = ("weights/", "feedback/cosine", "student/agreement")


def curves_section(content: Content) -> Section | None:
    """A chart per metric of the evaluated sets, and one per family of training metrics."""
    evaluated = _evaluated(content.rows)
    accuracy = evaluated.pop(_ACCURACY, None)
    charted = [*([(_ACCURACY, accuracy)] if accuracy else []), *_trained(content.rows).items(), *evaluated.items()]
    if not charted:
        return None
    figures = [
        curve(_of_one(title, lines), lines, fraction=title.endswith("accuracy") or title in (_ACCURACY, _SHARES))
        for title, lines in charted
    ]
    note = paragraphs("Dashed: the trained weights. Solid: their moving average (EMA).", class_="note")
    return Section(title="Curves", html=join([note if accuracy else "", element("div", *figures, class_="charts")]))


def curve(title: str, lines: list[Line], *, fraction: bool = False, note: str = "") -> Html:
    """A chart of lines over steps, described by where they begin and end.

    Args:
      title: what they show.
      lines: at least one, each with at least one value.
      fraction: values are shares of 1, shown as percentages.
      note: how to read it.
    """
    picture = charts.line_chart(lines, fraction=fraction)
    shown = formats.percent if fraction else formats.number
    described = [_describe(line, shown) for line in lines]
    return chart(picture, title, alt=f"{title} over steps. {' '.join(described)}", note=note)


def _of_one(title: str, lines: list[Line]) -> str:
    """The title of a family's chart, and what it shows where there is one line alone, which has no legend."""
    return f"{title}: {lines[0].name}" if len(lines) == 1 and title.endswith((_SHARES, _LOSSES)) else title


def _describe(line: Line, shown: Any) -> str:
    (first_step, first), (last_step, last) = line.points[0], line.points[-1]
    return f"{line.name}: {shown(first)} at step {first_step:,}, {shown(last)} at step {last_step:,}."


def _is_share(name: str) -> bool:
    return name.endswith("accuracy") or name.startswith("share")


def _is_set(value: Any) -> bool:
    """Whether an entry of a row holds metrics per kind of weights, as an evaluated set does."""
    return isinstance(value, Mapping) and bool(value) and all(isinstance(inner, Mapping) for inner in value.values())


def _numbers(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in metrics.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value)


def _evaluated(rows: list[Row]) -> dict[str, list[Line]]:
    """Metric -> a line per set and kind of weights: a color for each set, dashed for raw weights."""
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for row in rows:
        for set_name, kinds in row.items():
            for kind, metrics in kinds.items() if _is_set(kinds) else ():
                for metric, value in _numbers(metrics):
                    found.setdefault((metric, set_name, kind), {})[row["step"]] = value
    colors = {name: color for color, name in enumerate(sorted({name for _, name, _ in found}))}
    lines: dict[str, list[Line]] = {}
    for (metric, set_name, kind), values in found.items():
        name = f"{set_name.replace('_', ' ')}, {'EMA' if kind == 'ema' else kind}"
        line = _line(name, values, rows, color=colors[set_name], dashed=kind == "raw")
        lines.setdefault(formats.sentence_case(metric), []).append(line)
    return {title: sorted(family, key=lambda line: line.name) for title, family in lines.items()}


def _trained(rows: list[Row]) -> dict[str, list[Line]]:
    """Family of metrics -> a line per metric, for every entry of a row that holds plain numbers by name."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        for group, metrics in row.items():
            if isinstance(metrics, Mapping) and not _is_set(metrics) and group not in _OTHER_ENTRIES:
                for metric, value in _numbers(metrics):
                    if metric.startswith(_OTHER_METRICS):
                        continue
                    found.setdefault((group, metric), {})[row["step"]] = value
    lines: dict[str, list[Line]] = {}
    for (group, metric), values in found.items():
        family = lines.setdefault(_family(group, metric), [])
        family.append(_line(_name(metric), values, rows, color=len(family)))
    return lines


def _family(group: str, metric: str) -> str:
    """Which chart a training metric belongs to."""
    prefix, slash, _ = metric.partition("/")
    if prefix == "loss":
        title = _LOSSES
    elif _is_share(metric):
        title = _SHARES
    elif metric.endswith("gradient_norm"):
        title = "Gradient norm"
    else:
        title = formats.sentence_case(prefix if slash else metric)
    return title if group == "train" else f"{group}: {title}"


def _name(metric: str) -> str:
    if metric == "loss":
        return "total"
    if metric.endswith("/gradient_norm"):
        return metric.partition("/")[0]
    return metric.partition("/")[2].replace("_", " ") or metric.replace("_", " ")


def _line(name: str, values: Mapping[int, float], rows: list[Row], *, color: int, dashed: bool = False) -> Line:
    steps = [row["step"] for row in rows]
    return Line(name=name, steps=steps, values=[values.get(step) for step in steps], color=color, dashed=dashed)
