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


def task_bars(series: Sequence[tuple[str, Entries]]) -> Markup:
    """A figure with legend, for tasks in the order of the first result.

    Args:
        series: label and entries by task of each result; an entry has `score`, `low` and `high`.
    """
    tasks = list(series[0][1])
    top = max((entry["high"] for _, entries in series for entry in entries.values()), default=1.0)
    limit = 1.0 if 0.5 < top <= 1 else (top or 1.0) * 1.05
    band = len(series) * BAR + GAP
    height = HEAD + len(tasks) * band + 18
    colours = [colour for _, colour in zip(series, cycle(COLOURS), strict=False)]
    rows = (
        _task(task, [entries.get(task) for _, entries in series], colours, HEAD + row * band, limit)
        for row, task in enumerate(tasks)
    )
    chart = el(
        "svg", _axis(limit, height), *rows, viewBox=f"0 0 {WIDTH} {height}", class_="chart", role="img",
        aria_label="scores by task",
    )  # fmt: skip
    chips = (
        el("span", el("i", class_="chip", style=f"background:{colour}"), label)
        for (label, _), colour in zip(series, colours, strict=True)
    )
    return el("figure", el("figcaption", el("span", *chips, class_="legend")), chart, class_="panel bars")


def _task(
    task: str, entries: Sequence[Mapping[str, float] | None], colours: Sequence[str], top: float, limit: float
) -> Markup:
    """The bars of one task, its name at their left."""
    middle = top + len(entries) * BAR / 2
    name = el("text", task.replace("_", " "), x=LEFT - 8, y=middle + 4, class_="tick end name")
    bars = (
        _bar(entry, colour, top + row * BAR, limit)
        for row, (entry, colour) in enumerate(zip(entries, colours, strict=True))
        if entry is not None
    )
    return join(name, *bars)


def _bar(entry: Mapping[str, float], colour: str, top: float, limit: float) -> Markup:
    """One bar, its interval as a line across its end, its number behind."""
    score, low, high = (_x(entry[key], limit) for key in ("score", "low", "high"))
    middle = top + BAR / 2
    return join(
        el("rect", x=LEFT, y=top + 1, width=max(score - LEFT, 0.0), height=BAR - 2, fill=colour, rx=2),
        el("line", x1=low, x2=high, y1=middle, y2=middle, class_="whisker"),
        el("text", f"{entry['score']:.3f}", x=max(score, high) + 6, y=middle + 4, class_="tick"),
    )


def _axis(limit: float, height: float) -> Markup:
    """Vertical rules with their values below."""
    ticks = nice_ticks(0.0, limit)
    labels, exponent = tick_labels(ticks)
    texts = labels if not exponent else [f"{tick:.1g}" for tick in ticks]
    rules = (el("line", x1=_x(t, limit), x2=_x(t, limit), y1=0, y2=height - 18, class_="rule") for t in ticks)
    numbers = (
        el("text", text, x=_x(t, limit), y=height - 5, class_="tick middle")
        for t, text in zip(ticks, texts, strict=True)
    )
    return join(*rules, *numbers)


def _x(value: float, limit: float) -> float:
    return LEFT + min(max(value, 0.0), limit) / limit * (WIDTH - LEFT - RIGHT)
