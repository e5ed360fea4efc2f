"""Reader of `metrics.jsonl`: one JSON object per line, `event` says which kind (step, evaluation, warning).

The file of a killed or running process may end in half a line, and a resumed run repeats the steps between its last
checkpoint and the kill. Neither may stop a report: broken lines are counted, and of a repeated step the later row is
shown (both were paid for, so costs add up over all rows).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

__all__ = ["Metrics", "Row", "read_metrics", "series"]

Row = dict[str, Any]
Series = list[tuple[int, float]]


@dataclass(frozen=True)
class Metrics:
    """Rows of a log by kind, in the order of the file.

    Attributes:
        steps: One row per optimisation step, the later one where a step was repeated, by rising step.
        all_steps: Every step row ever written: what the run spent.
        evaluations: One row per evaluation event.
        warnings: One row per warning event.
        skipped: Number of lines that are not a JSON object.
    """

    steps: list[Row] = field(default_factory=list)
    all_steps: list[Row] = field(default_factory=list)
    evaluations: list[Row] = field(default_factory=list)
    warnings: list[Row] = field(default_factory=list)
    skipped: int = 0

    @property
    def on_the_way(self) -> list[Row]:
        """Evaluations while training, without those before and after, which are drawn from other images."""
        return [row for row in self.evaluations if not row.get("protocol")]

    @cached_property
    def step_keys(self) -> list[str]:
        """Keys of all step rows, in order of appearance."""
        return list(dict.fromkeys(key for row in self.steps for key in row))

    def step_series(self, key: str) -> Series:
        """`(step, value)` of a step metric, without rows where it is absent, null or not finite."""
        return series(self.steps, key)

    def per_index(self, prefix: str) -> dict[int, Series]:
        """Series of `prefix/<step index>` by rising index, e.g. those of `ratio/mean/0`, `ratio/mean/1`, ..."""
        indices = {int(key.rpartition("/")[2]) for key in self.step_keys if _is_indexed(prefix, key)}
        found = {index: self.step_series(f"{prefix}/{index}") for index in sorted(indices)}
        return {index: points for index, points in found.items() if points}

    def rollout_ends(self) -> Metrics:
        """The same log with the last step of each rollout alone, where the policy has moved furthest from it."""
        last = {row.get("rollout", ("step", row["step"])): row for row in self.steps}
        return replace(self, steps=list(last.values()))

    def reward_names(self) -> list[str]:
        """Names of the rewards that were trained on, in order of appearance."""
        return [match.group(1) for key in self.step_keys if (match := re.fullmatch(r"reward/(.+)/mean", key))]

    def totals(self, prefix: str) -> dict[str, float]:
        """Sum of `prefix/<phase>` by phase over step and evaluation rows, e.g. seconds in rollout, training."""
        sums: dict[str, float] = {}
        for row in [*self.all_steps, *self.evaluations]:
            for key, value in row.items():
                head, _, phase = key.partition("/")
                if head == prefix and phase and _is_number(value):
                    sums[phase] = sums.get(phase, 0) + value
        return sums

    def total(self, key: str) -> float:
        """Sum of one key over all step rows, 0 where it never appears."""
        return sum(row[key] for row in self.all_steps if _is_number(row.get(key)))


def read_metrics(path: str | Path) -> Metrics:
    """Read a metrics file; an absent file gives an empty log.

    Args:
        path: `metrics.jsonl` of a run folder.

    Returns:
        The rows by kind. Lines that cannot be parsed are counted in `skipped`, not raised.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    rows = [_parse(line) for line in lines if line.strip()]
    good = [row for row in rows if row is not None]
    steps = [row for row in good if row.get("event", "step") == "step" and _is_number(row.get("step"))]
    latest = {int(row["step"]): row for row in steps}
    return Metrics(
        steps=[latest[step] for step in sorted(latest)],
        all_steps=steps,
        evaluations=[row for row in good if row.get("event") == "evaluation" and _is_number(row.get("step"))],
        warnings=[row for row in good if row.get("event") == "warning"],
        skipped=len(rows) - len(good),
    )


def series(rows: list[Row], key: str) -> Series:
    """`(step, value)` by rising step; a later row of the same step replaces an earlier one."""
    values = {int(row["step"]): float(row[key]) for row in rows if _is_number(row.get(key))}
    return sorted(values.items())


def _parse(line: str) -> Row | None:
    """The object on one line, None where there is none."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def _is_number(value: object) -> bool:
    """True for finite ints and floats; bools are not measurements."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_indexed(prefix: str, key: str) -> bool:
    """True where `key` is `prefix/<digits>`."""
    head, _, index = key.rpartition("/")
    return head == prefix and index.isdecimal()
