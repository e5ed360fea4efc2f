"""From the outcomes of images to a suite's figures: each task, the whole, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diffalign.evaluation.bootstrap import Interval, paired_bootstrap
from diffalign.evaluation.judges import Judges
from diffalign.evaluation.suites._suite import Line, Outcome, Suite


def summarise(
    suite: Suite,
    lines: Sequence[Line],
    outcomes: Sequence[Outcome],
    judges: Judges,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of an evaluation, ready for JSON.

    Intervals come from a bootstrap over prompts inside each task: they answer for the choice of prompts, not for the
    seeds. An image that could not be scored leaves numerator and denominator and is counted in `failed`.

    Args:
        suite: the suite.
        lines: the line of each image; images of one prompt follow each other or not.
        outcomes: the outcome of each image.
        judges: the judges that made them.
        draws: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        `suite`, `column` (its name with the judges), `judges`, `overall`, `low`, `high` (95 %), `tasks` {task: the same
        and `images`}, `images`, `failed`, `details`.

    Raises:
        ValueError: lengths differ, or no image could be scored.
    """
    if len(lines) != len(outcomes):
        raise ValueError(f"{len(lines)} lines but {len(outcomes)} outcomes; give one of each for every image")
    scored = [
        (line, outcome.score) for line, outcome in zip(lines, outcomes, strict=True) if math.isfinite(outcome.score)
    ]
    if not scored:
        raise ValueError(f"suite {suite.name}: none of the {len(lines)} images could be scored")
    prompts: dict[tuple[str, str], list[float]] = {}
    for line, score in scored:
        prompts.setdefault((line["task"], line["prompt"]), []).append(score)
    means = [sum(values) / len(values) for values in prompts.values()]
    tasks = [task for task, _ in prompts]
    by_task = _interval(means, tasks, draws, seed)
    whole = by_task if suite.overall == "tasks" else _interval(means, [suite.name] * len(means), draws, seed)
    return {
        "suite": suite.name,
        "column": suite.column(judges),
        "judges": judges.names(),
        "overall": whole.after,
        "low": whole.low,
        "high": whole.high,
        "tasks": {
            task: {
                "score": one.after,
                "low": one.low,
                "high": one.high,
                "images": sum(line["task"] == task for line, _ in scored),
            }
            for task, one in by_task.per_task.items()
        },
        "images": len(scored),
        "failed": len(lines) - len(scored),
        "details": suite.details(lines, outcomes),
    }


def _interval(means: Sequence[float], strata: Sequence[str], draws: int, seed: int) -> Interval:
    """Interval of a mean: the gain over nothing."""
    return paired_bootstrap([0.0] * len(means), means, strata, draws=draws, seed=seed)
