"""Draws the kept runs of a method: trained reward and held-out score, one line per seed, as one SVG for its page."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from benchmarks.alignment.results import Row
from diffalign.report.curves import Line, line_chart, smooth
from diffalign.report.html import Markup, el

COLOURS = ("#2a6fdb", "#d9661f", "#1e8a5b", "#8a4fd0", "#c93a6e", "#1a8a99")
PANELS = (("reward", "trained reward", 12), ("heldout", "held-out score, strict", None))
"""Column, title, and the share of the steps that each point averages: one part in so many."""
SIZE, GAP, HEAD = (360, 190), 30, 26
STYLE = """
text { font-family: system-ui, sans-serif; fill: #656a73; } .tick { font-size: 11px; } .power { font-size: 8.5px; }
.title { font-size: 13px; } .end { text-anchor: end; } .middle { text-anchor: middle; } .rule { stroke: #8884; }
path { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
"""


def draw(curve: list[Row], target: Path) -> None:
    """Write the figure of one method.

    Args:
        curve: Its kept curves, as `Results.curve` reads them.
        target: SVG file.

    Raises:
        ValueError: If there is no curve.
    """
    if not curve:
        raise ValueError(f"no curve to draw {target.name} from: keep a run first")
    curves = {f"seed {seed}": list(rows) for seed, rows in groupby(curve, key=lambda row: row["seed"])}
    parts = [_panel(curves, i) for i in range(len(PANELS))]
    width, height = len(PANELS) * SIZE[0] + (len(PANELS) - 1) * GAP, SIZE[1] + HEAD
    figure = el("svg", el("style", Markup(STYLE)), *parts, xmlns="http://www.w3.org/2000/svg",
                viewBox=f"0 0 {width} {height}", width=width, height=height)  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(str(figure) + "\n", encoding="utf-8")


def _panel(curves: dict[str, list[Row]], index: int) -> Markup:
    """Title, colours of the seeds, and the chart of one column over optimiser steps."""
    column, title, part = PANELS[index]
    lines = []
    for (name, rows), colour in zip(curves.items(), COLOURS, strict=False):
        points = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
        window = max(len(points) // part, 1) if part else 1
        lines.append(Line(name, smooth(points, window), colour, "dots" if column == "heldout" else "line"))
    left = index * (SIZE[0] + GAP)
    names = (el("tspan", f"  {line.name}", fill=line.colour) for line in lines)
    heading = el("text", title, *names, x=left + 4, y=14, class_="title")
    chart = line_chart([line for line in lines if line.points], label=f"{title} over optimiser steps", size=SIZE)
    return el("g", heading, el("svg", chart, x=left, y=HEAD, width=SIZE[0], height=SIZE[1]))
