"""How much of a slow reward the rollout hides: scoring beside it against scoring after it, side by side in one run.

    python benchmarks/system/async_scoring.py
    python benchmarks/system/async_scoring.py --images 128 --micro_batch 8 --ratios 0.5 --rounds 5

The reward sleeps (it costs no processor, like a remote judge) for a fixed time per image: the ratio times what a
rollout takes without it, over the number of images. Each round makes the same rollout once per ratio and way, in
turn. Printed per ratio are medians over rounds: seconds of rollout and scoring together either way, and the share of
the slept time that is hidden, 1 - (seconds waited for scores after the last image) / (seconds slept). Before anything
is timed, the scores of both ways are compared bit for bit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from diffalign.models import Adapter, load_policy  # noqa: E402
from diffalign.trainers import PolicyGradientTrainer, make_config  # noqa: E402

PROMPTS = ["a photo of a red circle", "a photo of two squares", "a photo of a blue triangle", "a photo of a ring"]


class Sleeper:
    """Mean brightness, after `seconds` of sleep per image."""

    __name__ = "sleeper"

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, images: Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> Tensor:
        """Scores `(B,)` of images `(B, 3, H, W)`."""
        time.sleep(self.seconds * len(images))
        return images.mean((1, 2, 3))


def make_trainer(policy: Adapter, reward: Sleeper, asynchronous: bool, options: argparse.Namespace, folder: str) -> Any:
    """A trainer whose `collect` is one rollout with its scores."""
    args = make_config(
        {
            "num_inference_steps": options.steps,
            "num_generations": options.images // len(PROMPTS),
            "prompts_per_rollout": len(PROMPTS),
            "updates_per_rollout": 1,
            "per_device_train_batch_size": options.micro_batch,
            "async_scoring": asynchronous,
            "eval_dataset": None,
            "lora_r": 8,
            "output_dir": folder,
        }
    )
    return PolicyGradientTrainer(policy, args, reward_funcs=[reward], train_dataset=PROMPTS)


def collected(trainer: Any) -> tuple[float, float, Tensor]:
    """Seconds of a rollout with its scores, seconds of it spent waiting for scores, the scores."""
    trainer.clock.drain()
    start = time.perf_counter()
    batch = trainer.collect(0)
    seconds = time.perf_counter() - start
    return seconds, trainer.clock.drain()["seconds/reward"], batch.rewards["sleeper"]


def race(options: argparse.Namespace) -> list[dict[str, float]]:
    """One row per ratio."""
    reward = Sleeper()
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            way: make_trainer(load_policy("shapes-flow"), reward, way == "beside", options, f"{folder}/{way}")
            for way in ("after", "beside")
        }
        scores = [collected(trainer)[2] for trainer in ways.values()]
        if not torch.equal(*scores):
            raise SystemExit("the two ways score differently")
        found: dict[float, dict[str, list[float]]] = {ratio: defaultdict(list) for ratio in options.ratios}
        for _ in range(options.rounds):
            for ratio, times in found.items():
                reward.seconds = 0.0
                bare = collected(ways["after"])[0]
                reward.seconds = ratio * bare / options.images
                times["rollout"].append(bare)
                times["after"].append(collected(ways["after"])[0])
                beside, waited, _ = collected(ways["beside"])
                times["beside"].append(beside)
                times["hidden"].append(1 - waited / (ratio * bare))
    return [
        {"ratio": ratio, "least": min(times["hidden"]), "most": max(times["hidden"])}
        | {key: statistics.median(values) for key, values in times.items()}
        for ratio, times in found.items()
    ]


def main() -> None:
    """Reads the options, prints a table and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128, help="images per rollout, a multiple of 4")
    parser.add_argument("--micro_batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
    options = parser.parse_args()
    rows = race(options)
    head = ("reward / rollout", "rollout alone, s", "scored after it, s", "scored beside it, s", "hidden", "at best")
    print(f"| {' | '.join(head)} |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        # the last micro-batch has no rollout to hide behind, and a longer reward only as much as the rollout has
        best = min(1.0, 1 / row["ratio"]) * (1 - options.micro_batch / options.images)
        print(
            f"| {row['ratio']:g} | {row['rollout']:.2f} | {row['after']:.2f} | {row['beside']:.2f} | "
            f"**{row['hidden']:.0%}** ({row['least']:.0%} to {row['most']:.0%}) | {best:.0%} |"
        )
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), **vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
