"""The sections about a teacher and its student: which curves they have, and which targets they show."""

import dataclasses
import html
import re

import numpy as np
import pytest
import tensorflow as tf

from metassl_tf.engine.report.build import render
from metassl_tf.engine.report.content import Content
from metassl_tf.engine.report.lessons import draw_targets, lessons_section, targets_section
from tests.engine.report_content import Page, make_content, make_taught, titles

STEPS = (4, 8, 12, 16, 20, 24, 28, 30)
# The second example's most probable class goes from 1 to 2 on the way.
FEW = {step: [[0.6, 0.3, 0.1], [0.2, 0.5 - 0.01 * step, 0.3 + 0.01 * step]] for step in STEPS}
MANY = {
    10: [[0.02] * 9 + [0.3, 0.2] + [0.02] * 16],
    30: [[0.02] * 9 + [0.3] + [0.02] * 10 + [0.05, 0.15] + [0.02] * 5],
}


def told(content: Content) -> dict[str, str]:
    section = lessons_section(content)
    assert section is not None
    return dict(re.findall(r'alt="([^"]*) over steps\. ([^"]*)"', html.unescape(section.html)))


def alts(content: Content) -> list[str]:
    section = targets_section(content)
    assert section is not None
    return re.findall(r'alt="(Targets of [^"]*)"', section.html)


def test_curves_over_steps_say_what_they_are() -> None:
    at, last = "at step 4", "at step 30"
    entropies = [np.mean([-np.sum(np.array(row) * np.log(row)) for row in FEW[step]]) for step in (4, 30)]
    assert told(make_taught(FEW)) == {
        "Training accuracy": " ".join(
            f"{name}: {value} {at}, {value} {last}."
            for name, value in (
                ("teacher, labeled examples", "75.00%"),
                ("student, labeled examples", "50.00%"),
                ("student, the teacher's labels", "25.00%"),
            )
        ),
        "Cosine of the student's gradients on labeled and on unlabeled examples": (
            f"cosine: 0.1250 {at}, 0.1250 {last}."
        ),
        "Mean entropy of the targets below": f"entropy: {entropies[0]:.4f} {at}, {entropies[1]:.4f} {last}.",
        "Targets below with another most probable class than at first": f"share: 0.00% {at}, 50.00% {last}.",
    }


def test_what_has_a_section_is_not_among_the_curves() -> None:
    curves = html.unescape(render(make_taught(FEW))).partition('id="curves"')[2].partition("</section>")[0]
    assert "baseline: 0.5000 at step 4" in curves
    assert not re.search(r"cosine|agreement|lessons|entropy", curves)


def test_a_teacher_without_feedback_has_no_cosine() -> None:
    content = make_taught(FEW)
    for row in content.rows:
        del row["train"]["feedback/cosine"]
    assert [title.split()[0] for title in told(content)] == ["Training", "Mean", "Targets"]


def test_without_a_teacher_there_is_nothing() -> None:
    assert lessons_section(make_content()) is None
    assert targets_section(make_content()) is None
    assert not {"Teacher and student", "Targets over the training"} & {*titles(render(make_content()))}


def test_stored_labels_stand_before_what_a_teacher_makes_of_them() -> None:
    content = make_taught(FEW)
    stored = np.full((len(content.unlabeled), 3), [0.1, 0.75, 0.15], np.float32)
    content = dataclasses.replace(content, unlabeled=content.unlabeled.with_columns({"teacher_label": stored}))
    assert alts(content)[0].startswith("Targets of unlabeled 0. stored: class 1 75%, class 2 15%, ")
    assert "; step 4: " in alts(content)[0]
    assert "what was stored before, then at the first evaluation" in targets_section(content).html


