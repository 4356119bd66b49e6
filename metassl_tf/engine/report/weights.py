"""What was learned about the unlabeled examples: how the weights went, where they ended, what their order is worth."""

import numpy as np

from metassl_tf.engine.learned_weights import LearnedWeights, Measure
from metassl_tf.engine.report import charts, formats
from metassl_tf.engine.report.charts import Band, Bars, Line
from metassl_tf.engine.report.content import Content
from metassl_tf.engine.report.curves import curve
from metassl_tf.engine.report.markup import Html, chart, element, join, table
from metassl_tf.engine.report.page import Section, paragraphs
from metassl_tf.engine.weights import SMALLEST_MOVEMENT
from metassl_tf.meta.weight_table import PERCENTILES

_BANDS = ((0, 100, "all"), (10, 90, "middle 80%"), (25, 75, "middle 50%"))
# Training metrics that belong here, with their titles.
_CURVES = {
    "weights/validation_loss": "Validation loss at the updates",
    "weights/influence_size": "Mean size of an influence",
}

# What makes an example trustworthy, and how those that are and those that are not are called.
MEANINGS: dict[Measure, tuple[str, str, str]] = {
    "given_label": ("the label given to it is the true one", "right label", "wrong label"),
    "pollution": ("it is of one of the classes, and was not mixed in to pollute", "belongs", "does not belong"),
    "teacher_label": ("the label that its teacher gives it is the true one", "right label", "wrong label"),
    "pseudo_label": (
        "its pseudo label, for which the last prediction stands, is the true class",
        "right pseudo label",
        "wrong pseudo label",
    ),
}


def weights_section(content: Content) -> Section | None:
    """How the weights went and where they ended, how often they moved, and what their order is worth."""
    if not any("weights" in row for row in content.rows):
        return None
    if content.weights is None:
        return _single_weight_section(content)
    figures = [_history(content), _final_weights(content.weights), _updates(content.weights), *_curves(content)]
    looked_at = "it" if content.weights.given_label is None else "its label"
    text = paragraphs(
        "Every unlabeled example has a weight, learned so that training on it lowers the loss on "
        f"{_num_validation(content)} validation examples (arXiv:2007.01293). A low weight says that more of this "
        f"example raised that loss: look at {looked_at} first.",
        join([_file(content), f" lists all {len(content.unlabeled):,}, the lowest weight first."]),
    )
    parts = [text, *_warnings(content, content.weights), _facts(content, content.weights)]
    return Section(title="Learned weights", html=join([*parts, element("div", *figures, class_="charts")]))


def _single_weight_section(content: Content) -> Section:
    text = (
        "All unlabeled examples share one weight, learned so that training on them lowers the loss on "
        f"{_num_validation(content)} validation examples. It says nothing about a single example."
    )
    steps, values = _steps_and_values(content, "mean")
    figure = curve("Weight", [Line(name="weight", steps=steps, values=values)])
    figures = element("div", figure, *_curves(content), class_="charts")
    return Section(title="Learned weight", html=join([paragraphs(text), figures]))


def _num_validation(content: Content) -> str:
    return f"{content.result['num_examples']['meta_validation']:,}"


def _file(content: Content) -> Html:
    return element("code", content.workdir / "weights.csv")


def initial_weight(content: Content) -> float:
    """What all weights began at."""
    return float(content.result["config"]["initial_weight"])


def _steps_and_values(content: Content, name: str) -> tuple[list[int], list[float]]:
    """A number from the summaries of the weights at each evaluation, and at step 0, when all were alike."""
    rows = [row for row in content.rows if "weights" in row]
    return [0, *(row["step"] for row in rows)], [initial_weight(content), *(row["weights"][name] for row in rows)]


def _warnings(content: Content, weights: LearnedWeights) -> list[Html]:
    """What is not as one would wish: weights that stayed where they were, and updates that were left out."""
    config, initial, found = content.result["config"], initial_weight(content), []
    moved = float(np.percentile(np.abs(weights.weight - initial), 90))
    if moved < SMALLEST_MOVEMENT:
        bound = (
            f"An update moves a weight by about {config['weight_learning_rate']:g} at most, and an example had "
            f"{weights.updates.mean():.1f} of them on average. "
        )
        found.append(
            f"The weights have hardly moved: nine in ten are within {formats.number(moved)} of {initial:g}, where they "
            "began. Their order may tell something all the same; the training was hardly changed by them. "
            f"{'' if config['weight_optimizer'] == 'sgd' else bound}"
            "For larger differences lower --weight_update_steps, raise --weight_learning_rate or train longer."
        )
    skipped = int(content.rows[-1]["weights"]["skipped_updates"])
    if skipped:
        found.append(f"Updates left out because an influence was not finite: {skipped:,}.")
    return [paragraphs(text, class_="warning") for text in found]


