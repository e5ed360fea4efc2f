"""Draws the kept runs of a recipe: trained reward and held-out score, one line per seed, as one SVG for its page."""

from __future__ import annotations

import csv
from pathlib import Path

from diffalign.report.curves import Line, line_chart, smooth
from diffalign.report.html import Markup, el

COLOURS = ("#2a6fdb", "#d9661f", "#1e8a5b", "#8a4fd0", "#c93a6e", "#1a8a99")
PANELS = (("reward", "trained reward", 12), ("heldout", "held-out score, strict", None))
"""Column of curve.csv, title, and which part of the steps is averaged for a point: one in so many."""
SIZE, GAP, HEAD = (360, 190), 30, 26
STYLE = """
text { font-family: system-ui, sans-serif; fill: #656a73; } .tick { font-size: 11px; } .power { font-size: 8.5px; }
.title { font-size: 13px; } .end { text-anchor: end; } .middle { text-anchor: middle; } .rule { stroke: #8884; }
path { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
"""


def draw(recipe: Path, target: Path) -> None:
    """Write the figure of the runs under ``recipe/seed-<n>``.

    Raises:
        ValueError: no run has a curve.
    """
    curves = {path.parent.name.replace("-", " "): _read(path) for path in sorted(recipe.glob("seed-*/curve.csv"))}
    if not curves:
        raise ValueError(f"{recipe} has no seed-<n>/curve.csv: keep a run first")
    parts = [_panel(curves, i) for i in range(len(PANELS))]
    width, height = len(PANELS) * SIZE[0] + (len(PANELS) - 1) * GAP, SIZE[1] + HEAD
    figure = el("svg", el("style", Markup(STYLE)), *parts, xmlns="http://www.w3.org/2000/svg",
                viewBox=f"0 0 {width} {height}", width=width, height=height)  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(str(figure) + "\n", encoding="utf-8")


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _panel(curves: dict[str, list[dict[str, str]]], index: int) -> Markup:
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
