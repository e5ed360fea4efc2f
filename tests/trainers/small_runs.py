"""Small runs: a tiny model, two prompts, a reward with spread; about a tenth of a second per rollout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffalign.models import trainable_parameters, trainable_state
from diffalign.trainers import BaseTrainer, Trainer
from diffalign.trainers.run.batch import as_one_update
from tests.tiny_pipelines import tiny_sd3

TASKS = {"a photo of a red circle": "colors", "two blue square": "counting"}
RECORDS = [{"prompt": prompt, "metadata": {"tag": tag}} for prompt, tag in TASKS.items()]

KEYS: dict[str, Any] = {
    "num_inference_steps": 3,
    "num_generations": 4,
    "prompts_per_rollout": 2,
    "per_device_train_batch_size": 4,
    "updates_per_rollout": 2,
    "max_train_steps": 2,
    "learning_rate": 1e-2,
    "epsilon": 1e-2,
    "lora_r": 4,
    "lora_alpha": 8.0,
    "preflight": False,
    "checkpointing_steps": 0,
}
DDPO: dict[str, Any] = {
    "sde_type": "ddim",
    "noise_level": 1.0,
    "sde_last_step": True,
    "advantage": "running",
    "history_size": 6,
    "history_min_count": 6,
}


def redness(images: Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> Tensor:
    """Mean red minus mean green."""
    return images[:, 0].mean((1, 2)) - images[:, 1].mean((1, 2))


def small_trainer(
    folder: Path,
    pipeline: Any = None,
    *,
    rewards: Any = redness,
    records: Any = RECORDS,
    eval_records: Any = None,
    peft_config: Any = None,
    **keys: Any,
) -> BaseTrainer:
    """A trainer that writes to `folder`; `keys` on top of KEYS."""
    held_out = {} if eval_records else {"eval_dataset": None}
    common = {key: value for key, value in KEYS.items() if key != "epsilon" or keys.get("method") != "nft"}
    return Trainer(
        tiny_sd3() if pipeline is None else pipeline,
        {**common, "output_dir": str(folder), **held_out, **keys},
        reward_funcs=rewards,
        train_dataset=records,
        eval_dataset=eval_records,
        peft_config=peft_config,
    )


def events(folder: Path, kind: str = "step") -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of one kind, without the wall-clock times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["event"] == kind]
    return [{key: value for key, value in line.items() if not key.startswith("seconds/")} for line in kept]


def snapshot(trainer: BaseTrainer) -> dict[str, Any]:
    """Everything a run is: weights, averages, optimiser, position, histories."""
    return {
        "weights": trainable_state(trainer.policy),
        "ema": None if trainer.ema is None else [p.clone() for p in trainer.ema.shadow_params],
        "optimisation": trainer.optimisation.state_dict(),
        "state": vars(trainer.state).copy(),
    }


def same(a: Any, b: Any) -> bool:
    """Equality bit for bit of nested dicts, lists and tensors."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest absolute difference between two sets of weights."""
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def disturb(trainer: BaseTrainer, amount: float = 0.05, seed: int = 7) -> None:
    """Move every trainable weight, so that a LoRA does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable_parameters(trainer.policy):
            parameter += amount * torch.randn(parameter.shape, generator=generator)


def gradient(trainer: BaseTrainer, batch: Any) -> list[Tensor]:
    """The gradient of one update over a whole rollout, as the trainer makes it."""
    batch = trainer.prepare(batch)
    trainer.backward(batch, as_one_update(batch))
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainer.parameters]
    trainer.optimisation.optimizer.zero_grad()
    return found


def gap(a: list[Tensor], b: list[Tensor]) -> float:
    """Norm of the difference of two gradients over the norm of the second."""
    flat = [torch.cat([g.flatten() for g in grads]) for grads in (a, b)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def feedback_of(trainer: BaseTrainer, batch: Any) -> Any:
    """Advantages or labels of a rollout, as the trainer prepares it."""
    return trainer.prepare(batch).feedback
