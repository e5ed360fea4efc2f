"""A small run in a process of its own: ``run_small.py FOLDER JSON``; see `main` for what the JSON may hold."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from diffalign.rewards import GroupReward
from diffalign.trainers import BaseTrainer
from diffalign.trainers.run import checkpoints, evaluation
from tests.trainers.small_runs import redness, small_trainer, snapshot


def slow_redness(images: torch.Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> torch.Tensor:
    """Redness after a while, so that a signal finds the run in the middle of a rollout."""
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


def second_process_only(act: Callable[[], None]) -> Callable[..., Any]:
    """Redness; in its second call the second process alone does something."""
    calls: list[int] = []

    def reward(images: torch.Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> torch.Tensor:
        calls.append(1)
        if os.environ.get("RANK") == "1" and len(calls) == 2:
            act()
        return redness(images, prompts, metadata)

    return reward


def crash() -> None:
    """What a bug in somebody's reward does."""
    raise KeyError("metadata has no colour")


def kinds() -> dict[str, Any]:
    """What a run may be rewarded for, by name."""
    return {
        "redness": redness,
        "slow": slow_redness,
        "interrupting": interrupting,
        "compared": [redness, GroupReward(brightness, name="brightness")],
        "several": [GroupReward(brightness, name="brightness"), patchy],
        "crashing": second_process_only(crash),
        "dying": second_process_only(lambda: os.kill(os.getpid(), signal.SIGKILL)),
    }


def poison(trainer: BaseTrainer, steps: list[int]) -> None:
    """The second process alone has a NaN in one of its gradients at these steps."""
    real = trainer.losses

    def losses(*args: Any) -> Iterator[torch.Tensor]:
        yield from real(*args)
        if os.environ.get("RANK") == "1" and trainer.state.step in steps:
            yield trainer.parameters[2].sum() * float("nan")

    trainer.losses = losses


def trace(trainer: BaseTrainer) -> dict[str, list[Any]]:
    """Fills with what is made here: summed gradient of each step, micro-batches (rows, shapes), prompts evaluated."""
    seen: dict[str, list[Any]] = {"gradients": [], "pieces": [], "evaluated": []}
    optimisation, collect, roll_out = trainer.optimisation, trainer.collect, evaluation.rollout
    add_up = optimisation._sum_over_processes

    def sum_over_processes() -> None:
        add_up()
        seen["gradients"].append([p.grad.clone() for p in trainer.parameters])

    def collecting(index: int) -> Any:
        batch = collect(index)
        shape = [list(micro.trajectory.x.shape) for micro in batch.mine.values()]
        seen["pieces"].append({n: (m.rows.tolist(), s) for (n, m), s in zip(batch.mine.items(), shape, strict=True)})
        return batch

    def evaluating(policy: Any, plan: Any, prompts: list[str], *args: Any, **keys: Any) -> Any:
        seen["evaluated"].extend(prompts)
        return roll_out(policy, plan, prompts, *args, **keys)

    evaluation.rollout = evaluating
    optimisation._sum_over_processes, trainer.collect = sum_over_processes, collecting
    return seen


def run_one(folder: Path, keys: dict[str, Any], pipeline: Any = None) -> None:
    """One run; `keys` as `main` has them."""
    resume, hang = keys.pop("resume", None), keys.pop("hang_in_save", 0)
    chosen, poisoned = kinds()[keys.pop("rewards", "redness")], keys.pop("poison", [])
    if hang:
        hang_in_save(hang)
    trainer = small_trainer(folder, pipeline, rewards=chosen, **keys)
    poison(trainer, poisoned)
    seen = trace(trainer)
    trainer.train(resume)
    rank = os.environ.get("RANK", "0")
    torch.save(snapshot(trainer), folder / f"end-{rank}.pt")
    torch.save(seen, folder / f"trace-{rank}.pt")


def main() -> None:
    """Keys of the JSON: resume, hang_in_save, poison, rewards (a key of `kinds`); the rest configures the run."""
    run_one(Path(sys.argv[1]), json.loads(sys.argv[2]))


if __name__ == "__main__":
    main()
