"""Evaluations: read, written as JSON, printed as tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from diffalign.commands._tables import table


def read_evaluation(name: str) -> dict[str, Any]:
    """Content of an evaluation file.

    Raises:
        ValueError: not JSON, or no evaluation.
        FileNotFoundError: no such file.
    """
    try:
        content = json.loads(Path(name).read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(content, dict) or "prompts" not in content:
        raise ValueError(f"{name} is no evaluation: it has no prompts (a run writes evaluation/before.json)")
    return content


def write_evaluation(evaluation: dict[str, Any], path: Path) -> None:
    """Writes an evaluation as JSON; a score that could not be had becomes null."""
    path.write_text(json.dumps(_finite(evaluation), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def scores_table(evaluation: dict[str, Any]) -> str:
    """Overall and per task at each guidance scale; the best one is starred."""
    guidance, best = evaluation["guidance"], str(float(evaluation["best_guidance"]))
    heads = [f"g = {float(scale):g}{'*' if scale == best else ''}" for scale in guidance]
    tasks = dict.fromkeys(task for one in guidance.values() for task in one["tasks"])
    rows = [[overall_label(evaluation), *(_number(one["overall"]) for one in guidance.values())]]
    rows += [[task, *(_number(one["tasks"].get(task)) for one in guidance.values())] for task in tasks]
    prompts, images = len(evaluation["prompts"]), evaluation["images_per_prompt"]
    few = evaluation.get("images_per_scale", images)
    starred = "* best guidance scale" + (f", {prompts * images} images" if few < images else "")
    caption = f"{evaluation['suite']}, {prompts * few} images a column, {evaluation['num_inference_steps']} steps"
    unscored = sum(line.get("score") is None or line["score"] != line["score"] for line in evaluation["prompts"])
    failed = f"; {unscored} prompts without a score are left out" if unscored else ""
    return f"{table(['task', *heads], rows)}\n{caption}; {starred}{failed}"


def overall_label(evaluation: dict[str, Any]) -> str:
    """`overall`, or `overall of 12 of 553 prompts` where only some of a file were used."""
    from diffalign.report import subset_text

    return f"overall{subset_text(len(evaluation['prompts']), evaluation.get('prompts_available'))}"


def gains(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Per task and per further reward the gain with its interval, then the headline."""
    from diffalign.report import compare, headline

    result = compare(before, after)
    entries = {**result["tasks"], **{f"reward {name}": one for name, one in result["rewards"].items()}}
    rows = [
        [name, *(_number(one[key]) for key in ("before", "after")), f"{one['gain']:+.3f}", _interval(one)]
        for name, one in entries.items()
    ]
    return f"\n{table(['', 'before', 'after', 'gain', '95% CI'], rows)}\n{headline(result)}"


def _interval(entry: dict[str, float]) -> str:
    return f"[{entry['low']:+.3f}, {entry['high']:+.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _finite(value: Any) -> Any:
    """The same JSON value with null where a number is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
