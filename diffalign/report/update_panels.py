"""Panels on the update: ratio and clipping per denoising step, and what tells why a reward does not rise."""

from __future__ import annotations

from typing import NamedTuple

from diffalign.report.curves import Line, Points
from diffalign.report.figure import COLOURS, last_step, named, panel, ramp, ramp_legend
from diffalign.report.html import Markup
from diffalign.report.metrics_log import Metrics

__all__ = ["health_panels", "step_index_panels"]


class Spec(NamedTuple):
    """Title, key of the metric and a hint of a single-line panel; `zero` starts its axis at zero."""

    title: str
    key: str
    hint: str
    zero: bool = False


HEALTH = (
    Spec("Groups without spread", "group/zero_std", "share of groups whose images all score the same", True),
    Spec("KL to the reference", "kl", "distance from the base model; rises as the policy moves", True),
    Spec("Gradient norm", "grad_norm", "before clipping", True),
    Spec("Advantage size", "advantage/abs_mean", "mean of |A|; 0 means nothing to learn from", True),
    Spec("Loss", "loss", "near 0 by construction: not a measure of progress"),
    Spec("Learning rate", "lr", "as the scheduler set it", True),
)
BY_INDEX = (
    Spec("Ratio − 1", "ratio/mean", "stays near 0: the update is small"),
    Spec("Ratio spread", "ratio/std", "std over images; compare with the clip range", True),
    Spec("|Δ log-prob|", "dlogp", "mean change since the rollout", True),
    Spec("Clipped high", "clip/high", "share of images clipped from above", True),
    Spec("Clipped low", "clip/low", "share of images clipped from below", True),
)


def health_panels(metrics: Metrics) -> list[Markup]:
    """Single-line panels on the state of the update, and failed scores where there are some.

    A KL of exactly 0 in every row was not computed (`beta = 0`), so it is not drawn.
    """
    last = last_step(metrics)
    found = ((spec, metrics.step_series(spec.key)) for spec in HEALTH)
    panels = [_single(spec, points, last) for spec, points in found if points and not _absent_kl(spec, points)]
    names = metrics.reward_names()
    spread = named({name: metrics.step_series(f"reward/{name}/std") for name in names})
    failed = named({name: metrics.step_series(f"reward/{name}/nan") for name in names})
    if spread:
        panels.append(panel("Reward spread", spread, "std over the images of a step", last, zero=True))
    if any(value for line in failed for _, value in line.points):
        panels.append(panel("Failed scores", failed, "images the reward could not score", last, zero=True))
    return panels


def step_index_panels(metrics: Metrics) -> list[Markup]:
    """Ratio and clip panels with one line per denoising step index, blue (first, noisiest) to orange (last).

    Of each rollout its last update is drawn: the first one has ratio 1 by construction, and all of them in one line
    would be a comb.
    """
    ends = metrics.rollout_ends()
    found = ((spec, ends.per_index(spec.key)) for spec in BY_INDEX)
    return [_by_index(spec, lines, last_step(metrics)) for spec, lines in found if lines]


def _absent_kl(spec: Spec, points: Points) -> bool:
    """True for a KL that was logged without being computed."""
    return spec.key == "kl" and not any(value for _, value in points)


def _single(spec: Spec, points: Points, last: int) -> Markup:
    """Panel of one series."""
    return panel(spec.title, [Line(spec.title, points, COLOURS[0])], spec.hint, last, zero=spec.zero)


def _by_index(spec: Spec, found: dict[int, Points], last: int) -> Markup:
    """Panel with a line per step index; a ratio is drawn as its distance from 1."""
    colours, shift = ramp(len(found)), 1.0 if spec.key == "ratio/mean" else 0.0
    lines = [
        Line(f"step index {index}", [(step, value - shift) for step, value in points], colour)
        for (index, points), colour in zip(found.items(), colours, strict=True)
    ]
    legend = ramp_legend(list(found), colours)
    return panel(spec.title, lines, spec.hint, last, zero=spec.zero, legend=legend)
