"""Where a run stands, and its way to disk and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffalign.config import RunConfig
from diffalign.models import load_trainable_state, trainable_state
from diffalign.trainers.checkpoints import load_checkpoint, prune_checkpoints, save_checkpoint, sweep

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer

MAY_CHANGE = (
    "max_train_steps output_dir overwrite_output_dir run_name report_to tracker_project_name checkpointing_steps "
    "checkpoints_total_limit resume_from_checkpoint eval_steps eval_guidance_scales eval_num_inference_steps "
    "eval_before eval_images_per_prompt eval_images_per_scale eval_rewards eval_dataset max_eval_samples compare "
    "preflight max_skipped_steps watchdog reward_options reward_cache async_scoring max_failed_rewards"
)
CHANGEABLE = frozenset(MAY_CHANGE.split())
"""Keys that a resumed run may set anew; any other one would make it another run."""


@dataclass
class TrainerState:
    """Counters and histories.

    Attributes:
        step: optimiser steps made.
        rollout: roll-outs finished; the next one's number.
        skipped: steps skipped for a non-finite gradient.
        history: reward name -> prompt -> recent rewards (running advantages).
        rewards: running moments and multipliers of the combination of rewards.
        guidance: best guidance scale of the evaluation before training, if there was one.
        watchdog: the evaluations that later ones are held against.
    """

    step: int = 0
    rollout: int = 0
    skipped: int = 0
    history: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    rewards: dict[str, dict[str, Any]] = field(default_factory=dict)
    guidance: float | None = None
    watchdog: dict[str, Any] = field(default_factory=dict)

    def snapshot(self, trainer: BaseTrainer) -> dict[str, Any]:
        """Everything a run is, as `save_checkpoint` takes it: weights, tensors, state."""
        tensors = {"optimisation": trainer.optimisation.state_dict(), "rng": torch.get_rng_state()}
        if trainer.ema is not None:
            tensors["ema"] = trainer.ema.state_dict()
        if trainer.old is not None:
            tensors["old"] = trainer.old.state_dict()
        state = {"trainer": asdict(self), "config": asdict(trainer.args)}
        return {"weights": trainable_state(trainer.policy), "tensors": tensors, "state": state}

    def restore(self, trainer: BaseTrainer, weights: dict[str, Tensor], tensors: dict[str, Any], state: Any) -> None:
        """Put `snapshot` back."""
        load_trainable_state(trainer.policy, weights)
        trainer.optimisation.load_state_dict(tensors["optimisation"])
        torch.set_rng_state(tensors["rng"])
        if trainer.ema is not None:
            trainer.ema.load_state_dict(tensors["ema"])
            trainer.ema.to(trainer.accelerator.device)
        if trainer.old is not None:
            trainer.old.load_state_dict(tensors["old"])
        for key, value in state["trainer"].items():
            setattr(self, key, value)

    def save(self, trainer: BaseTrainer) -> None:
        """Write a checkpoint of the trainer (main process)."""
        if trainer.accelerator.is_main_process:
            save_checkpoint(trainer.folder, self.step, **self.snapshot(trainer))
            prune_checkpoints(trainer.folder, trainer.args.checkpoints_total_limit)
        trainer.accelerator.wait_for_everyone()

    def load(self, trainer: BaseTrainer, path: Path) -> None:
        """Take up a checkpoint folder.

        Raises:
            ValueError: a damaged one, or one of another model or configuration (the differing keys are named).
        """
        weights, tensors, state = load_checkpoint(path)
        _check_same_run(asdict(trainer.args), state["config"], str(path))
        self.restore(trainer, weights, tensors, state)
        if trainer.accelerator.is_main_process:
            sweep(trainer.folder)  # a run that was killed after its last step saves no more


def _check_same_run(now: dict[str, Any], then: dict[str, Any], path: str) -> None:
    then = asdict(RunConfig()) | then  # a key that is newer than the checkpoint had its default
    differing = [key for key in now if key not in CHANGEABLE and now[key] != then[key]]
    if differing:
        shown = ", ".join(f"{key}: {then[key]!r} there, {now[key]!r} now" for key in differing[:4])
        raise ValueError(f"{path} belongs to a run with another configuration ({shown})")
