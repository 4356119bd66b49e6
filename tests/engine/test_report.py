"""The whole page, from contents made up here: what stands in it, that it is whole, and that it needs nothing else."""

import base64
import html
import json
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from metassl_tf.data.examples import Examples, Modality
from metassl_tf.engine.report.build import SECTIONS, render, write_report
from metassl_tf.engine.report.content import Content, Predictions, Regions
from metassl_tf.engine.report.usage import serve_section
from metassl_tf.engine.workdir import Workdir

HOSTILE = "<script>alert(\"x\")</script> & 'y' $\\frac$ 猫 \udcff"
VOID = {"br", "img", "link", "meta"}
IMAGE_TITLES = [
    "Result", "Curves", "Confusion matrix", "Recall per class", "Calibration", "Most confident mistakes",
    "Labeled examples", "Views", "Settings", "Reproduce", "Serve",
]  # fmt: skip


def examples(count: int, num_classes: int, modality: Modality, *, named: bool = False) -> Examples:
    random = np.random.RandomState(count)
    labels = np.arange(count, dtype=np.int64) % num_classes
    names = np.array([f"{HOSTILE[:-1]}-{number}.png" for number in range(count)]) if named else None
    if modality == "points":
        return Examples(random.randn(count, 2).astype(np.float32), labels, (2,), names)
    return Examples(random.randint(0, 256, (count, 6, 5, 3)).astype(np.uint8), labels, (6, 5, 3), names)


def predictions(count: int, num_classes: int, modality: Modality, *, name: str, wrong: int) -> Predictions:
    """The first `wrong` examples are taken for the next class, the more confidently the earlier they are."""
    told = examples(count, num_classes, modality, named=True)
    shown = (told.labels + (np.arange(count) < wrong)) % num_classes
    confidence = np.linspace(0.95, 0.7, count)[:, None]
    probabilities = np.full((count, num_classes), 1.0) * (1.0 - confidence) / (num_classes - 1)
    probabilities[np.arange(count), shown] = confidence[:, 0]
    return Predictions(name=name, probabilities=probabilities, examples=told)


def metrics(accuracy: float) -> dict[str, Any]:
    return {"accuracy": accuracy, "loss": 1.0 - accuracy, "calibration_error": 0.03125, "recall": [accuracy, None]}


def make_rows(sets: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "seconds": 1.5 * step,
            "examples_per_second": 100.0,
            "train": {
                "loss": 2.0 / step,
                "loss/consistency": 1e-4 * step,
                "share_above_threshold": 0.5,
                "norm_of_it": 3.0,
            },
            **{name: {"raw": metrics(0.4 + step / 100), "ema": metrics(0.5 + step / 100)} for name in sets},
        }
        for step in (10, 20, 30)
    ]


def make_content(
    *,
    num_classes: int = 3,
    modality: Modality = "image",
    sets: tuple[str, ...] = ("test", "validation"),
    wrong: int = 30,
    **changes: Any,
) -> Content:
    rows = make_rows(sets)
    best = {"step": 20, **{name: rows[1][name] for name in sets}} if "validation" in sets else None
    median = {kind: {"test_accuracy": 0.654321} for kind in ("raw", "ema")} if "test" in sets else {}
    result = {
        "test_accuracy": 0.8,
        "step": 30,
        "last": {name: rows[-1][name] for name in sets},
        "best_on_validation": best,
        "median_of_last_20": median,
        "seconds": 3725.0,
        "examples_per_second": 1234.5,
        "peak_memory_mb": 987.6,
        "seed": 7,
        "split_hash": "0123456789abcdef",
        "num_parameters": 1_470_000,
        "num_examples": {"labeled": 12, "unlabeled": 50, "validation": 5, "test": 120},
        "classes": ["a"] * num_classes,
        "versions": {"metassl_tf": "0.1.0", "tensorflow": "2.20.0"},
        "config": {
            "dataset": "made_up",
            "algorithm": "fixmatch",
            "model": "mlp",
            "widths": (1, 2),
            "data_dir": HOSTILE,
        },
    }
    views = {f"{side}/weak": examples(4, 2, "image").inputs for side in ("labeled", "unlabeled")}
    axis = np.linspace(-2.0, 2.0, 9)
    grid = np.full((9, 9, num_classes), 1.0 / num_classes)
    values: dict[str, Any] = {
        "result": result,
        "rows": rows,
        "flagfile": f"--dataset=made_up\n--data_dir={HOSTILE}\n",
        "workdir": Path("runs/a & b"),
        "class_names": (HOSTILE, *(f"class {number}" for number in range(1, num_classes))),
        "modality": modality,
        "labeled": examples(12, num_classes, modality, named=True),
        "unlabeled": examples(50, num_classes, modality),
        "predictions": predictions(120, num_classes, modality, name=sets[0], wrong=wrong) if sets else None,
        "views": views if modality == "image" else {},
        "regions": Regions(horizontal=axis, vertical=axis, probabilities=grid) if modality == "points" else None,
        **changes,
    }
    return Content(**values)


CONTENTS = {
    "images": {},
    "two classes": {"num_classes": 2},
    "a hundred classes": {"num_classes": 100},
    "points": {"num_classes": 2, "modality": "points"},
    "validation only": {"sets": ("validation",)},
    "nothing measured": {"sets": ()},
    "no mistakes": {"wrong": 0},
    "nothing evaluated": {"sets": (), "rows": []},
}


class Page(HTMLParser):
    """Reads a page, insisting that every element is closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    def having(self, attribute: str) -> Iterator[str]:
        return (attributes[attribute] or "" for _, attributes in self.elements if attribute in attributes)


def titles(page: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", page)


@pytest.mark.parametrize("changes", CONTENTS.values(), ids=CONTENTS)
def test_page_is_whole_and_needs_nothing_from_outside(changes: dict[str, Any]) -> None:
    text = render(make_content(**changes))
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
    shown = {*titles(render(make_content())), *titles(render(make_content(modality="points", num_classes=2)))}
    assert len(shown) == len(SECTIONS) == len(set(SECTIONS))


def test_headline_numbers() -> None:
    text = Page(render(make_content())).text
    for expected in (
        "80.00%", "70.00%", "65.43%", "best on validation (step 20)", "median of the last 3", "1 h 2 min 5 s",
        "1,234", "988 MB", "1,470,000", "0123456789abcdef", "tensorflow 2.20.0", "0.0312", "120 test",
    ):  # fmt: skip
        assert expected in text


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
