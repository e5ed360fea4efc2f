"""Reads the kept runs of each recipe and writes the table of docs/comparison.md.

One row per recipe: the gain averaged over seeds prompt by prompt, with one paired bootstrap over prompts; what it cost;
and what a reader should know before choosing it.
"""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffalign.report import compare

HERE = Path(__file__).parent
FALLEN, SCATTERED = 0.03, 0.02
"""Held-out score lost since its best, and standard deviation of gains over seeds, above which a recipe is unstable."""


@dataclass(frozen=True)
class Row:
    """One recipe.

    Attributes:
        name: recipe.
        seeds: number of runs.
        comparison: as `diffalign.report.compare`, on scores averaged over seeds.
        gains: overall gain of each seed.
        evaluations: model evaluations of training, mean over seeds.
        minutes: training minutes, mean over seeds.
        fallen: largest loss of the held-out curve since its best.
        trained: the reward that was trained.
    """

    name: str
    seeds: int
    comparison: dict[str, Any]
    gains: tuple[float, ...]
    evaluations: float
    minutes: float
    fallen: float
    trained: str

    @property
    def gain(self) -> float:
        """Held-out gain, mean over seeds."""
        return float(self.comparison["overall"]["gain"])

    @property
    def scatter(self) -> float:
        """Standard deviation of gains over seeds, 0 with one."""
        return statistics.stdev(self.gains) if len(self.gains) > 1 else 0.0

    @property
    def unstable(self) -> bool:
        """Lost much of its best, or differs much from seed to seed."""
        return self.fallen > FALLEN or self.scatter > SCATTERED

    @property
    def hacks(self) -> bool:
        """The trained reward rose for sure while the held-out score fell for sure."""
        trained = self.comparison["rewards"].get(self.trained)
        return bool(trained and trained["low"] > 0 and self.comparison["overall"]["high"] < 0)


def rows(folder: Path) -> list[Row]:
    """Every recipe under `folder` with runs in `<recipe>/seed-<n>/`, the best gain first."""
    found = {path.parent.parent for path in folder.glob("*/seed-*/comparison.json")}
    return sorted((_row(recipe) for recipe in found), key=lambda row: (-row.gain, row.name))


def _row(recipe: Path) -> Row:
    runs = sorted(path.parent for path in recipe.glob("seed-*/comparison.json"))
    before, after = (averaged([_read(run / f"{name}.json") for run in runs]) for name in ("before", "after"))
    curves = [_curve(run) for run in runs]
    return Row(
        recipe.name,
        len(runs),
        compare(before, after),
        tuple(_read(run / "comparison.json")["overall"]["gain"] for run in runs),
        statistics.mean(int(curve[-1]["forwards"]) + int(curve[-1]["backwards"]) for curve in curves),
        statistics.mean(float(curve[-1]["seconds"]) / 60 for curve in curves),
        max(_fallen(curve) for curve in curves),
        _trained(runs[0]),
    )


def averaged(evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    """One evaluation whose scores and rewards are means over seeds, prompt by prompt; its guidance is their mean."""
    lines = zip(*(one["prompts"] for one in evaluations), strict=True)
    return evaluations[0] | {
        "best_guidance": statistics.mean(one["best_guidance"] for one in evaluations),
        "prompts": [
            line[0]
            | {
                "score": _mean([one["score"] for one in line]),
                "rewards": {name: _mean([one["rewards"][name] for one in line]) for name in line[0]["rewards"]},
            }
            for line in lines
        ],
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _curve(run: Path) -> list[dict[str, str]]:
    with (run / "curve.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _fallen(curve: list[dict[str, str]]) -> float:
    scores = [float(step["heldout"]) for step in curve if step["heldout"]]
    return max(scores) - scores[-1] if scores else 0.0


def _trained(run: Path) -> str:
    import yaml

    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    return str(config["reward_funcs"][0])


def table(found: list[Row]) -> str:
    """The Markdown table."""
    head = ["method", "seeds", "overall", "gain, 95% CI", "per seed", "gain per 100 k evaluations", "trained reward",
            "evaluations", "minutes", "lost since best"]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for row in found:
        overall, trained = row.comparison["overall"], row.comparison["rewards"].get(row.trained)
        lines.append(
            [
                row.name,
                str(row.seeds),
                f"{overall['before']:.3f} -> {overall['after']:.3f}",
                f"{overall['gain']:+.3f} [{overall['low']:+.3f}, {overall['high']:+.3f}]",
                " ".join(f"{gain:+.3f}" for gain in row.gains),
                f"{row.gain / row.evaluations * 1e5:+.4f}",
                f"{trained['gain']:+.3f}" if trained else "-",
                f"{row.evaluations / 1000:,.0f} k",
                f"{row.minutes:.0f}",
                f"{row.fallen:.3f}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def reading(found: list[Row]) -> str:
    """What the table says, in sentences that follow from its figures."""
    if not found:
        return "No runs are kept yet."
    above = [row for row in found if row.comparison["overall"]["low"] > 0]
    sure = ", ".join(row.name for row in above) or "none"
    best = max(above, key=lambda row: row.gain / row.evaluations, default=None)
    hacks, unstable = ([row.name for row in found if getattr(row, kind)] for kind in ("hacks", "unstable"))
    return "\n".join(
        [
            f"- Gain above zero at 95 %, each taken alone: {sure}, of {len(found)}.",
            "- Most gain per model evaluation among those: "
            + (f"{best.name} ({best.gain:+.3f} in {best.evaluations / 1000:,.0f} k)." if best else "none."),
            f"- Trained reward up and held-out score down, both at 95 %: {', '.join(hacks) or 'none'}.",
            f"- Unstable (lost more than {FALLEN:g} since its best, or gains of its seeds scatter by more than "
            f"{SCATTERED:g}): {', '.join(unstable) or 'none'}.",
        ]
    )
