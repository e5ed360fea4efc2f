"""Before against after: two evaluations of one suite into gains with intervals, overall, by task and by reward."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from diffalign.evaluation.bootstrap import Interval, paired_bootstrap
from diffalign.report.numbers import digits_for, gain_text, score

__all__ = ["check_comparable", "compare", "headline", "subset_text"]

Line = dict[str, Any]
LEVEL = 0.95

# Keys that have to be equal in both evaluations, and the comparison that would be made otherwise.
SAME = {
    "suite": "scores of two suites",
    "num_inference_steps": "two step counts",
    "images_per_prompt": "two numbers of images per prompt",
    "seeds": "other starting noises",
}


def compare(before: dict[str, Any], after: dict[str, Any], *, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Paired bootstrap of two evaluations, each at its own best guidance scale.

    Args:
        before: Content of `evaluation/before.json`: `suite`, `best_guidance`, `guidance`, `seeds`,
            `num_inference_steps`, `images_per_prompt`, and `prompts`, each with `prompt`, `task`, `score` in [0, 1] and
            `rewards` by name.
        after: Content of `evaluation/after.json`, same prompts in the same order.
        draws: Number of bootstrap samples.
        seed: Seed of the resampling.

    Returns:
        Content of `evaluation/comparison.json`: `overall`, `tasks` and `rewards` (by name), each entry with `before`,
        `after`, `gain`, `low`, `high` and `prompts` (number of lines used); `guidance` with both best scales; `level`,
        `draws`, `seed`, `suite`, `images_per_prompt`, `num_inference_steps`; `prompts` and `prompts_available`, lines
        evaluated and lines of the whole file (None: unknown); and `dropped`, lines without a score.

    Raises:
        ValueError: If the two files do not describe the same prompts, noises, steps and images per prompt.
    """
    check_comparable(before, after)
    lines = list(zip(before["prompts"], after["prompts"], strict=True))
    kept = _scored(lines, "score")
    if not kept:
        raise ValueError("no prompt has a score in both evaluations: the reward failed on every image")
    overall = _bootstrap(kept, draws, seed)
    counts = Counter(line["task"] for line, *_ in kept)
    return {
        "suite": before.get("suite"),
        "overall": _entry(overall, len(kept)),
        "tasks": {task: _entry(one, counts[task]) for task, one in overall.per_task.items()},
        "rewards": _rewards(lines, draws, seed),
        "guidance": {"before": before.get("best_guidance"), "after": after.get("best_guidance")},
        "num_inference_steps": before.get("num_inference_steps"),
        "images_per_prompt": before.get("images_per_prompt"),
        "prompts": len(lines),
        "prompts_available": after.get("prompts_available", before.get("prompts_available")),
        "dropped": len(lines) - len(kept),
        "level": LEVEL,
        "draws": draws,
        "seed": seed,
    }


def headline(comparison: dict[str, Any]) -> str:
    """The one line of a run: `overall 0.46 -> 0.56 (+0.10, 95% CI [0.06, 0.14])`, with the subset where it is one."""
    entry = comparison["overall"]
    digits = digits_for(entry["low"], entry["high"])
    gain = gain_text(entry["gain"], entry["low"], entry["high"], comparison.get("level", 0.95), digits)
    subset = subset_text(comparison.get("prompts"), comparison.get("prompts_available"))
    return f"overall{subset} {score(entry['before'], digits)} -> {score(entry['after'], digits)} ({gain})"


def subset_text(used: int | None, available: int | None) -> str:
    """` of 12 of 553 prompts` where fewer than all were used, else the empty string."""
    return (
        f" of {used} of {available} prompts" if used is not None and available is not None and used < available else ""
    )


def check_comparable(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Refuse a comparison in which anything but the weights and the guidance scale differs.

    Args:
        before: an evaluation; scores in it are not looked at.
        after: another one.

    Raises:
        ValueError: prompts, seeds, steps, suite or images per prompt differ.
    """
    for key, meaning in SAME.items():
        if before.get(key) != after.get(key):
            raise ValueError(f"before and after differ in {key}, so this would compare {meaning}: evaluate both again")
    if not all(isinstance(one.get("prompts"), list) for one in (before, after)):
        raise ValueError("an evaluation holds no list of prompts with their scores: evaluate it again")
    texts = [[(line["prompt"], line["task"]) for line in one["prompts"]] for one in (before, after)]
    if len(texts[0]) != len(texts[1]):
        raise ValueError(f"before has {len(texts[0])} prompts and after {len(texts[1])}: evaluate both on one file")
    for number, (left, right) in enumerate(zip(*texts, strict=True), 1):
        if left != right:
            raise ValueError(f"prompt {number} is {left} before and {right} after: evaluate both on one file")


def _rewards(lines: list[tuple[Line, Line]], draws: int, seed: int) -> dict[str, dict[str, float]]:
    """One entry for each reward that both evaluations measured."""
    names = dict.fromkeys(name for line, _ in lines for name in line.get("rewards") or {})
    kept = {name: _scored(lines, "rewards", name) for name in names}
    return {name: _entry(_bootstrap(some, draws, seed), len(some)) for name, some in kept.items() if some}


def _scored(lines: list[tuple[Line, Line]], *path: str) -> list[tuple[Line, float, float]]:
    """Lines with their value before and after, without those where one of the two could not be scored."""
    values = [(before, _value(before, path), _value(after, path)) for before, after in lines]
    return [(line, left, right) for line, left, right in values if left is not None and right is not None]


def _value(line: Line, path: tuple[str, ...]) -> float | None:
    """The finite number at `path` of a line, None where it is absent, null or NaN."""
    found: Any = line
    for key in path:
        found = (found or {}).get(key)
    return float(found) if found is not None and math.isfinite(found) else None


def _bootstrap(kept: list[tuple[Line, float, float]], draws: int, seed: int) -> Interval:
    """Interval over lines; those with one prompt text move together."""
    lines, before, after = zip(*kept, strict=True)
    tasks, prompts = ([line[key] for line in lines] for key in ("task", "prompt"))
    return paired_bootstrap(before, after, tasks, prompts, draws=draws, seed=seed, level=LEVEL)


def _entry(interval: Interval, prompts: int) -> dict[str, float]:
    """JSON form of one interval."""
    return {
        "before": interval.before,
        "after": interval.after,
        "gain": interval.gain,
        "low": interval.low,
        "high": interval.high,
        "prompts": prompts,
    }
