"""The sections about learned weights: what they say, whom they show, and that they do not claim too much."""

import base64
import dataclasses
import html
import re
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from metassl_tf.engine.learned_weights import LearnedWeights
from metassl_tf.engine.report import charts
from metassl_tf.engine.report.build import render
from metassl_tf.engine.report.charts import Band, Bars, Line
from metassl_tf.engine.report.content import Content
from metassl_tf.engine.report.markup import printable
from metassl_tf.engine.report.regions import MOST_POINTS
from metassl_tf.engine.report.weighted_examples import (
    draw_weights,
    suspicious_section,
    trusted_section,
    weights_map_section,
)
from metassl_tf.engine.report.weights import weights_section
from tests.engine.report_content import Page, make_content, make_rows, make_weighted, make_weights, titles

RANDOM = np.random.RandomState(3)
WEIGHT = RANDOM.permutation(np.linspace(0.0, 1.6, 90)).astype(np.float32)
# The lower the weight, the likelier a wrong label.
DESERVING = RANDOM.uniform(size=90) < 0.1 + 0.5 * WEIGHT
LABELS = make_weights(WEIGHT, trustworthy=DESERVING)


def words_of(content: Content) -> str:
    section = weights_section(content)
    assert section is not None
    return Page(section.html).text


def cards_of(section: Any) -> list[str]:
    """The caption of each example, line by line."""
    captions = re.findall("<figcaption>.*?</figcaption>", section.html.replace("<br>", "\n"), re.DOTALL)
    return [Page(caption).text for caption in captions]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (make_weighted(LABELS), ["Learned weights", "Which of these labels are wrong?", "Most trusted examples"]),
        (
            make_weighted(make_weights(WEIGHT, measure="pseudo_label", trustworthy=DESERVING)),
            ["Learned weights", "Most down-weighted examples", "Most trusted examples"],
        ),
        (make_weighted(LABELS, modality="points"), ["Learned weights", "Weights over the plane"]),
        (make_weighted(LABELS, modality="points", regions=None), ["Learned weights"]),
        (make_weighted(LABELS, weights=None), ["Learned weight"]),
        (make_content(), []),
    ],
)
def test_sections_behind_the_result(content: Content, expected: list[str]) -> None:
    assert titles(render(content))[: len(expected) + 2] == ["Result", *expected, "Curves"]


def test_the_lowest_weights_are_shown_first_with_all_that_is_known() -> None:
    content = make_weighted(LABELS)
    section = suspicious_section(content)
    names = [printable(name, limit=40) for name in content.class_names]
    lowest = np.argsort(WEIGHT)[:40]
    expected = []
    for position in lowest:
        true, right = int(LABELS.truth[position]), bool(DESERVING[position])
        expected.append(
            [
                f"given {names[true if right else (true + 1) % 3]}",
                f"predicted {names[true]}, {LABELS.confidence[position]:.0%}",
                f"{'✓' if right else '✗'} true {names[true]}",
                f"weight {WEIGHT[position]:.3f}",
            ]
        )
    cards = cards_of(section)
    assert [card.split("\n")[:-1] for card in cards] == expected
    files = [card.split("\n")[-1] for card in cards]
    assert [file.partition("-")[2] for file in files] == [f"{position}.png" for position in lowest]
    num_wrong = int(np.sum(~DESERVING[lowest]))
    share = f"{100 * np.mean(~DESERVING):.1f}%"
    assert f"40 of {np.sum(WEIGHT < 1)} examples whose weight fell" in section.html
    assert f"Wrong label: {num_wrong} of 40, against {share} of all." in section.html
    assert section.html.count('class="wrong"') == num_wrong


def test_the_highest_weights_are_the_trusted_ones() -> None:
    section = trusted_section(make_weighted(LABELS))
    shown = [float(re.findall(r"weight ([\d.]+)", card)[0]) for card in cards_of(section)]
    assert shown == [round(float(value), 3) for value in np.sort(WEIGHT)[::-1][:16]]
    assert f"Right label: {np.sum(DESERVING[np.argsort(-WEIGHT)[:16]])} of 16" in section.html


