"""One panel of the page: title, hint, legend and chart in a figure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

from diffalign.report.curves import Line, Points, line_chart
from diffalign.report.html import Markup, el, join
from diffalign.report.metrics_log import Metrics

__all__ = ["COLOURS", "LARGE", "SMALL", "last_step", "named", "panel", "ramp", "ramp_legend"]

COLOURS = tuple(f"var(--line-{i})" for i in range(1, 7))
SMALL, LARGE = (330, 170), (520, 230)


def panel(
    title: str,
    lines: list[Line],
    hint: str,
    last: int,
    *,
    zero: bool = False,
    size: tuple[int, int] = SMALL,
    legend: Markup | None = None,
) -> Markup:
    """A figure: title, hint, legend where there is more than one line, chart."""
    chart = line_chart(lines, label=f"{title} over optimisation steps: {hint}", size=size, zero=zero, steps=last)
    legend = legend or (_legend(lines) if len(lines) > 1 else None)
    caption = el("figcaption", el("b", title), el("span", hint, class_="hint"), legend)
    return el("figure", caption, chart, class_="panel large" if size == LARGE else "panel")


def named(found: Mapping[str, Points], kind: str = "line") -> list[Line]:
    """One line per name that has points."""
    colours = zip(found.items(), cycle(COLOURS), strict=False)
    return [Line(name, points, colour, kind) for (name, points), colour in colours if points]


def ramp(count: int) -> list[str]:
    """`count` colours from blue over violet to orange, each readable on white and on black."""
    anchors = ((47, 111, 219), (168, 85, 200), (226, 112, 36))
    positions = [2 * i / max(count - 1, 1) for i in range(count)]
    pairs = ((anchors[min(int(p), 1)], anchors[min(int(p), 1) + 1], p - min(int(p), 1)) for p in positions)
    mixed = ([round(a + (b - a) * t) for a, b in zip(start, end, strict=True)] for start, end, t in pairs)
    return ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in mixed]


def ramp_legend(indices: list[int], colours: list[str]) -> Markup:
    """First and last step index with the colours between them."""
    chips = join(*(el("i", class_="chip", style=f"background:{colour}") for colour in colours))
    ends = (str(indices[0]), str(indices[-1])) if len(indices) > 1 else (str(indices[0]), "")
    return el("span", el("span", "step index ", ends[0], " ", chips, " ", ends[1]), class_="legend")


def last_step(metrics: Metrics) -> int:
    """Last step of the log, the common end of all horizontal axes."""
    return int(metrics.steps[-1]["step"]) if metrics.steps else 0


def _legend(lines: list[Line]) -> Markup:
    """Colour chips with names."""
    chips = (
        el("span", el("i", class_=f"chip {line.kind}", style=f"background:{line.colour}"), line.name) for line in lines
    )
    return el("span", *chips, class_="legend")
