"""The table of docs/comparison.md and the sentences that follow from it, read from `results/summary.csv`."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from benchmarks.alignment.results import MEAN, Results, Row

FALLEN, SCATTERED = 0.03, 0.02
"""Held-out score lost since its best, and standard deviation of gains over seeds, above which a method is unstable."""


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: Name it is kept under.
        runs: Summary rows of its seeds.
        summary: Row of their mean; the run's own row with one seed.
    """

    name: str
    runs: list[Row]
    summary: Row

    def value(self, column: str) -> float:
        """A figure of the summary."""
        return float(self.summary[column])

    @property
    def scatter(self) -> float:
        """Standard deviation of gains over seeds, 0 with one."""
        return statistics.stdev(float(run["gain"]) for run in self.runs) if len(self.runs) > 1 else 0.0

    @property
    def unstable(self) -> bool:
        """Lost much of its best, or differs much from seed to seed."""
        return self.value("lost") > FALLEN or self.scatter > SCATTERED

    @property
    def hacks(self) -> bool:
        """The trained reward rose for sure while the held-out score fell for sure."""
        return bool(self.summary["trained_low"]) and self.value("trained_low") > 0 and self.value("high") < 0


def methods(results: Results, model: str) -> list[Method]:
    """Every kept method of a model, the best gain first."""
    rows = [row for row in results.table("summary") if row["model"] == model]
    found = []
    for name in {row["method"] for row in rows}:
        own = [row for row in rows if row["method"] == name]
        runs = [row for row in own if row["seed"] != MEAN]
        found.append(Method(name, runs, next((row for row in own if row["seed"] == MEAN), runs[0])))
    return sorted(found, key=lambda method: (-method.value("gain"), method.name))


def gain_cells(row: Row) -> list[str]:
    """Score before and after, and the gain with its interval."""
    before, after, gain, low, high = (float(row[name]) for name in ("before", "after", "gain", "low", "high"))
    return [f"{before:.3f} -> {after:.3f}", f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]"]


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def table(found: list[Method]) -> str:
    """One line per method."""
    head = ["method", "seeds", "overall", "gain, 95% CI", "per seed", "gain per 100 k evaluations", "trained reward",
            "evaluations", "minutes", "lost since best"]  # fmt: skip
    lines = [
        [
            method.name,
            str(len(method.runs)),
            *gain_cells(method.summary),
            " ".join(f"{float(run['gain']):+.3f}" for run in method.runs),
            f"{method.value('gain') / method.value('evaluations') * 1e5:+.4f}",
            f"{method.value('trained_gain'):+.3f}" if method.summary["trained_gain"] else "-",
            _thousands(method),
            f"{method.value('seconds') / 60:.0f}",
            f"{method.value('lost'):.3f}",
        ]
        for method in found
    ]
    return markdown(head, lines)


def reading(found: list[Method]) -> str:
    """Sentences that follow from the figures of the table."""
    if not found:
        return "No runs are kept yet."
    above = [method for method in found if method.value("low") > 0]
    best = max(above, key=lambda method: method.value("gain") / method.value("evaluations"), default=None)
    hacks, unstable = ([method.name for method in found if getattr(method, kind)] for kind in ("hacks", "unstable"))
    return "\n".join(
        [
            f"- Gain above zero at 95 %, each taken alone: {_names(above)}, of {len(found)}.",
            "- Most gain per model evaluation among those: "
            + (
                f"{best.name} ({best.value('gain'):+.3f} in {best.value('evaluations') / 1000:,.0f} k)."
                if best
                else "none."
            ),
            f"- Trained reward up and held-out score down, both at 95 %: {', '.join(hacks) or 'none'}.",
            f"- Unstable (lost more than {FALLEN:g} since its best, or gains of its seeds scatter by more than "
            f"{SCATTERED:g}): {', '.join(unstable) or 'none'}.",
        ]
    )


def _thousands(method: Method) -> str:
    return f"{method.value('evaluations') / 1000:,.0f} k"


def _names(found: list[Method]) -> str:
    return ", ".join(method.name for method in found) or "none"
