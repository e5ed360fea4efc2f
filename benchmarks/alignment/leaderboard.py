"""Runs recipes with equal model evaluations, keeps their results, writes docs/comparison.md and the methods' curves.

``python benchmarks/alignment/leaderboard.py --evaluations 400000 --seeds 0 1 2`` runs every method of shapes-flow;
``--recipes flow_grpo awm`` some; ``--table`` only writes the page from what is kept. It goes on where it stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.alignment.board import methods, reading, table  # noqa: E402
from benchmarks.alignment.keep import add  # noqa: E402
from benchmarks.alignment.method_curves import draw  # noqa: E402
from benchmarks.alignment.results import Results  # noqa: E402
from benchmarks.alignment.run_folder import curve, model_evaluations, read_run  # noqa: E402
from diffalign.trainers import OnPolicyConfig, load_config  # noqa: E402

MODEL = "shapes-flow"
PAGE = ROOT / "docs" / "comparison.md"
FIGURES = ROOT / "docs" / "images" / "methods"
SCALES = [1.0, 2.0]
"""For shapes-flow, whose guidance is distilled; 3 and 5 score far lower (docs/shapes.md)."""
PROBED = 3
"""Roll-outs whose mean cost decides how many fit: windows and forks make them differ."""


PROTOCOL = """\
Every method trains `shapes-flow` with its recipe of `scripts/recipes/shapes-flow` for the same number of model
evaluations (a forward counts 1, a backward 1 under LoRA; rollouts and updates, not evaluations). Scores are strict
GenEval scores on all held-out prompts, 4 images each, before and after training at the model's own best guidance scale
out of 1 and 2, with the same steps and the same initial noise. They are averaged over seeds prompt by prompt; the
interval is a paired bootstrap over prompts, stratified by task, 2,000 draws. "Trained reward" is its held-out gain;
"lost since best" is the largest fall of the held-out curve since its best.

Not at equal budgets: quickstart (32 images per prompt), its earlier versions second_of_five (five steps, 8 images) and
three_early_steps, and flow_grpo_long, which also choose from four guidance scales and train `shapes_graded`."""


def recipes() -> list[str]:
    """Every method that has a recipe for the model; the quickstart and examples of other rewards are not methods."""
    found = sorted((ROOT / "scripts" / "recipes" / MODEL).glob("*.yaml"))
    return [p.stem for p in found if p.stem != "quickstart" and load_config(p).reward_funcs == ["shapes"]]


def steps_per_rollout(config: OnPolicyConfig) -> int:
    """Optimiser steps between two rollouts."""
    return config.updates_per_rollout * config.num_iterations


def steps_within(config: OnPolicyConfig, cost: float, evaluations: int) -> int:
    """Optimiser steps of the whole rollouts that a budget pays for.

    Args:
        config: the recipe.
        cost: model evaluations of one rollout with its updates.
        evaluations: the budget.

    Raises:
        ValueError: it does not pay for one.
    """
    rollouts = int(evaluations // cost)
    if rollouts < 1:
        raise ValueError(f"one rollout of this recipe takes {cost:,.0f} model evaluations; budget: {evaluations:,}")
    return rollouts * steps_per_rollout(config)


def train(recipe: str, folder: Path, seed: int, **keys: object) -> int:
    """One run in a process of its own; its exit status."""
    given = {"seed": seed, "output_dir": folder, **keys}
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--config", f"{MODEL}/{recipe}", *words]
    return subprocess.run(command, check=False, cwd=ROOT).returncode


def probe(recipe: str, known: Path) -> float:
    """Mean cost of the first rollouts, in model evaluations, remembered in a file; the seed does not matter to it."""
    if known.is_file():
        return float(known.read_text(encoding="utf-8"))
    config = load_config(ROOT / "scripts" / "recipes" / MODEL / f"{recipe}.yaml")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        off = {"compare": "false", "eval_steps": 0, "preflight": "false", "eval_dataset": "none"}
        if train(recipe, run, 0, max_train_steps=PROBED * steps_per_rollout(config), **off):
            raise RuntimeError(f"{recipe} fails in its first rollouts: see above")
        resolved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        cost = model_evaluations(curve(run), resolved) / PROBED
    known.parent.mkdir(parents=True, exist_ok=True)
    known.write_text(str(cost), encoding="utf-8")
    return cost


def run_one(recipe: str, seed: int, evaluations: int, folder: Path, results: Results) -> bool:
    """Train, evaluate and keep one recipe and seed; False when it failed. A kept run is not run again."""
    key = (MODEL, recipe, str(seed))
    if key in {(row["model"], row["method"], row["seed"]) for row in results.table("summary")}:
        return True
    config = load_config(ROOT / "scripts" / "recipes" / MODEL / f"{recipe}.yaml")
    steps = steps_within(config, probe(recipe, folder / recipe / "cost.txt"), evaluations)
    every = 5 * steps_per_rollout(config)
    run = folder / recipe / f"seed-{seed}"
    known = next(iter(sorted(folder.glob("*/*/evaluation/before.json"))), None)  # the base is the same for all
    status = train(
        recipe, run, seed, max_train_steps=steps, checkpointing_steps=every, checkpoints_total_limit=1,
        resume_from_checkpoint="auto", eval_steps=max(steps // 3, 1), compare="true", eval_before=known or "none",
        eval_guidance_scales=SCALES, watchdog="off",
    )  # fmt: skip
    if status == 0:
        add(read_run(run, recipe), results)
    return status == 0


def page(results: Results) -> str:
    """The text of docs/comparison.md."""
    found = methods(results, MODEL)
    parts = [
        "# Comparison of methods",
        "Generated by `benchmarks/alignment/leaderboard.py` from [the kept runs](../benchmarks/alignment/README.md).",
        PROTOCOL,
        table(found) if found else "",
        "## Reading",
        reading(found),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=recipes(), choices=recipes(), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--evaluations", type=int, default=400_000, help="model evaluations of each run")
    parser.add_argument("--output", type=Path, default=Path("runs/leaderboard"), help="where runs and checkpoints go")
    parser.add_argument("--table", action="store_true", help="only write the page")
    args = parser.parse_args()
    chosen = [] if args.table else [(seed, recipe) for seed in args.seeds for recipe in args.recipes]
    results, output = Results(), args.output.resolve()
    failed = [f"{r} seed {s}" for s, r in chosen if not run_one(r, s, args.evaluations, output, results)]
    PAGE.write_text(page(results), encoding="utf-8")
    for model, method in sorted({(row["model"], row["method"]) for row in results.table("summary")}):
        name = method if model == MODEL else f"{model}_{method}"
        draw(results.curve(model, method), FIGURES / f"{name}.svg")
    print("\n".join([f"wrote {PAGE}", *(f"failed: {name}" for name in failed)]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
