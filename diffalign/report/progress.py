"""Panels of held-out scores, overall and by task, and of rewards; every curve says its guidance scale."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from diffalign.report.curves import Line, Points, smooth
from diffalign.report.figure import COLOURS, LARGE, SMALL, last_step, named, panel
from diffalign.report.html import Markup
from diffalign.report.metrics_log import Metrics, Row, series

__all__ = ["by_scale", "held_out_panel", "main_scale", "reward_panels", "scale_name", "task_panel", "watch_panels"]

MEASURES = {
    "high_frequency": "share of the spectral energy in fine detail: grids and noise raise it, blur lowers it",
    "saturation": "mean colour saturation (HSV)",
    "clipped": "share of values at the ends of the range",
    "diversity": "distance between images of one prompt",
}
"""Measure of the watchdog -> its meaning."""


def held_out_panel(metrics: Metrics) -> Markup | None:
    """Held-out overall score over training; None without evaluations.

    One line per guidance scale, and one of its own for before and after: these are drawn from more images, with other
    noise, and joined to a curve they would look like a jump at its end.
    """
    rows = {scale_name(scale) or "held-out": some for scale, some in by_scale(metrics.on_the_way).items()}
    ends = [row for row in metrics.evaluations if row.get("protocol")]
    scales = [f"{row['guidance']:g}" for row in ends if row.get("guidance") is not None]
    at = f", guidance {' and '.join(dict.fromkeys(scales))}" if scales else ""
    rows[f"before and after{at}"] = ends
    points = {name: series(some, "overall") for name, some in rows.items()}
    drawn = ((name, some) for name, some in points.items() if some)
    lines = [Line(name, some, colour, "dots") for (name, some), colour in zip(drawn, cycle(COLOURS), strict=False)]
    hint = "mean over tasks, prompts that are never trained on"
    return panel("Held-out score", lines, hint, last_step(metrics), size=LARGE) if lines else None


def task_panel(metrics: Metrics) -> Markup | None:
    """Held-out score of each task over training; None without such measurements."""
    rows, at = _main_scale(metrics)
    names = [
        key.removeprefix("task/") for key in dict.fromkeys(key for row in rows for key in row) if key[:5] == "task/"
    ]
    lines = named({name.replace("_", " "): series(rows, f"task/{name}") for name in names}, "dots")
    return (
        panel("Held-out score by task", lines, f"mean score of each task{at}", last_step(metrics), zero=True)
        if lines
        else None
    )


def reward_panels(metrics: Metrics, trained: Sequence[str], guidance: float | None = None) -> list[Markup]:
    """One panel per reward: training rollouts, their running mean, and held-out measurements at each guidance scale.

    Args:
        metrics: The log.
        trained: Names of the rewards that were trained on; they come first, the first of them large.
        guidance: Guidance scale of the rollouts, None where it is unknown.
    """
    rows = [*metrics.steps, *metrics.evaluations]
    keys = dict.fromkeys(key for row in rows for key in row)
    measured = [key[7:-5] for key in keys if key.startswith("reward/") and key.endswith("/mean")]
    panels: list[Markup] = []
    for name in dict.fromkeys([*trained, *measured]):
        key = f"reward/{name}/mean"
        lines = [*_with_trend(metrics.step_series(key), guidance), *_held_out(metrics, key)]
        role = "trained on" if name in trained else "measured only, never trained on"
        role += f"; {lines[0].name}" if len(lines) == 1 else ""  # a single line has no legend
        size = SMALL if panels else LARGE
        if lines:
            panels.append(panel(f"Reward: {name}", lines, role, last_step(metrics), size=size))
    return panels


def watch_panels(metrics: Metrics) -> list[Markup]:
    """Statistics of the held-out pictures that the watchdog measured, one panel each."""
    (rows, at), panels = _main_scale(metrics), []
    for name, hint in MEASURES.items():
        points = series(rows, f"watch/{name}")
        lines = [Line(f"held-out{at}", points, COLOURS[1], "dots")] if points else []
        if lines:
            panels.append(panel(f"Pictures: {name.replace('_', ' ')}", lines, hint, last_step(metrics), size=SMALL))
    return panels


def by_scale(rows: Sequence[Row]) -> dict[float | None, list[Row]]:
    """Evaluations by guidance scale: scores at two scales are not one curve."""
    scales = dict.fromkeys(row.get("guidance") for row in rows)
    return {scale: [row for row in rows if row.get("guidance") == scale] for scale in scales}


def scale_name(scale: float | None) -> str:
    """`guidance 2`, or nothing where the scale is unknown."""
    return "" if scale is None else f"guidance {scale:g}"


def main_scale(metrics: Metrics) -> tuple[list[Row], float | None]:
    """Evaluations at the guidance scale that was measured most often, and that scale."""
    groups = by_scale(metrics.on_the_way or metrics.evaluations)
    scale = max(groups, key=lambda one: len(groups[one]), default=None)
    return groups.get(scale, []), scale


def _main_scale(metrics: Metrics) -> tuple[list[Row], str]:
    rows, scale = main_scale(metrics)
    return rows, _at(scale)


def _at(scale: float | None) -> str:
    return f", {scale_name(scale)}" if scale is not None else ""


def _with_trend(points: Points, guidance: float | None) -> list[Line]:
    """Raw values, and in front of them their running mean once there are enough of them to hide it."""
    name = f"rollouts{_at(guidance)}"
    if len(points) < 12:
        return [Line(name, points, COLOURS[0])] if points else []
    window = 2 * max(2, len(points) // 24) + 1
    trend = Line(f"mean of {window} steps", smooth(points, window), COLOURS[0])
    return [Line(name, points, COLOURS[0], "faint"), trend]


def _held_out(metrics: Metrics, key: str) -> list[Line]:
    """Held-out measurements of a reward, a line per guidance scale."""
    found = ((scale, series(rows, key)) for scale, rows in by_scale(metrics.on_the_way or metrics.evaluations).items())
    named = [(f"held-out{_at(scale)}", points) for scale, points in found if points]
    return [
        Line(name, points, colour, "dots") for (name, points), colour in zip(named, cycle(COLOURS[1:]), strict=False)
    ]
