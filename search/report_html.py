"""How does a page come about? Elements whose text cannot be mistaken for markup, and one file without links."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any


class Html(str):
    """Markup; every other text is escaped where it enters a page."""


def tag(name: str, *children: object, **attributes: object) -> Html:
    """An element.

    Args:
        children: markup, text (escaped), or None (left out).
        attributes: values are escaped; None and False leave one out, True gives it no value. An underscore at the end
            of a name is dropped (`class_`), others become hyphens.
    """
    opening = "".join(_attribute(key, value) for key, value in attributes.items())
    inside = "".join(_inner(child) for child in children)
    return Html(f"<{name}{opening}>{inside}</{name}>")


def image(*, png: bytes, alt: str, **attributes: object) -> Html:
    """A PNG picture, held in the page itself."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    opening = "".join(_attribute(key, value) for key, value in {"src": source, "alt": alt, **attributes}.items())
    return Html(f"<img{opening}>")


def join(parts: Iterable[object]) -> Html:
    """Several elements one after the other."""
    return Html("".join(_inner(part) for part in parts))


def table(
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    numeric: Sequence[int] = (),
    sortable: bool = False,
    caption: str,
    class_: str = "",
    bold_first: bool = False,
) -> Html:
    """A table, in a frame that scrolls sideways where the page is narrow.

    Args:
        rows: cells are text, numbers (shown with four digits after the point, sorted in full), markup or None.
        numeric: columns that are aligned to the right.
        caption: read out by screen readers, not shown.
        bold_first: whether the first row stands out.
    """
    right = set(numeric)

    def cell(index: int, value: object) -> Html:
        order = repr(value) if isinstance(value, int | float) else None
        return tag("td", _shown(value), class_="num" if index in right else None, data_order=order)

    heads = [
        tag("th", tag("button", each, type="button") if sortable else each, scope="col",
            class_="num" if index in right else None)
        for index, each in enumerate(header)
    ]  # fmt: skip
    body = (
        tag("tr", *(cell(index, value) for index, value in enumerate(row)),
            class_="first" if bold_first and place == 0 else None)
        for place, row in enumerate(rows)
    )  # fmt: skip
    classes = " ".join(filter(None, [class_, "sortable" if sortable else ""]))
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", *heads)),
            tag("tbody", *body),
            class_=classes or None,
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def section(anchor: str, title: str, *body: object, note: object = None) -> Html:
    """A part of the page with a title; empty where nothing is in it."""
    if not any(body):
        return Html("")
    shown_note = tag("p", note, class_="note") if note else None
    return tag("section", tag("h2", title, id=f"{anchor}-title"), shown_note, *body, id=anchor,
               aria_labelledby=f"{anchor}-title")  # fmt: skip


def figure(chart: str, *, label: str, caption: object = None, **attributes: object) -> Html:
    """A place that the page's script draws a chart in.

    Args:
        label: what the chart shows, for those who cannot see it.
    """
    missing = tag("noscript", "This chart needs JavaScript.")
    plot = tag("div", missing, class_="plot", data_chart=chart, data_label=label, **attributes)
    return tag("figure", plot, tag("figcaption", caption) if caption else None)


def page(*, title: str, body: Html, data: Any, scripts: Sequence[str]) -> str:
    """A whole page that needs no other file and asks for none.

    Args:
        data: what the charts show, as JSON.
        scripts: files of this package, run in this order.
    """
    files = resources.files("search")
    script = "\n".join(files.joinpath(name).read_text(encoding="utf-8") for name in scripts)
    style = files.joinpath("report_page.css").read_text(encoding="utf-8")
    # Only the script that stands here may run, whatever a class or a file is called.
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    # In a script element only "</" and "<!--" end or change anything; without "<" there is neither.
    held = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n"
        f'<div id="tip" role="status" hidden></div>\n<script type="application/json" id="data">{held}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )
    return text.encode("utf-8", errors="replace").decode("utf-8")  # names of files need not be text


def number(value: float | None, digits: int = 4) -> str:
    """A score for a person: 0.9844, or 3.2e-05 where digits after the point would show nothing."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= 10**-digits else f"{value:.1e}"


def duration(seconds: float) -> str:
    """Seconds for a person: 48 s, 12 min 5 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def param_value(value: object) -> str:
    """A parameter's value for a person."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shown(value: object) -> object:
    return number(value) if isinstance(value, float) else value


def _inner(child: object) -> str:
    if child is None:
        return ""
    return child if isinstance(child, Html) else html.escape(str(child))


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value), quote=True)}"'
