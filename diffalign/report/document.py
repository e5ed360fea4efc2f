"""A self-contained page: head, style, sections, read-out script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffalign.report.html import Markup, el, join
from diffalign.report.style import READ_OUT, STYLE

__all__ = ["section", "write_page"]


def write_page(path: Path, title: str, body: Sequence[Markup | None]) -> Path:
    """Write a self-contained page in a single move, so that a reader never sees half of it."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(_document(title, body), encoding="utf-8", errors="replace")
    partial.replace(path)
    return path


def _document(title: str, body: Sequence[Markup | None]) -> str:
    """The whole document."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
        el("style", Markup(STYLE)),
    )
    main = el("main", *body)
    return "<!doctype html>\n" + el("html", head, el("body", main, el("script", Markup(READ_OUT))), lang="en")


def section(title: str, lead: str, parts: Sequence[Markup | None], grid: str | None = None) -> Markup | None:
    """Heading, one sentence, content; None without content."""
    content = [part for part in parts if part is not None]
    if not content:
        return None
    body = el("div", *content, class_=grid) if grid else join(*content)
    return el("section", el("h2", title), el("p", lead) if lead else None, body)
