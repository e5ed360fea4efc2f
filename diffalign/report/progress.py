"""Panels on what counts: held-out score, scores by task, rewards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from diffalign.report.curves import Line, Points, smooth
from diffalign.report.figure import COLOURS, LARGE, SMALL, last_step, named, panel
from diffalign.report.html import Markup
from diffalign.report.metrics_log import Metrics, series

__all__ = ["held_out_panel", "reward_panels", "task_panel", "watch_panels"]

MEASURES = {
    "high_frequency": "share of the spectral energy in fine detail: grids and noise raise it, blur lowers it",
    "saturation": "mean colour saturation (HSV)",
    "clipped": "share of values at the ends of the range",
    "diversity": "distance between images of one prompt",
}
"""What the watchdog measures of pictures -> what it means."""


def held_out_panel(metrics: Metrics) -> Markup | None:
    """Held-out overall score over training; None without evaluations.

    One line per guidance scale, and one of its own for before and after: these are drawn from more images, with other
    noise, and joined to a curve they would look like a jump at its end.
    """
    scales = dict.fromkeys(row.get("guidance") for row in metrics.on_the_way)
    rows = {_scale_name(scale): [row for row in metrics.on_the_way if row.get("guidance") == scale] for scale in scales}
    rows["before and after"] = [row for row in metrics.evaluations if row.get("protocol")]
    points = {name: series(some, "overall") for name, some in rows.items()}
    drawn = ((name, some) for name, some in points.items() if some)
    lines = [Line(name, some, colour, "dots") for (name, some), colour in zip(drawn, cycle(COLOURS), strict=False)]
    hint = "mean over tasks, prompts that are never trained on"
    return panel("Held-out score", lines, hint, last_step(metrics), size=LARGE) if lines else None


def task_panel(metrics: Metrics) -> Markup | None:
    """Held-out score of each task over training; None without such measurements."""
    rows = _main_scale(metrics)
    names = [
        key.removeprefix("task/") for key in dict.fromkeys(key for row in rows for key in row) if key[:5] == "task/"
    ]
    lines = named({name.replace("_", " "): series(rows, f"task/{name}") for name in names}, "dots")
    return (
        panel("Held-out score by task", lines, "mean score of each task", last_step(metrics), zero=True)
        if lines
        else None
    )


def reward_panels(metrics: Metrics, trained: Sequence[str]) -> list[Markup]:
    """One panel per reward: training roll-outs, their running mean, and held-out measurements where there are some.

    Args:
        metrics: The log.
        trained: Names of the rewards that were trained on; they come first, the first of them large.
    """
    rows = [*metrics.steps, *metrics.evaluations]
    keys = dict.fromkeys(key for row in rows for key in row)
    measured = [key[7:-5] for key in keys if key.startswith("reward/") and key.endswith("/mean")]
    panels: list[Markup] = []
    for name in dict.fromkeys([*trained, *measured]):
        key = f"reward/{name}/mean"
        lines = [*_with_trend(metrics.step_series(key)), *_held_out(metrics, key)]
        role = "trained on" if name in trained else "measured only, never trained on"
        size = SMALL if panels else LARGE
        if lines:
            panels.append(panel(f"Reward: {name}", lines, role, last_step(metrics), size=size))
    return panels


def watch_panels(metrics: Metrics) -> list[Markup]:
    """What the watchdog measured of the held-out pictures, one panel per measure that was."""
    rows, panels = _main_scale(metrics), []
    for name, hint in MEASURES.items():
        points = series(rows, f"watch/{name}")
        lines = [Line("held-out", points, COLOURS[1], "dots")] if points else []
        if lines:
            panels.append(panel(f"Pictures: {name.replace('_', ' ')}", lines, hint, last_step(metrics), size=SMALL))
    return panels


def _with_trend(points: Points) -> list[Line]:
    """Raw values, and in front of them their running mean once there are enough of them to hide it."""
    if len(points) < 12:
        return [Line("roll-outs", points, COLOURS[0])] if points else []
    window = 2 * max(2, len(points) // 24) + 1
    trend = Line(f"mean of {window} steps", smooth(points, window), COLOURS[0])
    return [Line("roll-outs", points, COLOURS[0], "faint"), trend]


def _held_out(metrics: Metrics, key: str) -> list[Line]:
    """Held-out measurements of a reward."""
    points = series(_main_scale(metrics), key)
    return [Line("held-out", points, COLOURS[1], "dots")] if points else []


def _main_scale(metrics: Metrics) -> list[dict[str, Any]]:
    """Evaluations at the guidance scale that was measured most often: scores at two scales are not one curve."""
    rows = metrics.on_the_way or metrics.evaluations
    counts = Counter(row.get("guidance") for row in rows)
    scale = counts.most_common(1)[0][0] if counts else None
    return [row for row in rows if row.get("guidance") == scale]


def _scale_name(scale: float | None) -> str:
    return "held-out" if scale is None else f"guidance {scale:g}"
