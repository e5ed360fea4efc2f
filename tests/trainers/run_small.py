"""A small run in a process of its own: ``run_small.py FOLDER JSON``; see `main` for what the JSON may hold."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from diffalign.rewards.scopes import GroupReward
from diffalign.trainers import checkpoints
from tests.trainers.small_runs import redness, small_trainer, snapshot


def slow_redness(images: torch.Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> torch.Tensor:
    """Redness after a while, so that a signal finds the run in the middle of a roll-out."""
    time.sleep(0.3)
    return redness(images, prompts, metadata)


def interrupting(images: torch.Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> torch.Tensor:
    """Redness; the second process alone is interrupted."""
    if os.environ.get("RANK") == "1":
        os.kill(os.getpid(), signal.SIGINT)
    return redness(images, prompts, metadata)


def patchy(images: torch.Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> torch.Tensor:
    """Redness, NaN for the third of the images that ends in certain digits."""
    values = redness(images, prompts, metadata)
    return torch.where((values * 1e4).round() % 3 == 0, torch.nan, values)


def brightness(images: torch.Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> torch.Tensor:
    """Mean of a whole group."""
    return images.mean()


def hang_in_save(number: int) -> None:
    """Stop for ever in the middle of the save with this number, with half of a file on the disk."""
    calls, real = [], checkpoints.torch.save

    def save(content: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) < number:
            return real(content, path)
        Path(path).write_bytes(b"half of a file")
        print("in the middle of a save", flush=True)
        time.sleep(600)

    checkpoints.torch.save = save


def main() -> None:
    """Keys of the JSON: resume, hang_in_save, rewards (a key of `kinds`); the rest configures the run."""
    folder, keys = Path(sys.argv[1]), json.loads(sys.argv[2])
    resume, hang = keys.pop("resume", None), keys.pop("hang_in_save", 0)
    group = GroupReward(brightness, name="brightness")
    kinds = {
        "redness": redness,
        "slow": slow_redness,
        "interrupting": interrupting,
        "several": [group, patchy],
    }
    chosen = kinds[keys.pop("rewards", "redness")]
    if hang:
        hang_in_save(hang)
    trainer = small_trainer(folder, rewards=chosen, **keys)
    trainer.train(resume)
    rank = os.environ.get("RANK", "0")
    torch.save(snapshot(trainer), folder / f"end-{rank}.pt")


if __name__ == "__main__":
    main()
