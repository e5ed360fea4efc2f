"""Results of a benchmark suite side by side: which may be compared, and the paired gains of all over the first."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diffalign.evaluation.bootstrap import Interval, paired_bootstrap

__all__ = ["SuiteResult", "check_same_protocol", "gain_over", "read_result", "score_entries", "with_labels"]

LEVEL, DRAWS = 0.95, 2000
KEYS = ("suite", "variant", "overall", "overall_of", "tasks", "prompts", "judges")
SAME = {
    "suite": "different suites",
    "variant": "scores by different judges, whose scales differ",
    "judges": "scores by different weights or options of the judges",
}
"""What has to be equal in all results, and what would be compared where it is not."""
Entry = dict[str, float]
Line = dict[str, Any]


class SuiteResult(NamedTuple):
    """One result file.

    Attributes:
        label: short name of the model on the page.
        folder: where the images are, None where they are not at hand.
        content: the file's content.
    """

    label: str
    folder: Path | None
    content: dict[str, Any]


def read_result(path: str | Path) -> SuiteResult:
    """A result file that `diffalign evaluate --suite` wrote.

    Raises:
        ValueError: not JSON, or no result of a suite.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    missing = [key for key in KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{path} is no result of a suite, it lacks {', '.join(missing)} (evaluate --suite writes one)")
    named = (content.get("images") or {}).get("folder")
    folder = None if named is None else path.parent / named
    label = str(content.get("label") or path.stem)
    return SuiteResult(label, folder if folder is not None and folder.is_dir() else None, content)


def with_labels(results: Sequence[SuiteResult]) -> list[SuiteResult]:
    """The results with every label there once: equal ones are numbered."""
    counts, seen, out = Counter(one.label for one in results), Counter[str](), []
    for one in results:
        seen[one.label] += 1
        out.append(one._replace(label=f"{one.label} ({seen[one.label]})") if counts[one.label] > 1 else one)
    return out


def check_same_protocol(results: Sequence[SuiteResult], *, mixed: bool = False) -> list[str]:
    """Refuse to compare what was measured by different rules.

    Args:
        results: at least one.
        mixed: allow different variants and judges; suites have to be equal in any case.

    Returns:
        Sentences on what differs, empty for equal protocols.

    Raises:
        ValueError: two results differ in suite, variant or judges, or in their prompts.
    """
    first, differences = results[0], []
    for other in results[1:]:
        for key, meaning in SAME.items():
            left, right = first.content[key], other.content[key]
            if left == right:
                continue
            text = f"{first.label} and {other.label} differ in {key} ({_short(left, right)})"
            if key == "suite" or not mixed:
                advice = "" if key == "suite" else "; score one of them again, or allow it by --mixed"
                raise ValueError(f"{text}: this would compare {meaning}{advice}")
            differences.append(f"{text}: {meaning}.")
        if _prompt_keys(first) != _prompt_keys(other):
            raise ValueError(
                f"{first.label} ({len(first.content['prompts'])} prompts) and {other.label} "
                f"({len(other.content['prompts'])} prompts) were not measured on the same prompts: nothing is paired"
            )
    return differences


def score_entries(content: dict[str, Any]) -> dict[str, Entry]:
    """Score and interval of each task, then of the whole: `score`, `low`, `high`, `prompts`, `images`.

    The interval is a bootstrap over prompts within tasks, of one result.

    Args:
        content: with `overall_of` ("tasks": the whole is the mean of the tasks, "images": of the prompts), and
            `prompts`, a list of `prompt`, `task`, `score` (None: no image of it could be scored) and `images`, a score
            or None each.

    Raises:
        ValueError: no prompt has a score.
    """
    lines = [line for line in content["prompts"] if _finite(line.get("score"))]
    if not lines:
        raise ValueError("no prompt has a score: the judges failed on every image")
    found = _bootstrap(lines, [0.0] * len(lines), [line["score"] for line in lines], content["overall_of"])
    prompts = Counter(line["task"] for line in lines)
    images = Counter(line["task"] for line in lines for value in line["images"] if _finite(value))
    entries = {
        task: {"score": one.after, "low": one.low, "high": one.high, "prompts": prompts[task], "images": images[task]}
        for task, one in found.per_task.items()
    }
    whole = {"score": found.after, "low": found.low, "high": found.high}
    return {**entries, "overall": {**whole, "prompts": prompts.total(), "images": images.total()}}


def gain_over(first: SuiteResult, other: SuiteResult) -> dict[str, Entry]:
    """Paired gain of a result over another: `before`, `after`, `gain`, `low`, `high`, `prompts` by task and `overall`.

    Prompts without a score in one of the two are left out of both.

    Raises:
        ValueError: no prompt has a score in both.
    """
    pairs = zip(_in_order(first), _in_order(other), strict=True)
    kept = [(a, b) for a, b in pairs if _finite(a.get("score")) and _finite(b.get("score"))]
    if not kept:
        raise ValueError(f"{first.label} and {other.label} have no prompt that both could score")
    lines = [a for a, _ in kept]
    before, after = ([pair[side]["score"] for pair in kept] for side in (0, 1))
    found = _bootstrap(lines, before, after, first.content["overall_of"])
    counts = Counter(line["task"] for line in lines)
    order = dict.fromkeys(line["task"] for line in first.content["prompts"] if line["task"] in counts)
    entries = {task: _entry(found.per_task[task], counts[task]) for task in order}
    return {**entries, "overall": _entry(found, counts.total())}


def _bootstrap(lines: Sequence[Line], before: Sequence[float], after: Sequence[float], overall: str) -> Interval:
    """Intervals of the tasks, and of the whole: the mean of the tasks, or of all prompts."""
    tasks = [str(line["task"]) for line in lines]
    by_task = paired_bootstrap(before, after, tasks, draws=DRAWS, level=LEVEL)
    if overall == "tasks":
        return by_task
    whole = paired_bootstrap(before, after, ["all"] * len(tasks), draws=DRAWS, level=LEVEL)
    return whole._replace(per_task=by_task.per_task)


def _entry(one: Interval, prompts: int) -> Entry:
    named = {key: getattr(one, key) for key in ("before", "after", "gain", "low", "high")}
    return {**named, "prompts": prompts}


def _prompt_keys(result: SuiteResult) -> Counter[tuple[str, str]]:
    return Counter((line["task"], line["prompt"]) for line in result.content["prompts"])


def _in_order(result: SuiteResult) -> list[Line]:
    """Lines sorted by task and prompt; equal ones keep their order."""
    return sorted(result.content["prompts"], key=lambda line: (line["task"], line["prompt"]))


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _short(left: Any, right: Any) -> str:
    """The two values, of mappings the parts that differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = [key for key in {**left, **right} if left.get(key) != right.get(key)]
        return "; ".join(f"{key}: {_short(left.get(key), right.get(key))}" for key in keys)
    return f"{left} against {right}"
