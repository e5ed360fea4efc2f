"""Trains a tiny random language model with objectives of diffalign.losses, and prints the figure that should rise.

``python scripts/language_model/train.py --objective simpo dpo --steps 60``; ``--objective all`` makes the table of
docs/language_models.md. Preference objectives raise the implicit accuracy on held-out pairs, policy objectives the mean
reward of answers to held-out prompts; both start at one half.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a bare checkout as well

from loop import Result  # noqa: E402
from objectives import NOT_HERE, POLICY, PREFERENCE, names, train, unknown  # noqa: E402

STEPS = 24


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--objective", nargs="+", default=["dpo"], metavar="NAME", help="one or several names, or all")
    out.add_argument("--steps", type=int, default=STEPS, help=f"optimiser steps, default {STEPS}")
    out.add_argument("--seeds", type=int, nargs="+", default=[0], help="of model, data and sampling; default 0")
    out.add_argument("--list", action="store_true", help="print the names of all objectives and stop")
    return out


def row(name: str, results: list[Result]) -> str:
    """One line of the table in Markdown."""
    figure = "accuracy" if name in PREFERENCE else "reward"
    rises = [result.after - result.before for result in results]
    cells = [f"{result.before:.3f} → {result.after:.3f}" for result in results]
    return " | ".join([f"| `{name}`", figure, *cells, f"{min(rises):+.3f} |"])


def main(arguments: list[str] | None = None) -> None:
    """Trains, one line for each objective."""
    options = parser().parse_args(arguments)
    if options.list:
        print("preference:", *PREFERENCE, sep="\n  ")
        print("policy:", *POLICY, sep="\n  ")
        print("not here:", *(f"{name}: {reason}" for name, reason in NOT_HERE.items()), sep="\n  ")
        return
    if options.steps < 1:
        parser().error(f"--steps must be at least 1, got {options.steps}")
    torch.set_num_threads(1)  # a model of this size gains nothing from more
    chosen = names() if options.objective == ["all"] else options.objective
    for name in chosen:
        if name not in names():
            parser().error(unknown(name))
    print(" | ".join(["| objective | figure", *(f"seed {seed}" for seed in options.seeds), "smallest rise |"]))
    print("|---" * (len(options.seeds) + 3) + "|")
    for name in chosen:
        results = [train(name, steps=options.steps, seed=seed) for seed in options.seeds]
        print(row(name, results), flush=True)


if __name__ == "__main__":
    main()
