"""Scores by task as horizontal bars, one per result, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

from diffalign.report.figure import COLOURS
from diffalign.report.html import Markup, el, join
from diffalign.report.ticks import nice_ticks, tick_labels

__all__ = ["task_bars"]

WIDTH, LEFT, RIGHT = 760, 150, 60
BAR, GAP, HEAD = 12, 12, 6
"""Pixels: thickness of a bar, space between tasks, and above the first."""
Entries = Mapping[str, Mapping[str, float]]
Span = tuple[float, float]
"""Ends of the axis of scores."""


def task_bars(series: Sequence[tuple[str, Entries]]) -> Markup:
    """A figure with legend, for tasks in the order of the first result.

    Args:
        series: label and entries by task of each result; an entry has `score`, `low` and `high`.
    """
    tasks = list(series[0][1])
    span = _span([entry for _, entries in series for entry in entries.values()])
    band = len(series) * BAR + GAP
    height = HEAD + len(tasks) * band + 18
    colours = [colour for _, colour in zip(series, cycle(COLOURS), strict=False)]
    rows = (
        _task(task, [entries.get(task) for _, entries in series], colours, HEAD + row * band, span)
        for row, task in enumerate(tasks)
    )
    chart = el(
        "svg", _axis(span, height), *rows, viewBox=f"0 0 {WIDTH} {height}", class_="chart", role="img",
        aria_label="scores by task",
    )  # fmt: skip
    chips = (
        el("span", el("i", class_="chip", style=f"background:{colour}"), label)
        for (label, _), colour in zip(series, colours, strict=True)
    )
    return el("figure", el("figcaption", el("span", *chips, class_="legend")), chart, class_="panel bars")


def _task(
    task: str, entries: Sequence[Mapping[str, float] | None], colours: Sequence[str], top: float, span: Span
) -> Markup:
    """The bars of one task, its name at their left."""
    middle = top + len(entries) * BAR / 2
    name = el("text", task.replace("_", " "), x=LEFT - 8, y=middle + 4, class_="tick end name")
    bars = (
        _bar(entry, colour, top + row * BAR, span)
        for row, (entry, colour) in enumerate(zip(entries, colours, strict=True))
        if entry is not None
    )
    return join(name, *bars)


def _bar(entry: Mapping[str, float], colour: str, top: float, span: Span) -> Markup:
    """One bar, its interval as a line across its end, its number behind."""
    score, low, high = (_x(entry[key], span) for key in ("score", "low", "high"))
    middle, zero = top + BAR / 2, _x(0.0, span)
    return join(
        el("rect", x=min(zero, score), y=top + 1, width=abs(score - zero), height=BAR - 2, fill=colour, rx=2),
        el("line", x1=low, x2=high, y1=middle, y2=middle, class_="whisker"),
        el("text", f"{entry['score']:.3f}", x=max(score, high) + 6, y=middle + 4, class_="tick"),
    )


def _axis(span: Span, height: float) -> Markup:
    """Vertical rules with their values below."""
    ticks = nice_ticks(*span)
    labels, exponent = tick_labels(ticks)
    texts = labels if not exponent else [f"{tick:.1g}" for tick in ticks]
    rules = (el("line", x1=_x(t, span), x2=_x(t, span), y1=0, y2=height - 18, class_="rule") for t in ticks)
    numbers = (
        el("text", text, x=_x(t, span), y=height - 5, class_="tick middle")
        for t, text in zip(ticks, texts, strict=True)
    )
    return join(*rules, *numbers)


def _span(entries: Sequence[Mapping[str, float]]) -> Span:
    """Ends of the axis: 0 and what reaches furthest on either side, the whole of [0, 1] for high shares."""
    high = max((entry["high"] for entry in entries), default=1.0)
    low = min((entry["low"] for entry in entries), default=0.0)
    high = 1.0 if 0.5 < high <= 1 else max(high, 0.0) * 1.05
    low = min(low, 0.0) * 1.05
    return (low, high) if high > low else (0.0, 1.0)


def _x(value: float, span: Span) -> float:
    low, high = span
    return LEFT + (min(max(value, low), high) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
