"""Line charts as inline SVG: pure functions of points, no plotting library.

Colours come from CSS variables, so one figure reads on a light and on a dark page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from diffalign.report.html import Markup, el, join
from diffalign.report.ticks import nice_ticks, padded_range, tick_labels

__all__ = ["Line", "line_chart", "smooth", "thin"]

Points = list[tuple[int, float]]
Scale = Callable[[float], float]
TOP, RIGHT, BOTTOM = 14, 10, 20  # margins in SVG units (about pixels)
CHARACTER = 6.4  # width of a digit at the tick font size
MOST_POINTS = 240  # per line: more than the pixels a panel has is weight without sight


class Line(NamedTuple):
    """One line of a chart.

    Attributes:
        name: For the legend and the read-out.
        points: `(step, value)` by rising step.
        colour: CSS colour.
        kind: `line`, `faint` (raw values behind their mean) or `dots` (few measurements).
    """

    name: str
    points: Points
    colour: str
    kind: str = "line"


def line_chart(
    lines: Sequence[Line],
    *,
    label: str,
    size: tuple[int, int] = (330, 170),
    zero: bool = False,
    steps: int | None = None,
) -> Markup:
    """Draw lines over optimisation steps.

    Args:
        lines: At least one line with at least one point.
        label: Description, for readers who cannot see it.
        size: Width and height in SVG units; the figure grows to the width of its column.
        zero: Let the vertical axis begin at zero.
        steps: Last step of the run, so that all panels share one horizontal axis.

    Returns:
        An `<svg>` element that carries its own points for the read-out script.
    """
    drawn = [line._replace(points=thin(line.points)) for line in lines]
    low, high = padded_range([value for line in drawn for _, value in line.points], zero=zero)
    first = min(line.points[0][0] for line in drawn)
    last = max(steps or 0, *(line.points[-1][0] for line in drawn), first + 1)
    y_ticks = nice_ticks(low, high)
    labels, exponent = tick_labels(y_ticks)
    left = 8 + CHARACTER * max(len(text) for text in labels)
    x = _scale(first, last, left + 4, size[0] - RIGHT)
    y = _scale(low, high, size[1] - BOTTOM, TOP)
    return el(
        "svg",
        _grid(y_ticks, labels, y, left, size[0]),
        _exponent(exponent),
        _steps(first, last, x, size),
        *(_draw(line, x, y) for line in drawn),
        viewBox=f"0 0 {size[0]} {size[1]}",
        role="img",
        aria_label=label,
        class_="chart",
        data_x=json.dumps([first, last, round(left + 4, 2), size[0] - RIGHT]),
        data_lines=json.dumps([[line.name, [[s, _short(v)] for s, v in line.points]] for line in drawn]),
    )


def smooth(points: Points, window: int) -> Points:
    """Centred running mean over up to `window` points (fewer at the ends, so that no point is made up)."""
    half = window // 2
    values = [value for _, value in points]
    spans = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [(step, sum(span) / len(span)) for (step, _), span in zip(points, spans, strict=True)]


def thin(points: Points, most: int = MOST_POINTS) -> Points:
    """At most about `most` points, keeping the lowest and highest of each stretch so that no spike is lost."""
    if len(points) <= most:
        return points
    width = -(-2 * len(points) // most)
    stretches = (points[i : i + width] for i in range(0, len(points), width))
    return [p for stretch in stretches for p in sorted({min(stretch, key=_value), max(stretch, key=_value)})]


def _value(point: tuple[int, float]) -> float:
    return point[1]


def _short(value: float) -> float:
    """Five significant digits."""
    return float(f"{value:.5g}")


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    """Linear map of `[low, high]` onto `[start, end]`."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _grid(ticks: Sequence[float], labels: Sequence[str], y: Scale, left: float, width: int) -> Markup:
    """Horizontal rules with their labels."""
    rules = (el("line", x1=left, x2=width - RIGHT, y1=y(t), y2=y(t), class_="rule") for t in ticks)
    texts = (
        el("text", text, x=left - 5, y=y(t) + 3.5, class_="tick end") for t, text in zip(ticks, labels, strict=True)
    )
    return join(*rules, *texts)


def _exponent(exponent: int) -> Markup | None:
    """The power of ten of the vertical axis, at its head."""
    if not exponent:
        return None
    return el(
        "text", "×10", el("tspan", f"{exponent}".replace("-", "−"), dy=-4, class_="power"), x=0, y=9, class_="tick"
    )


def _steps(first: int, last: int, x: Scale, size: tuple[int, int]) -> Markup:
    """Step numbers under the chart."""
    ticks = nice_ticks(first, last, 4, whole=True)
    return join(*(el("text", f"{t:.0f}", x=x(t), y=size[1] - 5, class_="tick middle") for t in ticks))


def _draw(line: Line, x: Scale, y: Scale) -> Markup:
    """Path of a line, and its marks where the measurements are few."""
    path = "M" + "L".join(f"{x(step):.1f},{y(value):.1f}" for step, value in line.points)
    stroke = el("path", d=path, class_=line.kind, stroke=line.colour)
    marks = line.points if line.kind == "dots" or len(line.points) == 1 else []
    return join(stroke, *(el("circle", cx=x(s), cy=y(v), r=3, fill=line.colour, class_="mark") for s, v in marks))
