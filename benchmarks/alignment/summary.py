"""Rows of `summary.csv`: gains with their intervals, from the scores of every prompt."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.alignment.results import MEAN, Results, Row, read_table
from diffalign.report import compare

SHARED = ("model", "method", "protocol", "trained")


def evaluation(results: Results, protocol: str, method: str = "", seed: str = "") -> dict[str, Any]:
    """One evaluation as `diffalign.report.compare` takes it; without a method the one before training."""
    row = results.protocol(protocol)
    key = (protocol, method, seed)
    lines = [one for one in results.table("scores") if (one["protocol"], one["method"], one["seed"]) == key]
    columns = {one["reward"]: [_number(value) for value in one["scores"].split()] for one in lines}
    prompts = read_table(results.folder / "prompts" / f"{row['prompts']}.csv")
    values = zip(*columns.values(), strict=True)
    scored = [dict(zip(columns, one, strict=True)) for one in values]
    return {
        "suite": row["suite"],
        "num_inference_steps": int(row["steps"]),
        "images_per_prompt": int(row["images"]),
        "seeds": row["seed"],
        "best_guidance": float(lines[0]["guidance"]),
        "prompts": [
            line | {"score": scores[row["suite"]], "rewards": scores}
            for line, scores in zip(prompts, scored, strict=True)
        ],
    }


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


def run_row(results: Results, identity: Row, cost: Row) -> Row:
    """Summary of one run.

    Args:
        results: Where its scores are kept.
        identity: `model`, `method`, `seed`, `protocol` and `trained` of the run.
        cost: Its further columns.
    """
    before = evaluation(results, identity["protocol"])
    after = evaluation(results, identity["protocol"], identity["method"], identity["seed"])
    return identity | _gains(compare(before, after), identity["trained"]) | cost


def mean_row(results: Results, runs: list[Row]) -> Row:
    """Summary of a method: gains of its scores averaged over seeds, mean cost, largest loss since the best.

    Args:
        results: Where their scores are kept.
        runs: Rows of its runs, all of one protocol.
    """
    afters = [evaluation(results, run["protocol"], run["method"], run["seed"]) for run in runs]
    comparison = compare(evaluation(results, runs[0]["protocol"]), averaged(afters))
    cost = {name: f"{statistics.mean(float(run[name]) for run in runs):.10g}" for name in COST}
    identity = {name: runs[0][name] for name in SHARED} | {"seed": MEAN}
    lost = max(runs, key=lambda run: float(run["lost"]))["lost"]
    return identity | _gains(comparison, runs[0]["trained"]) | cost | {"lost": lost, "differences": ""}


COST = ("images", "evaluations", "seconds")


def _gains(comparison: dict[str, Any], trained: str) -> Row:
    """Columns of one comparison: overall, the trained reward, and the gain of every task."""
    row = {f"guidance_{side}": f"{comparison['guidance'][side]:.6g}" for side in ("before", "after")}
    row |= {name: _digits(comparison["overall"][name]) for name in ("before", "after", "gain", "low", "high")}
    reward = comparison["rewards"].get(trained, {})
    row |= {f"trained_{name}": _digits(reward[name]) if reward else "" for name in ("gain", "low", "high")}
    return row | {f"gain/{task}": _digits(entry["gain"]) for task, entry in comparison["tasks"].items()}


def _digits(value: float) -> str:
    return f"{value:.6f}"


def _number(text: str) -> float | None:
    return None if text == "nan" else float(text)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None
