"""Adds finished runs to `results`, and removes them.

    python benchmarks/alignment/keep.py runs/awm/seed-0 runs/awm/seed-1 --method awm
    python benchmarks/alignment/keep.py --remove shapes-flow          # its checkpoint has changed
    python benchmarks/alignment/keep.py --remove shapes-flow/awm

A run that is kept again replaces the one of the same seed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.alignment.results import MEAN, Results, Row, read_table, write_table  # noqa: E402
from benchmarks.alignment.run_folder import PER_RUN, Run, lost_since_best, model_evaluations, read_run  # noqa: E402
from benchmarks.alignment.summary import mean_row, run_row  # noqa: E402


def add(run: Run, results: Results) -> None:
    """Add one run to the tables and bring its method's mean up to date.

    Raises:
        ValueError: If other seeds of the method were measured under another protocol; nothing is changed then.
    """
    seed, key = str(run.seed), (run.model, run.method)
    protocol = _protocol_name(run, results)
    others = [row for row in results.table("summary") if (row["model"], row["method"]) == key]
    others = [row for row in others if row["seed"] not in (seed, MEAN)]
    differing = sorted({row["protocol"] for row in others} - {protocol})
    if differing:
        raise ValueError(
            f"this run was measured under {protocol} and other seeds of {run.model}/{run.method} under {differing[0]} "
            "(other base, rewards or settings): remove them (--remove), or keep it under another name (--method)"
        )
    _file_protocol(run, results, protocol)
    results.replace("scores", run.model, run.method, seed, _scores(run.after, run, protocol))
    shared = {name: value for name, value in run.config.items() if name not in PER_RUN}
    known = results.config(run.model, run.method) if others else {}
    if not known:
        path = results.folder / run.model / f"{run.method}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(shared, sort_keys=False), encoding="utf-8")
    kept = [row for row in results.curve(run.model, run.method) if row["seed"] != seed]
    own = [{"seed": seed} | {name: _short(name, value) for name, value in row.items()} for row in run.curve]
    curves = sorted(kept + own, key=lambda row: (int(row["seed"]), int(row["step"])))
    write_table(results.folder / run.model / f"{run.method}.csv", curves)

    identity = {"model": run.model, "method": run.method, "seed": seed, "protocol": protocol}
    cost = {
        "images": str(run.curve[-1]["images"]),
        "evaluations": str(model_evaluations(run.curve, run.config)),
        "seconds": str(run.curve[-1]["seconds"]),
        "lost": f"{lost_since_best(run.curve):.6f}",
        "differences": _differences(known or shared, shared),
    }
    row = run_row(results, identity | {"trained": str(run.config["reward_funcs"][0])}, cost)
    results.replace("summary", run.model, run.method, seed, [row])
    results.replace("summary", *key, MEAN, [mean_row(results, [*others, row])] if others else [])


def _protocol_name(run: Run, results: Results) -> str:
    """Name of the run's protocol: the kept one whose settings and scores before training are the same, or a new one."""
    before = run.before
    scales = "-".join(before["guidance"])
    name = f"{run.model}_{before['num_inference_steps']}steps_{before['images_per_prompt']}images_guidance_{scales}"
    name = name.replace(".0", "")
    known = {row["protocol"] for row in results.table("protocols")}
    for number in range(1, len(known) + 2):
        candidate = name if number == 1 else f"{name}_{number}"
        lines = _scores(before, run, candidate, before=True)
        kept = [one for one in results.table("scores") if (one["protocol"], one["method"]) == (candidate, "")]
        if candidate not in known or lines == kept:
            break
    return candidate


def _file_protocol(run: Run, results: Results, name: str) -> None:
    """File the scores before training, unless the protocol is known."""
    before, rows = run.before, results.table("protocols")
    if name in {row["protocol"] for row in rows}:
        return
    best = before["guidance"][str(before["best_guidance"])]
    row = {
        "model": run.model,
        "protocol": name,
        "suite": before["suite"],
        "prompts": _prompts(before, run, results),
        "steps": str(before["num_inference_steps"]),
        "images": str(before["images_per_prompt"]),
        "images_per_scale": str(before.get("images_per_scale", before["images_per_prompt"])),
        "seed": str(before["seed"]),
        "best_guidance": str(before["best_guidance"]),
        "overall": f"{best['overall']:.6f}",
    }
    row |= {f"before/{task}": f"{value:.6f}" for task, value in best["tasks"].items()}
    results.write("scores", results.table("scores") + _scores(before, run, name, before=True))
    results.write("protocols", [*rows, row])


def _prompts(before: dict[str, Any], run: Run, results: Results) -> str:
    """Name of the file that lists the prompts of an evaluation; a new one where none has these prompts."""
    rows = [{"task": line["task"], "prompt": line["prompt"]} for line in before["prompts"]]
    folder, number = results.folder / "prompts", 1
    name = base = str(run.config["eval_dataset"]).replace(":", "-").replace("/", "-")
    while (folder / f"{name}.csv").exists() and read_table(folder / f"{name}.csv") != rows:
        number += 1
        name = f"{base}_{number}"
    write_table(folder / f"{name}.csv", rows)
    return name


def _scores(found: dict[str, Any], run: Run, protocol: str, *, before: bool = False) -> list[Row]:
    """Lines of scores.csv, one per reward."""
    identity = {"model": run.model, "method": "" if before else run.method, "seed": "" if before else str(run.seed)}
    identity |= {"protocol": protocol, "guidance": str(found["best_guidance"])}
    names = found["prompts"][0]["rewards"]
    return [
        identity | {"reward": name, "scores": " ".join(_score(line["rewards"][name]) for line in found["prompts"])}
        for name in names
    ]


def _score(value: float | None) -> str:
    return "nan" if value is None else f"{value:.5g}"


def _short(column: str, value: Any) -> str:
    """Diagnostics are rounded, the few held-out scores are not."""
    return f"{value:.6g}" if isinstance(value, float) and column != "heldout" else str(value)


def _differences(method: dict[str, Any], run: dict[str, Any]) -> str:
    keys = [key for key in method | run if method.get(key) != run.get(key)]
    return " ".join(f"{key}={run.get(key)}" for key in keys)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="finished run folders")
    parser.add_argument("--method", help="name to keep them under; default: the method of their configuration")
    parser.add_argument("--remove", metavar="MODEL[/METHOD]", help="delete kept runs")
    args = parser.parse_args()
    results = Results()
    if args.remove:
        model, _, method = args.remove.partition("/")
        results.remove(model, method or None)
    for run in [read_run(folder, args.method) for folder in args.runs]:
        add(run, results)
        print(f"kept {run.model}/{run.method} seed {run.seed}")


if __name__ == "__main__":
    main()
