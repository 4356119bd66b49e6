"""Which sections the page has, and the file it becomes."""

from collections.abc import Callable

from metassl_tf.engine.report.content import Content
from metassl_tf.engine.report.curves import curves_section
from metassl_tf.engine.report.galleries import labeled_section, mistakes_section, views_section
from metassl_tf.engine.report.headline import result_section
from metassl_tf.engine.report.lessons import lessons_section, targets_section
from metassl_tf.engine.report.page import Section, render_page
from metassl_tf.engine.report.quality import calibration_section, confusion_section, recall_section
from metassl_tf.engine.report.regions import regions_section
from metassl_tf.engine.report.usage import reproduce_section, serve_section, settings_section
from metassl_tf.engine.report.weighted_examples import suspicious_section, trusted_section, weights_map_section
from metassl_tf.engine.report.weights import weights_section
from metassl_tf.engine.workdir import Workdir, write_atomically

SectionFunction = Callable[[Content], Section | None]

SECTIONS: tuple[SectionFunction, ...] = (
    result_section,
    lessons_section,
    targets_section,
    weights_section,
    suspicious_section,
    trusted_section,
    weights_map_section,
    curves_section,
    regions_section,
    confusion_section,
    recall_section,
    calibration_section,
    mistakes_section,
    labeled_section,
    views_section,
    settings_section,
    reproduce_section,
    serve_section,
)


def render(content: Content) -> str:
    """Builds the page; the same content gives the same text.

    Args:
      content: of a finished run.

    Returns:
      The text of `index.html`.
    """
    config = content.result["config"]
    method = " + ".join([config["algorithm"], *config["meta"]])
    title = f"{config['dataset']} · {method} · {content.result['num_examples']['labeled']:,} labels"
    sections = [section for section in (make(content) for make in SECTIONS) if section is not None]
    return render_page(
        title,
        f"{config['model']}, {content.result['step']:,} steps, seed {content.result['seed']}",
        sections,
        footer=f"Written by metassl_tf {content.result['versions']['metassl_tf']} into {content.workdir}.",
    )


def write_report(content: Content, workdir: Workdir) -> None:
    """Writes `report/index.html` into a workdir.

    Args:
      content: of a finished run.
      workdir: where it lives.

    Raises:
      OSError: the disk is full or the folder cannot be written.
    """
    workdir.report.mkdir(exist_ok=True)
    page = render(content).encode()
    write_atomically(workdir.report / "index.html", lambda file: file.write(page))
