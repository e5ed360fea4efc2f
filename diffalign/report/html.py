"""Elements as escaped text: plain strings are always escaped, only what `el` made is taken as HTML.

Prompts, reward names, paths and settings come from outside; with this no section can forget to escape one.
"""

from __future__ import annotations

from html import escape

__all__ = ["Markup", "el", "join"]

VOID = {"img", "meta", "br"}
Attribute = str | int | float | None


class Markup(str):
    """Text that is HTML already."""


def el(name: str, /, *children: str | None, **attributes: Attribute) -> Markup:
    """One HTML or SVG element.

    Args:
        name: Tag name.
        children: Content; a plain string is escaped, `Markup` is not, None is left out.
        attributes: Attributes. `class_` stands for `class`, `stroke_width` for `stroke-width`; None is left out.

    Returns:
        The element as `Markup`.
    """
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    opening = "".join(f' {key}="{escape(_text(value))}"' for key, value in pairs)
    if name in VOID:
        return Markup(f"<{name}{opening}>")
    return Markup(f"<{name}{opening}>{join(*children)}</{name}>")


def join(*children: str | None) -> Markup:
    """Children one after another, escaped where they are not `Markup`."""
    kept = (child for child in children if child is not None)
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in kept))


def _text(value: str | int | float) -> str:
    """Coordinates to two decimals without trailing zeros: thousands of them make up most of a page."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
