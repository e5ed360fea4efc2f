"""Intervals of gains on one common axis, one small SVG per table row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffalign.report.html import Markup, el
from diffalign.report.ticks import nice_ticks, tick_labels

__all__ = ["axis", "forest_range", "interval_bar", "verdict"]

WIDTH, HEIGHT, EDGE = 190, 18, 14


def forest_range(entries: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Common range of all intervals; zero is always inside."""
    low = min(0.0, *(entry["low"] for entry in entries))
    high = max(0.0, *(entry["high"] for entry in entries))
    return (low, high) if high > low else (-0.1, 0.1)


def verdict(entry: Mapping[str, float]) -> str:
    """CSS class: `good` where the whole interval is above zero, `bad` below, `open` where it contains zero."""
    return "good" if entry["low"] > 0 else "bad" if entry["high"] < 0 else "open"


def interval_bar(entry: Mapping[str, float], limits: tuple[float, float]) -> Markup:
    """Interval as a bar, gain as a dot, and the line of no gain.

    Args:
        entry: With `gain`, `low` and `high`.
        limits: Common range of the rows, from `forest_range`.
    """
    low, high, gain = (_x(entry[key], limits) for key in ("low", "high", "gain"))
    middle = HEIGHT / 2
    return _svg(
        el("line", x1=_x(0, limits), x2=_x(0, limits), y1=0, y2=HEIGHT, class_="none"),
        el("line", x1=low, x2=high, y1=middle, y2=middle, class_="span"),
        el("circle", cx=gain, cy=middle, r=4, class_="gain"),
        class_=f"forest {verdict(entry)}",
    )


def axis(limits: tuple[float, float]) -> Markup:
    """Tick labels of the rows' common range."""
    ticks = nice_ticks(*limits)
    labels, exponent = tick_labels(ticks)
    texts = labels if not exponent else [f"{tick:.1g}".replace("-", "−") for tick in ticks]
    marks = (
        el("text", "0" if t == 0 else s if t < 0 else f"+{s}", x=_x(t, limits), y=13, class_="tick middle")
        for t, s in zip(ticks, texts, strict=True)
    )
    return _svg(*marks, class_="forest")


def _x(value: float, limits: tuple[float, float]) -> float:
    """Horizontal position of a gain."""
    return EDGE + (value - limits[0]) / (limits[1] - limits[0]) * (WIDTH - 2 * EDGE)


def _svg(*children: Markup, class_: str) -> Markup:
    """One row's drawing; the numbers are beside it in the table, so it is hidden from screen readers."""
    box = f"0 0 {WIDTH} {HEIGHT}"
    return el("svg", *children, viewBox=box, width=WIDTH, height=HEIGHT, class_=class_, aria_hidden="true")