def test_an_evaluation_without_a_record_leaves_a_gap() -> None:
    """As of a run whose first part recorded nothing."""
    content = make_taught(FEW)
    for entry in ("lessons", "labeled", "teacher_labeled"):
        del content.rows[0][entry]
    assert told(content)["Training accuracy"].startswith("teacher, labeled examples: 75.00% at step 8, ")
    assert alts(content)[0].startswith("Targets of unlabeled 0. step 8: ")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(STEPS, [4, 8, 16, 24, 30]), ((10, 20, 30), [10, 20, 30]), ((30,), [30]), ((1, 2, 30), [1, 2, 30])],
)
def test_the_first_evaluation_and_those_nearest_to_the_quarters_are_shown(
    steps: tuple[int, ...], expected: list[int]
) -> None:
    """Of 30 steps; the earlier of two that are equally near."""
    content = make_taught({step: [[0.6, 0.4]] for step in steps}, modality="points")
    assert [int(step) for step in re.findall(r"step (\d+)", alts(content)[0])] == expected


def test_targets_are_told_the_most_probable_first() -> None:
    name = html.escape("<script>alert(\"x\")</script> & 'y' $\\frac$ 猫 \N{REPLACEMENT CHARACTER}")
    section = targets_section(make_taught(FEW))
    assert section is not None
    assert "Targets of unlabeled 10. step 4: class 1 46%, class 2 34%, " in section.html
    assert "step 30: class 2 60%, " in section.html
    assert f"true {name[:10]}" in section.html
    assert "2 unlabeled examples" in section.html
    assert "Named are" not in section.html


def test_images_have_their_thumbnails() -> None:
    content = make_taught(FEW)
    section = targets_section(content)
    assert section is not None
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', section.html)
    for picture, position in zip(pictures, (0, 10), strict=True):
        decoded = tf.io.decode_png(tf.io.decode_base64(picture.translate(str.maketrans("+/", "-_")).rstrip("=")))
        np.testing.assert_array_equal(decoded, content.unlabeled.inputs[position])
    points = targets_section(make_taught(FEW, modality="points"))
    assert points is not None
    x, y = make_taught(FEW, modality="points").unlabeled.inputs[10]
    assert f"unlabeled 10, at {x:.2f}, {y:.2f}" in Page(points.html).text
    assert "image/png" not in points.html


def test_of_many_classes_the_most_probable_are_named_and_the_rest_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(
        "metassl_tf.engine.report.lessons.draw_targets", lambda *arguments: drawn.append(arguments) or b"<svg/>"
    )
    content = make_taught(MANY)
    section = targets_section(content)
    assert section is not None
    assert "Named are the 3 most probable classes of each of these" in section.html
    (names, colors, evaluations, probabilities), *_ = drawn
    # By either evaluation, the earlier of equals; the true class, 0, is among them.
    assert [*names[1:]] == ["class 9", "class 10", "class 20", "class 21", "all others"]
    assert len(set(colors)) == 3
    assert evaluations == ["step 10", "step 30"]
    # The first evaluation did not keep classes 20 and 21 among its ten, nor the second class 10.
    np.testing.assert_allclose(probabilities, [[0.02, 0.3, 0.2, 0, 0, 0.48], [0.02, 0.3, 0, 0.05, 0.15, 0.48]])


def test_bars_are_as_long_as_probabilities() -> None:
    chart = draw_targets(["a", "b"], ["#112233", "#445566"], ["first", "last"], np.array([[0.25, 0.75], [1.0, 0.5]]))
    bars = re.findall(
        r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [^"]*"[^>]*style="fill: (#112233|#445566)', chart.decode()
    )
    lengths = [float(right) - float(left) for left, right, _ in bars]
    assert [color for *_, color in bars] == ["#112233", "#445566"] * 2
    np.testing.assert_allclose(np.array(lengths) / lengths[2], [0.25, 0.75, 1.0, 0.5], atol=1e-3)
    assert {"first", "last", "a", "b"} <= {*re.findall("<text.*?>(.*?)</text>", chart.decode())}
