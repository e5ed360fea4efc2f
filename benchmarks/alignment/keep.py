"""Files the small part of a finished run: ``python benchmarks/alignment/keep.py runs/quickstart quickstart/seed-0``."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import yaml

from diffalign.report import read_metrics

HERE = Path(__file__).parent
COLUMNS = ["step", "images", "forwards", "backwards", "seconds", "reward", "zero_std", "ratio_std", "kl", "heldout"]


def curve(run: Path) -> list[dict[str, object]]:
    """One row per optimisation step; costs are cumulative."""
    metrics = read_metrics(run / "metrics.jsonl")
    # At the scale that was best before: the better of two would favour runs that have two.
    before = run / "evaluation" / "before.json"
    scale = json.loads(before.read_text(encoding="utf-8")).get("best_guidance") if before.exists() else None
    own = [e for e in metrics.on_the_way if scale in (None, e.get("guidance"))]
    heldout = {e["step"]: e["overall"] for e in own}
    rows, images, forwards, backwards, seconds = [], 0, 0, 0, 0.0
    for step in metrics.steps:
        images += step.get("images") or 0
        forwards += sum(v for k, v in step.items() if k.startswith("forward/") and "preflight" not in k)
        backwards += sum(v for k, v in step.items() if k.startswith("backward/"))
        seconds += sum(v for k, v in step.items() if k.startswith("seconds/"))
        rewards = [v for k, v in step.items() if k.startswith("reward/") and k.endswith("/mean") and v is not None]
        rows.append(
            {
                "step": step["step"],
                "images": images,
                "forwards": forwards,
                "backwards": backwards,
                "seconds": round(seconds, 1),
                "reward": round(sum(rewards) / len(rewards), 5) if rewards else "",
                "zero_std": step.get("group/zero_std", ""),
                "ratio_std": step.get("ratio/std", ""),
                "kl": step.get("kl", ""),
                "heldout": heldout.get(step["step"], ""),
            }
        )
    return rows


def keep(run: Path, target: Path) -> None:
    """Copy configuration, curve, both evaluations and their comparison."""
    target.mkdir(parents=True, exist_ok=True)
    with (target / "curve.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(curve(run))
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config |= {"output_dir": f"runs/{target.parent.name}/{target.name}", "eval_before": None}  # no paths of a machine
    (target / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    for name in ("before", "after"):
        source = run / "evaluation" / f"{name}.json"
        if source.exists():
            found = json.loads(source.read_text(encoding="utf-8"))
            found["seeds"] = len(found["seeds"])  # they follow from the seed; the list is long
            (target / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
    comparison = run / "evaluation" / "comparison.json"
    if comparison.exists():
        shutil.copy(comparison, target / "comparison.json")


def main() -> None:
    """Command line."""
    keep(Path(sys.argv[1]), HERE / sys.argv[2])


if __name__ == "__main__":
    main()