def test_only_what_moved_is_suspicious_or_trusted() -> None:
    weights = make_weights([1.0] * 5 + [0.5, 0.0], trustworthy=[True] * 7)
    content = make_weighted(weights)
    assert len(cards_of(suspicious_section(content))) == 2
    assert "None: no weight rose." in trusted_section(content).html
    from_nothing = make_weighted(dataclasses.replace(weights, updates=np.array([3, 3, 3, 3, 3, 3, 0], np.int64)))
    from_nothing.result["config"]["initial_weight"] = 0.0
    assert "None: no weight fell." in suspicious_section(from_nothing).html
    from_nothing = make_weighted(weights)
    from_nothing.result["config"]["initial_weight"] = 0.0
    assert len(cards_of(suspicious_section(from_nothing))) == 1


def test_unknown_truth_is_not_marked() -> None:
    truth = np.array([0, -1, 2, -1, 1], np.int64)
    measured = np.array([True, False, False, False, True])
    given = np.array([1, 2, 2, -1, 1], np.int64)
    weights = make_weights(
        [0.1, 0.2, 0.3, 0.4, 0.5], trustworthy=given == truth, truth=truth, measured=measured, given_label=given
    )
    section = suspicious_section(make_weighted(weights))
    marks = [re.findall("[✓✗]|true|no label given", card) for card in cards_of(section)]
    assert marks == [["✗", "true"], [], ["true"], ["no label given"], ["✓", "true"]]
    assert "Wrong label: 1 of 2 measured, against 50.0% of all." in section.html
    blind = make_weighted(dataclasses.replace(weights, measured=np.zeros(5, bool)))
    assert "Wrong label" not in suspicious_section(blind).html
    assert "this is not known of any" in words_of(blind)


def test_examples_that_do_not_belong_are_said_so() -> None:
    weights = make_weights([0.1, 0.2], measure="pollution", trustworthy=[False, True])
    cards = cards_of(suspicious_section(make_weighted(weights)))
    assert ["does not belong" in card for card in cards] == [True, False]
    assert "✓ belongs, true class 1" in cards[1]
    assert "given" not in "".join(cards)


def test_what_the_order_is_worth_is_measured_and_said() -> None:
    text = words_of(make_weighted(LABELS))
    assert f"{roc_auc_score(DESERVING, WEIGHT):.3f} by weight" in text
    assert f"{roc_auc_score(DESERVING, LABELS.agreement):.3f} by the model's probability of the given label" in text
    assert "do not go by it" not in text
    misleading = dataclasses.replace(LABELS, weight=-WEIGHT)
    assert "do not go by it" in words_of(make_weighted(misleading))
    alike = make_weights(WEIGHT, trustworthy=np.ones(90, bool))
    assert "alike in this" in words_of(make_weighted(alike))


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("given_label", "the label given to it is the true one."),
        ("pollution", "it is of one of the classes, and was not mixed in to pollute."),
        ("pseudo_label", "its pseudo label, for which the last prediction stands, is the true class."),
    ],
)
def test_what_trustworthy_means_is_said(measure: Any, expected: str) -> None:
    text = words_of(make_weighted(make_weights(WEIGHT, measure=measure, trustworthy=DESERVING)))
    assert f"An example counts as trustworthy if {expected}" in text


def hardly_moved(**changes: Any) -> LearnedWeights:
    return dataclasses.replace(LABELS, weight=1.0 + (WEIGHT - 0.8) / 10, **changes)


def test_weights_that_hardly_moved_are_told_of() -> None:
    text = words_of(make_weighted(hardly_moved()))
    assert "The weights have hardly moved" in text
    assert "by about 0.01 at most, and an example had 12.0 of them" in text
    assert "hardly moved" not in words_of(make_weighted(LABELS))
    unbounded = make_weighted(hardly_moved())
    unbounded.result["config"]["weight_optimizer"] = "sgd"
    assert "at most" not in words_of(unbounded)


def test_updates_are_counted() -> None:
    updates = np.arange(90, dtype=np.int64) % 10
    content = make_weighted(dataclasses.replace(LABELS, updates=updates))
    text = words_of(content)
    assert "4.5 on average, 0 to 9" in text
    assert "9 of 90 examples: their weight says nothing" in text
    assert "Updates left out" not in text
    content.rows[-1]["weights"]["skipped_updates"] = 1234
    assert "Updates left out because an influence was not finite: 1,234." in words_of(content)
    assert "never updated" not in words_of(make_weighted(LABELS))


