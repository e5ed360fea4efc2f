"""Held-out score over guidance and steps: ``python scripts/make_shapes/curve.py [--checkpoint NAME] [--plot PNG]``.

Prints a table in Markdown (rows: guidance, columns: steps) and the score by task at the best guidance of the first
column, and draws the table. All cells share their lines and their noise; standard errors are over prompts by task.
"""

from __future__ import annotations

import argparse
import os
from functools import partial

import flow
import torch
import unet
from common import heldout_score
from diffusers import DiffusionPipeline, StableDiffusion3Pipeline

from diffalign.evaluation.geneval_prompts import TAGS
from diffalign.shapes import checkpoint

GUIDANCE = (1.0, 2.0, 3.0, 5.0, 7.0)


def table(scores: dict[tuple[float, int], float], steps: list[int]) -> str:
    """Markdown."""
    head = ["| guidance | " + " | ".join(f"{n} steps" for n in steps) + " |", "|---" * (len(steps) + 1) + "|"]
    rows = [f"| {g:g} | " + " | ".join(f"{scores[g, n]:.3f}" for n in steps) + " |" for g in GUIDANCE]
    return "\n".join(head + rows)


def plot(scores: dict[tuple[float, int], float], steps: list[int], name: str, path: str) -> None:
    """One line per number of steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.5, 3.6), constrained_layout=True)
    for number in steps:
        axes.plot(GUIDANCE, [scores[g, number] for g in GUIDANCE], marker="o", label=f"{number} steps")
    axes.set(xlabel="guidance scale", ylabel="held-out overall", title=name, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="shapes-flow", help="shipped name, or a folder")
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 4, 20])
    parser.add_argument("--repeats", type=int, default=4, help="images per held-out line")
    parser.add_argument("--plot", help="PNG to write")
    args = parser.parse_args()
    folder = args.checkpoint if os.path.isdir(args.checkpoint) else checkpoint(args.checkpoint)
    pipe = DiffusionPipeline.from_pretrained(folder)
    generate = (flow if isinstance(pipe, StableDiffusion3Pipeline) else unet).generate
    scores: dict[tuple[float, int], float] = {}
    by_task: dict[float, dict[str, float]] = {}
    for number in args.steps:
        for guidance in GUIDANCE:
            result = heldout_score(pipe, partial(generate, steps=number), guidance, args.repeats)
            scores[guidance, number] = result["overall"]
            print(f"guidance {guidance:g} steps {number} overall {result['overall']:.3f}", flush=True)
            if number == args.steps[0]:
                by_task[guidance] = result["tasks"]
    print(table(scores, sorted(args.steps)))
    best = max((1.0, 2.0, 3.0, 5.0), key=lambda g: scores[g, args.steps[0]])
    print(f"by task at guidance {best:g}, {args.steps[0]} steps:", {t: round(by_task[best][t], 3) for t in TAGS})
    if args.plot:
        plot(scores, sorted(args.steps), args.checkpoint, args.plot)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
