"""HTML from Python values: every string is escaped unless it is `Html`, so that no user text can become markup."""

import base64
import html
import re
from collections.abc import Iterable, Sequence

_VOID = {"br", "img", "link", "meta"}


class Html(str):
    """A string that is markup already. Every other string is escaped where it becomes part of an element."""

    __slots__ = ()


def printable(text: object, *, limit: int | None = None) -> str:
    """Makes any text safe to show: what cannot be printed becomes U+FFFD, and a text that is too long loses its middle.

    Args:
      text: a class name, a file name, a setting; may hold control characters or undecodable bytes.
      limit: most characters to keep; None keeps all.

    Returns:
      Text that can be encoded as UTF-8.
    """
    shown = "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}"
        for character in str(text)
    )
    if limit is None or len(shown) <= limit:
        return shown
    tail = (limit - 1) // 2
    return f"{shown[: limit - 1 - tail]}…{shown[len(shown) - tail :]}"


def escape(value: object) -> Html:
    """Returns `Html` unchanged and everything else as printable text with &, <, > and quotes escaped."""
    return value if isinstance(value, Html) else Html(html.escape(printable(value)))


def join(parts: Iterable[object]) -> Html:
    """Puts parts behind each other, escaping those that are not `Html`."""
    return Html("".join(escape(part) for part in parts))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """Builds one element.

    Args:
      tag: its name.
      *children: its content, in order; escaped unless `Html`.
      **attributes: its attributes; `class_` stands for class and `data_x` for data-x, None leaves one out.

    Returns:
      The element with its closing tag, or without one where HTML knows none.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def image(content: bytes, alt: str, *, kind: str = "png", class_: str | None = None) -> Html:
    """An image that is part of the page.

    Args:
      content: the file.
      alt: what it shows, for those who do not see it.
      kind: `png` or `svg+xml`.
      class_: its CSS class.

    Returns:
      An `img` element with a data: address.
    """
    address = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return element("img", src=address, alt=alt, class_=class_)


def chart(
    content: bytes, title: str, *, alt: str, note: object = "", natural: bool = False, scrolls: bool = False
) -> Html:
    """A chart with its title above and an optional note below.

    Args:
      content: an SVG file, as `charts.svg` makes it.
      title: what it shows.
      alt: the same for those who do not see it, with the numbers that matter.
      note: how to read it.
      natural: shown no larger than it was drawn, instead of as wide as there is room.
      scrolls: keeps a legible size on a narrow screen and scrolls there.

    Returns:
      A `figure` element.
    """
    picture = image(content, alt, kind="svg+xml")
    return element(
        "figure",
        element("figcaption", element("strong", title)),
        scroll(picture, label=title) if scrolls else picture,
        element("p", note, class_="note") if note else "",
        class_="chart natural" if natural else "chart",
    )


def table(header: Sequence[object], rows: Iterable[Sequence[object]], *, label: str, class_: str | None = None) -> Html:
    """A table whose first column names the rows. It scrolls by itself where the screen is narrow.

    Args:
      header: one cell per column; none for a table without a header.
      rows: the cells of each row.
      label: what the table shows, for those who do not see it.
      class_: its CSS class.

    Returns:
      A scrollable element around the table.
    """
    cells = [element("th", cell, scope="col") for cell in header]
    head = element("thead", element("tr", *cells)) if header else ""
    body = element(
        "tbody",
        *(
            element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))
            for first, *rest in rows
        ),
    )
    return scroll(element("table", head, body, aria_label=label, class_=class_), label=label)


def scroll(*children: object, label: str) -> Html:
    """A box that scrolls sideways where its content is wider than the screen; the keyboard reaches it."""
    return element("div", *children, class_="scroll", role="region", tabindex="0", aria_label=label)


def details(summary: str, *children: object) -> Html:
    """Content that is hidden until its summary is clicked."""
    return element("details", element("summary", summary), *children)


def slug(text: str) -> str:
    """An anchor name: `Recall per class` -> `recall-per-class`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