def _facts(content: Content, weights: LearnedWeights) -> Html:
    low, middle, high = np.percentile(weights.weight, (0, 50, 100))
    never = int(np.sum(weights.updates == 0))
    rows = [
        ["weights", f"{low:.3f} to {high:.3f}, median {middle:.3f}; all began at {initial_weight(content):g}"],
        ["weights at 0", f"{formats.percent(float(np.mean(weights.weight == 0)), digits=1)} of the examples"],
        [
            "updates of an example",
            f"{weights.updates.mean():.1f} on average, {weights.updates.min():,} to {weights.updates.max():,}",
        ],
    ]
    if never:
        rows.append(["never updated", f"{never:,} of {len(weights.updates):,} examples: their weight says nothing"])
    return table([], rows, label="Learned weights in numbers")


def _history(content: Content) -> Html:
    values = {rank: _steps_and_values(content, f"percentile_{rank}") for rank in PERCENTILES}
    steps, median = values[50]
    bands = [Band(name=name, steps=steps, low=values[low][1], high=values[high][1]) for low, high, name in _BANDS]
    picture = charts.line_chart([Line(name="median", steps=steps, values=median)], fraction=False, bands=bands)
    last = content.rows[-1]["weights"]
    alt = (
        f"Percentiles of the weights over steps. All {initial_weight(content):g} at step 0; at step {steps[-1]:,} from "
        f"{last['percentile_0']:.3f} to {last['percentile_100']:.3f}, median {median[-1]:.3f}."
    )
    return chart(picture, "Weights over steps", alt=alt)


def _final_weights(weights: LearnedWeights) -> Html:
    meaning, right, wrong = MEANINGS[weights.measure]
    measured, trustworthy = weights.measured, weights.trustworthy
    if not measured.any():
        kinds = [Bars(name="all", values=weights.weight, color=charts.BLUE)]
        note = f"An example would be trustworthy if {meaning}; this is not known of any."
    else:
        kinds = [
            Bars(name=wrong, values=weights.weight[measured & ~trustworthy], color=charts.ORANGE),
            Bars(name=right, values=weights.weight[measured & trustworthy], color=charts.BLUE),
            Bars(name="labeled, or not known", values=weights.weight[~measured], color=charts.GREY),
        ]
        note = f"An example counts as trustworthy if {meaning}. {_worth(weights)}"
    counts = ", ".join(f"{len(kind.values):,} {kind.name}" for kind in kinds if len(kind.values))
    alt = f"Histogram of the final weights: {counts}. {note}"
    return chart(charts.histogram(kinds, label="weight"), "Weights at the end", alt=alt, note=note)


def _worth(weights: LearnedWeights) -> str:
    auroc, other = weights.auroc, weights.agreement_auroc
    if auroc is None or other is None:
        return "All measured ones are alike in this, so that there is nothing to tell apart."
    rival = "confidence in its prediction" if weights.given_label is None else "probability of the given label"
    text = (
        f"AUROC for telling them from the others: {auroc:.3f} by weight, {other:.3f} by the model's {rival}. 1 is "
        "perfect, 0.5 is chance."
    )
    return f"{text} The weight does no better than chance here: do not go by it." if auroc <= 0.5 else text


def _updates(weights: LearnedWeights) -> Html:
    values = weights.updates
    alt = (
        f"Histogram of the updates of each weight, from {values.min():,} to {values.max():,}, mean {values.mean():.1f}."
    )
    picture = charts.histogram([Bars(name="all", values=values, color=charts.BLUE)], label="updates")
    return chart(picture, "Updates of each weight", alt=alt)


def _curves(content: Content) -> list[Html]:
    figures = []
    for metric, title in _CURVES.items():
        rows = [row for row in content.rows if metric in row["train"]]
        if rows:
            line = Line(
                name="training", steps=[row["step"] for row in rows], values=[row["train"][metric] for row in rows]
            )
            figures.append(curve(title, [line]))
    return figures
