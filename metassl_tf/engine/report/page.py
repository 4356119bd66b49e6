"""The page around the sections: title, table of contents, style. Nothing in it comes from outside."""

import collections
import dataclasses
from collections.abc import Sequence

from metassl_tf.engine.report.markup import Html, element, escape, join, slug
from metassl_tf.engine.report.style import CSS

# A browser obeys this even if some text should slip through unescaped: no scripts, and nothing is fetched.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the page.

    Attributes:
      title: its heading, also its entry in the table of contents.
      html: what stands below the heading.
    """

    title: str
    html: Html


def render_page(title: str, subtitle: str, sections: Sequence[Section], *, footer: str) -> str:
    """Puts sections onto a page.

    Args:
      title: of the page.
      subtitle: one line below it.
      sections: in their order.
      footer: one line at the end.

    Returns:
      The text of a HTML file.
    """
    anchored = list(zip(_anchors([section.title for section in sections]), sections, strict=True))
    entries = [element("a", section.title, href=f"#{anchor}") for anchor, section in anchored]
    parts = [element("section", element("h2", section.title), section.html, id=anchor) for anchor, section in anchored]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Html(CSS)),
    )
    contents = element("nav", *entries, aria_label="Sections")
    body = element(
        "body",
        element("header", element("h1", title), element("p", subtitle), contents),
        element("main", *parts),
        element("footer", footer),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _anchors(titles: Sequence[str]) -> list[str]:
    """An anchor per title; titles that read alike are numbered."""
    seen: collections.Counter[str] = collections.Counter()
    anchors = []
    for title in titles:
        name = slug(title)
        seen[name] += 1
        anchors.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return anchors


def paragraphs(*texts: object, class_: str | None = None) -> Html:
    """A paragraph per text; empty texts leave none."""
    return join(element("p", escape(text), class_=class_) for text in texts if text)
