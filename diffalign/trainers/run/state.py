"""Counters and histories of a run, and the rule of what a resumed run may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHANGEABLE = frozenset(
    (
        "max_train_steps output_dir overwrite_output_dir run_name report_to tracker_project_name checkpointing_steps "
        "checkpoints_total_limit resume_from_checkpoint eval_steps eval_guidance_scales eval_num_inference_steps "
        "eval_before eval_images_per_prompt eval_images_per_scale eval_rewards eval_dataset max_eval_samples compare "
        "preflight max_skipped_steps watchdog reward_options reward_cache async_scoring max_failed_rewards "
        "validation_prompts"
    ).split()
)
"""Keys that a resumed run may set anew; any other one would make it another run."""


@dataclass
class TrainerState:
    """Counters and histories.

    Attributes:
        step: optimiser steps made.
        batch: batches (rollouts) finished; the next one's number.
        skipped: steps skipped since the last one that was made.
        skipped_total: steps skipped in the whole run.
        method: what a method remembers from batch to batch, as JSON can hold it.
        guidance: best guidance scale of the evaluation before training, if there was one.
        watchdog: the evaluations that later ones are compared with.
    """

    step: int = 0
    batch: int = 0
    skipped: int = 0
    skipped_total: int = 0
    method: dict[str, Any] = field(default_factory=dict)
    guidance: float | None = None
    watchdog: dict[str, Any] = field(default_factory=dict)

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take over saved values; those of earlier versions had `rollout`, `history` and `rewards`."""
        values = dict(saved)
        if "rollout" in values:
            values["batch"] = values.pop("rollout")
        old = {name: values.pop(name) for name in ("history", "rewards") if name in values}
        values["method"] = {**values.get("method", {}), **old}
        for name, value in values.items():
            setattr(self, name, value)


def check_same_run(now: Mapping[str, Any], then: Mapping[str, Any], defaults: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint of a run with another configuration.

    Args:
        now: the present configuration.
        then: that of the checkpoint.
        defaults: values of keys that are newer than the checkpoint.
        path: the checkpoint.

    Raises:
        ValueError: the differing keys, with both values.
    """
    then = {**defaults, **then}
    differing = [key for key in now if key not in CHANGEABLE and now[key] != then[key]]
    if differing:
        shown = ", ".join(f"{key}: {then[key]!r} there, {now[key]!r} now" for key in differing[:4])
        raise ValueError(f"{path} belongs to a run with another configuration ({shown})")
