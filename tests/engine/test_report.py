"""The whole page, from contents made up here: what stands in it, that it is whole, and that it needs nothing else."""

import base64
import html
import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from metassl_tf.engine.report.build import SECTIONS, render, write_report
from metassl_tf.engine.report.content import Content
from metassl_tf.engine.report.usage import serve_section
from metassl_tf.engine.workdir import Workdir
from tests.engine.report_content import (
    Page,
    make_content,
    make_rows,
    make_taught,
    make_weighted,
    make_weights,
    metrics,
    titles,
)

IMAGE_TITLES = [
    "Result", "Curves", "Confusion matrix", "Recall per class", "Calibration", "Most confident mistakes",
    "Labeled examples", "Views", "Settings", "Reproduce", "Serve",
]  # fmt: skip
TARGETS = {10: [[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], 20: [[0.2, 0.7, 0.1], [0.2, 0.3, 0.5]]}
WEIGHTS = make_weights(np.linspace(0.0, 1.6, 50), trustworthy=np.arange(50) % 4 > 0)
CONTENTS = {
    "images": make_content(),
    "two classes": make_content(num_classes=2),
    "a hundred classes": make_content(num_classes=100),
    "points": make_content(num_classes=2, modality="points"),
    "validation only": make_content(sets=("validation",)),
    "nothing measured": make_content(sets=()),
    "no mistakes": make_content(wrong=0),
    "nothing evaluated": make_content(sets=(), rows=[]),
    "weights of images": make_weighted(WEIGHTS),
    "weights of points": make_weighted(WEIGHTS, modality="points"),
    "a single weight": make_weighted(WEIGHTS, weights=None),
    "a teacher of images": make_taught(TARGETS),
    "a teacher of points": make_taught(TARGETS, modality="points"),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_page_is_whole_and_needs_nothing_from_outside(content: Content) -> None:
    text = render(content)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    for tag in ("script", "iframe", "object", "base"):
        assert tag not in {name for name, _ in page.elements}
    assert all(address.startswith(("data:", "#")) for name in ("src", "href") for address in page.having(name))
    assert not re.search(r"url\(|@import|srcset", text)
    identifiers = list(page.having("id"))
    assert [f"#{identifier}" for identifier in identifiers] == [*page.having("href")][1:]
    assert len(set(identifiers)) == len(identifiers) == len(titles(text))
    assert all(attributes.get("alt") for name, attributes in page.elements if name == "img")
    text.encode("utf-8")


def test_charts_are_self_contained_svg() -> None:
    text = render(make_content())
    charts = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', text)
    assert len(charts) >= 6
    for chart in charts:
        root = ElementTree.fromstring(base64.b64decode(chart))
        links = [value for node in root.iter() for name, value in node.attrib.items() if name.endswith("href")]
        assert all(link.startswith(("#", "data:")) for link in links)
        assert b"prefers-color-scheme" in base64.b64decode(chart)


def test_sections_for_images() -> None:
    assert titles(render(make_content())) == IMAGE_TITLES


def test_sections_for_points() -> None:
    found = titles(render(make_content(modality="points", num_classes=2)))
    assert "Decision regions" in found
    assert not {"Most confident mistakes", "Labeled examples", "Views"} & set(found)


def test_every_section_function_is_used() -> None:
    contents = [*(make_weighted(WEIGHTS, modality=kind) for kind in ("image", "points")), make_taught(TARGETS)]
    shown = {title for content in contents for title in titles(render(content))}
    assert len(shown) == len(SECTIONS) == len(set(SECTIONS))


def test_headline_numbers() -> None:
    text = Page(render(make_content())).text
    assert "made_up · fixmatch + per_example_weights · 12 labels" in text
    for expected in (
        "80.00%", "70.00%", "65.43%", "best on validation (step 20)", "median of the last 3", "1 h 2 min 5 s",
        "1,234", "988 MB", "1,470,000", "0123456789abcdef", "tensorflow 2.20.0", "0.0312", "9 meta-validation",
        "120 test",
    ):  # fmt: skip
        assert expected in text
    content = make_content()
    content.result["num_examples"]["meta_validation"] = 0
    assert "meta-validation" not in render(content)


def test_teacher_and_fine_tuned_student_stand_beside_the_student() -> None:
    content = make_content()
    for name, accuracy in (("fine_tuned", 0.8125), ("teacher", 0.7654)):
        content.result[name] = {"test": {"raw": metrics(accuracy - 0.01), "ema": metrics(accuracy)}}
    for row in content.rows:
        row["teacher_test"] = {"raw": metrics(0.5), "ema": metrics(0.6)}
    page = render(content)
    for expected in ("fine-tuned", "81.25%", "80.25%", "76.54%", "teacher test, EMA"):
        assert expected in page
    assert "teacher" not in render(make_content())


def test_without_a_test_set_validation_is_shown_and_said_so() -> None:
    text = Page(render(make_content(sets=("validation",)))).text
    assert "There is no test set" in text
    assert "Validation accuracy of the averaged weights" in text
    assert "120 validation examples by true and predicted class" in text


def test_without_any_set_the_page_says_so() -> None:
    page = render(make_content(sets=()))
    assert "neither a test set nor a validation set" in page
    assert not {"Confusion matrix", "Calibration"} & set(titles(page))


def test_user_text_cannot_become_markup() -> None:
    text = render(make_content())
    assert "<script" not in text
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp;" in text
    # As a class name, a setting, a line of the flagfile and a file name.
    assert Page(text).text.count("<script>alert") >= 4
    assert "runs/a &amp; b" in text


def test_a_metric_that_nobody_knew_has_its_curve() -> None:
    rows = make_rows(("test",))
    for row in rows:
        row["train"] |= {"loss/of_tomorrow": 1.0, "surprise": 2.0}
        row["test"]["ema"]["agreement"] = 0.5
        row["meta"] = {"weight_spread": 0.25}
    page = html.unescape(render(make_content(rows=rows)))
    told = dict(re.findall(r'alt="([^"]*) over steps\. ([^"]*)"', page))
    assert "of tomorrow: 1 at step 10" in told["Loss terms in training batches"].replace("1.0000", "1")
    assert {"Surprise", "Agreement", "meta: Weight spread", "Norm of it"} <= set(told)


def test_a_line_alone_is_named_in_the_title() -> None:
    rows = make_rows(("test",))
    for row in rows:
        row["train"] = {"share_of_one": 0.5, "loss": 1.0, "loss/other": 1.0}
    told = set(re.findall(r'alt="([^"]*) over steps\.', html.unescape(render(make_content(rows=rows)))))
    assert {"Shares and accuracies in training batches: share of one", "Loss terms in training batches"} <= told


def test_the_most_confident_mistakes_come_first() -> None:
    page = render(make_content(wrong=30))
    section = page.partition('id="most-confident-mistakes"')[2].partition("</section>")[0]
    assert "24 of 30 mistakes" in section
    confidences = [float(value) for value in re.findall(r"predicted [^<]*?, ([\d.]+)%", section)]
    assert len(confidences) == 24
    assert confidences == sorted(confidences, reverse=True)
    assert confidences[0] == 95.0
    assert "true class 1" in section


def test_confusions_of_few_classes_carry_numbers_and_those_of_many_do_not() -> None:
    few, many = (
        base64.b64decode(re.findall(r'id="confusion-matrix".*?base64,([^"]+)"', render(make_content(num_classes=k)))[0])
        for k in (3, 100)
    )
    assert few.count(b"<text") == 3 + 3 + 2 + 6
    assert b"class 1" in few
    assert b"class 1" not in many


def test_same_content_gives_the_same_page() -> None:
    assert render(make_content(num_classes=4)) == render(make_content(num_classes=4))


def test_report_is_written_whole(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    content = make_content(sets=())
    for _ in range(2):
        write_report(content, workdir)
        assert [path.name for path in workdir.report.iterdir()] == ["index.html"]
    assert (workdir.report / "index.html").read_text(encoding="utf-8") == render(content)


def test_shown_commands_can_be_pasted() -> None:
    content = make_content(modality="points", num_classes=2, workdir=Path("it's mine; rm -r x"))
    python, shell = map(html.unescape, re.findall("<code>(.*?)</code>", serve_section(content).html, re.DOTALL))
    compile(python, "shown", "exec")
    assert "it's mine; rm -r x/export" in python
    assert shlex.split(re.findall(r"realpath (.*)\)", shell)[0]) == ["it's mine; rm -r x/export"]
    request = shlex.split(shell.partition("curl ")[2])[-1]
    assert np.shape(json.loads(request)["instances"]) == (1, 2)
