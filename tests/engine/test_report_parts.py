"""The parts of the report: markup, numbers, charts and pictures, each by itself."""

import math
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.data.examples import Examples
from metassl_tf.engine.report import charts, formats, galleries, markup, quality
from metassl_tf.engine.report.charts import Line
from metassl_tf.engine.report.page import Section, render_page


def test_strings_are_escaped_once_and_markup_never() -> None:
    inner = markup.element("b", "a < b & 'c'")
    assert inner == "<b>a &lt; b &amp; &#x27;c&#x27;</b>"
    assert markup.element("p", inner, ' "d"', class_="x", title='"><i>', aria_label=None) == (
        f'<p class="x" title="&quot;&gt;&lt;i&gt;">{inner} &quot;d&quot;</p>'
    )
    assert markup.element("br") == "<br>"


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("plain", None, "plain"),
        ("a\x00\udcffb\u202e", None, "a��b�"),
        ("abcdefghij", 10, "abcdefghij"),
        ("abcdefghijk", 10, "abcde…hijk"),
        ("猫", 1, "猫"),
    ],
)
def test_printable(text: str, limit: int | None, expected: str) -> None:
    assert markup.printable(text, limit=limit) == expected


def test_equal_titles_get_different_anchors() -> None:
    section = Section(title="A & B", html=markup.Html(""))
    page = render_page("t", "s", [section, section], footer="f")
    assert 'id="a-b"' in page
    assert 'id="a-b-2"' in page


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.percent(0.97236), "97.24%"),
        (formats.percent(None), "–"),
        (formats.number(1_470_000), "1,470,000"),
        (formats.number(0.0), "0"),
        (formats.number(-1.5), "-1.5000"),
        (formats.number(0.00002), "2e-05"),
        (formats.number(123.456), "123.5"),
        (formats.duration(0.25), "0.25 s"),
        (formats.duration(59.7), "1 min"),
        (formats.duration(7322), "2 h 2 min 2 s"),
        (formats.sentence_case("loss/cross_entropy"), "Loss: cross entropy"),
    ],
)
def test_numbers_as_people_read_them(shown: str, expected: str) -> None:
    assert shown == expected


def test_accuracy_interval_is_wilsons() -> None:
    share, count, quantile = 0.8, 50, 1.959964
    center = (share + quantile**2 / (2 * count)) / (1 + quantile**2 / count)
    half = quantile * math.sqrt(share * (1 - share) / count + (quantile / (2 * count)) ** 2) / (1 + quantile**2 / count)
    assert formats.accuracy_interval(share, count) == pytest.approx((center - half, center + half), abs=1e-6)
    assert formats.accuracy_interval(1.0, 10)[1] == 1.0


def line(*values: float | None, name: str = "a line") -> Line:
    return Line(name=name, steps=range(len(values)), values=values)


def test_a_line_leaves_out_what_was_not_measured() -> None:
    assert line(1.0, None, math.nan, math.inf, 2.0).points == [(0, 1.0), (4, 2.0)]


def labels_of(chart: bytes) -> list[str]:
    return re.findall("<text.*?>(.*?)</text>", chart.decode())


def test_axis_is_logarithmic_only_over_decades_of_positive_values() -> None:
    decades = {"0.01", "1", "100"}
    assert decades <= {*labels_of(charts.line_chart([line(0.001, 1000.0)], fraction=False))}
    assert not decades <= {*labels_of(charts.line_chart([line(0.0, 1000.0)], fraction=False))}
    assert not decades <= {*labels_of(charts.line_chart([line(1.0, 100.0)], fraction=False))}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_lie_between_none_and_all(share: float) -> None:
    labels = labels_of(charts.line_chart([line(share, share)], fraction=True))
    ticks = [float(label.removesuffix("%")) for label in labels if label.endswith("%")]
    assert 100 * share in ticks
    assert 0.0 <= min(ticks) < max(ticks) <= 100.0


def test_one_evaluation_is_enough_for_a_chart() -> None:
    assert b"<svg" in charts.line_chart([line(0.5), line(0.7)], fraction=True)


def test_dollars_and_foreign_letters_stay_what_they_are() -> None:
    names = ["cost in $ and $\\frac$", "猫 <b>"]
    chart = charts.line_chart([line(1.0, 2.0, name=name) for name in names], fraction=False).decode()
    assert "cost in $ and $\\frac$" in chart
    assert "猫 &lt;b&gt;" in chart


def test_a_users_matplotlib_settings_change_nothing() -> None:
    plain = charts.line_chart([line(1.0, 2.0)], fraction=False)
    with mpl.rc_context({"font.size": 30.0, "text.usetex": True, "axes.facecolor": "red"}):
        before = dict(mpl.rcParams)
        assert charts.line_chart([line(1.0, 2.0)], fraction=False) == plain
        assert dict(mpl.rcParams) == before


def test_charts_follow_the_readers_screen() -> None:
    chart = quality.draw_confusions(np.diag([3, 2]), ["a", "b"]).decode()
    assert "var(--ink)" in chart
    assert "#000000" not in chart
    assert charts.INK not in chart


def test_reliability_of_empty_bins() -> None:
    share = np.array([0.0, 1.0])
    assert b"nan" not in quality.draw_reliability(share, np.array([np.nan, 0.5])).lower()


def images(count: int, shape: tuple[int, int, int], labels: list[int] | None = None) -> Examples:
    pixels = np.random.RandomState(0).randint(0, 256, (count, *shape)).astype(np.uint8)
    return Examples(pixels, np.array(labels or [0] * count, np.int64), shape)


@pytest.mark.parametrize(
    ("shape", "expected"), [((8, 8, 1), (8, 8, 1)), ((32, 20, 3), (32, 20, 3)), ((300, 200, 3), (96, 64, 3))]
)
def test_pictures_are_the_images_at_most_96_pixels_long(
    shape: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    examples = images(2, shape)
    for picture, pixels in zip(galleries.pictures(examples), examples.inputs, strict=True):
        decoded = tf.io.decode_png(picture).numpy()
        assert decoded.shape == expected
        if shape == expected:
            np.testing.assert_array_equal(decoded, pixels)


def test_pictures_of_streamed_files(tmp_path: Path) -> None:
    pixels = images(1, (4, 4, 3)).inputs[0]
    (tmp_path / "a.png").write_bytes(galleries.png(pixels))
    streamed = Examples(np.array([str(tmp_path / "a.png")]), np.zeros(1, np.int64), (4, 4, 3))
    np.testing.assert_array_equal(tf.io.decode_png(galleries.pictures(streamed)[0]), pixels)
