"""The part of a finished run folder that is kept: configuration, curve, and both evaluations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffalign.report import compare, read_metrics

PER_RUN = {"seed", "output_dir", "run_name", "eval_before", "overwrite_output_dir", "resume_from_checkpoint"}
"""Configuration keys that say where and with which seed a run ran, not what was run."""


@dataclass(frozen=True)
class Run:
    """The part of a finished run that is kept.

    Attributes:
        model: Name of the base model.
        method: Name under which the run is kept, usually its recipe's.
        seed: Seed of the run.
        config: Resolved configuration.
        curve: One row per optimisation step; costs are cumulative.
        before: Content of `evaluation/before.json`.
        after: Content of `evaluation/after.json`.
    """

    model: str
    method: str
    seed: int
    config: dict[str, Any]
    curve: list[dict[str, Any]]
    before: dict[str, Any]
    after: dict[str, Any]


def read_run(folder: Path, method: str | None = None) -> Run:
    """Read a finished run.

    Args:
        folder: Run folder.
        method: Name to keep it under; the configuration's `method` by default.

    Raises:
        ValueError: If it was not evaluated before and after training.
    """
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    sides = {}
    for name in ("before", "after"):
        path = folder / "evaluation" / f"{name}.json"
        if not path.is_file():
            raise ValueError(f"{path} is missing: train with `compare: true`, or wait for the end of the run")
        sides[name] = json.loads(path.read_text(encoding="utf-8"))
    model = Path(config["pretrained_model_name_or_path"]).name
    compare(sides["before"], sides["after"], draws=1)  # refuses evaluations of two protocols
    return Run(model, method or config["method"], config["seed"], config, curve(folder), **sides)


def curve(run: Path) -> list[dict[str, Any]]:
    """One row per optimisation step; costs are cumulative."""
    metrics = read_metrics(run / "metrics.jsonl")
    # Held-out scores at the scale that was best before: the better of two would favour runs that have two.
    before = run / "evaluation" / "before.json"
    scale = json.loads(before.read_text(encoding="utf-8")).get("best_guidance") if before.exists() else None
    heldout = {e["step"]: e["overall"] for e in metrics.on_the_way if scale in (None, e.get("guidance"))}
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


def model_evaluations(curve: list[dict[str, Any]], config: dict[str, Any]) -> int:
    """Cost of training: a forward counts 1, a backward 1 under LoRA and 2 in full fine-tuning."""
    weight = 1 if config.get("lora_r", 1) else 2
    return int(curve[-1]["forwards"]) + weight * int(curve[-1]["backwards"])


def lost_since_best(curve: list[dict[str, Any]]) -> float:
    """Held-out score lost since its best."""
    scores = [float(row["heldout"]) for row in curve if row["heldout"] not in ("", None)]
    return max(scores) - scores[-1] if scores else 0.0
