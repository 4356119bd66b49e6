"""The first section: how good the model is, with which weights, at what cost, and from what."""

from collections.abc import Mapping
from typing import Any

from metassl_tf.engine.report import formats
from metassl_tf.engine.report.content import Content
from metassl_tf.engine.report.markup import Html, element, join, table
from metassl_tf.engine.report.page import Section, paragraphs

_SETS = ("test", "validation")
_KINDS = ("ema", "raw")


def result_section(content: Content) -> Section:
    """The headline accuracy, the accuracies of all weights, every other metric, and the facts of the run."""
    tables = [
        element("div", element("h3", heading), body)
        for heading, body in (
            ("Accuracy", _accuracies(content)),
            ("All metrics at the last step", _last_metrics(content.result)),
            ("The run", _facts(content.result)),
            ("Data and software", _origins(content.result)),
        )
        if body
    ]
    return Section(title="Result", html=join([_headline(content), element("div", *tables, class_="columns")]))


def _headline(content: Content) -> Html:
    last = content.result["last"]
    name = next((name for name in _SETS if name in last), None)
    if name is None:
        return paragraphs(
            "Nothing was measured: there is neither a test set nor a validation set. Give the data a test set, or "
            "set examples apart with --num_validation.",
            class_="warning",
        )
    accuracy = last[name]["ema"]["accuracy"]
    text = f"{name.capitalize()} accuracy of the averaged weights (EMA) at the last step"
    predictions = content.predictions
    if predictions is not None and predictions.name == name:
        count = len(predictions.examples)
        low, high = formats.accuracy_interval(accuracy, count)
        text += (
            f", on {count:,} examples (95% interval for a set of that size: {formats.percent(low, digits=1)} to "
            f"{formats.percent(high, digits=1)})"
        )
    warning = ""
    if name != "test":
        warning = (
            "There is no test set: what follows was measured on validation examples, which also choose the best step."
        )
    return join(
        [
            element("p", formats.percent(accuracy), class_="headline"),
            paragraphs(f"{text}."),
            paragraphs(warning, class_="warning"),
        ]
    )


def _accuracies(content: Content) -> Html | None:
    """Accuracy of the last, the best and the median of the last 20 evaluations; fine-tuned; of the teacher."""
    last, best, median = (content.result[key] for key in ("last", "best_on_validation", "median_of_last_20"))
    names = [name for name in _SETS if name in last]
    if not names:
        return None
    columns = [(name, kind) for name in names for kind in _KINDS]
    rows = [["last", *(_accuracy(last, *column) for column in columns)]]
    if best:
        rows.append([f"best on validation (step {best['step']:,})", *(_accuracy(best, *column) for column in columns)])
    if median:
        medians = [median[kind]["test_accuracy"] if name == "test" else None for name, kind in columns]
        rows.append([f"median of the last {min(len(content.rows), 20)}", *map(formats.percent, medians)])
    for name in ("fine_tuned", "teacher"):
        if names[0] in content.result.get(name, {}):
            label = name.replace("_", "-")
            rows.append([label, *(_accuracy(content.result[name], *column) for column in columns)])
    header = ["", *(f"{name}, {_short(kind)}" for name, kind in columns)]
    return table(header, rows, label="Accuracy by weights and step", class_="numbers")


def _accuracy(sets: Mapping[str, Any], name: str, kind: str) -> str:
    return formats.percent(sets[name][kind]["accuracy"] if name in sets else None)


def _short(kind: str) -> str:
    return kind.upper() if kind == "ema" else kind


def _last_metrics(result: Mapping[str, Any]) -> Html | None:
    last = result["last"]
    columns = [(name, kind) for name in _SETS if name in last for kind in _KINDS]
    metrics = dict.fromkeys(
        metric for name, kind in columns for metric, value in last[name][kind].items() if isinstance(value, float)
    )
    if not metrics:
        return None
    rows = [
        [formats.sentence_case(metric), *(_metric(metric, last[name][kind].get(metric)) for name, kind in columns)]
        for metric in metrics
    ]
    header = ["", *(f"{name}, {_short(kind)}" for name, kind in columns)]
    return table(header, rows, label="All metrics at the last step", class_="numbers")


def _metric(name: str, value: float | None) -> str:
    return formats.percent(value) if name.endswith("accuracy") else formats.number(value)


def _facts(result: Mapping[str, Any]) -> Html:
    rows = [
        ["steps", f"{result['step']:,}"],
        ["time", formats.duration(result["seconds"])],
        ["examples per second", f"{result['examples_per_second']:,.0f}"],
        ["peak memory", f"{result['peak_memory_mb']:,.0f} MB"],
        ["parameters", f"{result['num_parameters']:,}"],
        ["seed", result["seed"]],
    ]
    return table([], rows, label="The run")


def _origins(result: Mapping[str, Any]) -> Html:
    counts = ", ".join(f"{count:,} {name.replace('_', '-')}" for name, count in result["num_examples"].items() if count)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    rows = [
        ["examples", counts],
        ["classes", f"{len(result['classes'])}"],
        ["split", element("code", result["split_hash"])],
        ["versions", versions],
    ]
    return table([], rows, label="Data and software")