def test_where_the_whole_list_lies_is_said() -> None:
    text = words_of(make_weighted(LABELS))
    assert "runs/a & b/weights.csv lists all 90, the lowest weight first" in text
    assert "9 validation examples" in text
    assert "weights.csv" not in words_of(make_weighted(LABELS, weights=None))


def test_history_begins_where_all_began() -> None:
    page = html.unescape(render(make_weighted(LABELS)))
    low, high = WEIGHT.min(), WEIGHT.max()
    assert f"All 1 at step 0; at step 30 from {low:.3f} to {high:.3f}, median {np.median(WEIGHT):.3f}." in page
    single = html.unescape(render(make_weighted(LABELS, weights=None)))
    assert f"weight: 1.0000 at step 0, {WEIGHT.mean():.4f} at step 30." in single


def test_curves_do_not_repeat_the_weights() -> None:
    page = html.unescape(render(make_weighted(LABELS)))
    plain = html.unescape(render(make_content(rows=make_rows(("test", "validation")))))

    def curves(text: str) -> str:
        return text.partition('id="curves"')[2].partition("</section>")[0]

    assert curves(page) == curves(plain)
    told = dict(re.findall(r'alt="([^"]*) over steps\. ([^"]*)"', page))
    assert told["Validation loss at the updates"] == "training: 0.7000 at step 10, 0.2333 at step 30."
    assert told["Mean size of an influence"] == "training: 0.0500 at step 10, 0.0167 at step 30."


def labels_of(chart: bytes) -> list[str]:
    return re.findall("<text.*?>(.*?)</text>", chart.decode())


def test_bands_are_in_the_legend() -> None:
    line = Line(name="middle", steps=(0, 1), values=(1.0, 2.0))
    band = Band(name="around", steps=(0, 1), low=(0.5, 1.0), high=(1.5, 30.0))
    chart = charts.line_chart([line], fraction=False, bands=[band])
    assert {"middle", "around", "30"} <= {*labels_of(chart)}
    assert "middle" not in labels_of(charts.line_chart([line], fraction=False))


def bars_of(chart: bytes) -> list[tuple[float, float]]:
    """Left and right end of each bar that is not empty, in the picture's points."""
    paths = re.findall(r'<path d="M ([\d.]+) ([\d.]+) \nL ([\d.]+) [\d.]+ \nL [\d.]+ ([\d.]+) ', chart.decode())
    return [(float(left), float(right)) for left, bottom, right, top in paths if float(bottom) - float(top) > 0]


def test_whole_numbers_have_whole_bins() -> None:
    bars = bars_of(charts.histogram([Bars(name="a", values=np.array([2, 3, 3, 5]), color=charts.BLUE)], label="x"))
    bars = [bar for bar in bars if bar[1] - bar[0] < 150][:3]
    width = bars[0][1] - bars[0][0]
    assert [round((left - bars[0][0]) / width) for left, _ in bars] == [0, 1, 3]
    wide = Bars(name="a", values=np.arange(1000), color=charts.BLUE)
    assert len([bar for bar in bars_of(charts.histogram([wide], label="x")) if bar[1] - bar[0] < 20]) == 40


def test_kinds_without_examples_are_left_out() -> None:
    some = Bars(name="some", values=np.array([1.0]), color=charts.BLUE)
    none = dataclasses.replace(some, name="none", values=np.array([]))
    assert not {"some", "none"} & {*labels_of(charts.histogram([some, none], label="x"))}
    more = dataclasses.replace(some, name="more")
    assert {"some", "more"} <= {*labels_of(charts.histogram([some, more], label="x"))}


def test_map_of_weights() -> None:
    content = make_weighted(make_weights(WEIGHT, measure="pseudo_label", trustworthy=DESERVING), modality="points")
    section = weights_map_section(content)
    assert section is not None
    assert "90 of 90 unlabeled points" in section.html
    chart = base64.b64decode(re.findall('base64,([^"]+)', section.html)[0])
    assert chart.count(b"<use ") >= 90
    assert content.regions is not None
    many = np.zeros((MOST_POINTS + 500, 2), np.float32)
    alike = draw_weights(content.regions, many, np.ones(len(many), np.float32), initial=1.0)
    assert MOST_POINTS <= alike.count(b"<use ") < MOST_POINTS + 100
