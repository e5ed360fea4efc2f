"""Rewards of the frozen model's own images, which a reward can be shaped against."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffalign.rewards.scoring import score
from diffalign.sampling import noise_key, rollout
from diffalign.trainers.batch import gather_rows
from diffalign.trainers.evaluation import decoded
from diffalign.trainers.plans import evaluation_plan
from diffalign.trainers.rollout_spec import REFERENCE, Record

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer


class ReferenceScores:
    """Scores of M samples per prompt from the policy before training, made once for each prompt.

    Deterministic steps at the guidance of training; the seeds are those of the run and the prompt, so a resumed run has
    the same.

    Args:
        trainer: the run.
    """

    def __init__(self, trainer: BaseTrainer) -> None:
        self._trainer = trainer
        self._wanted = trainer.combination.reference_samples
        self._known: dict[str, dict[str, list[float]]] = {}

    def of(self, records: list[Record]) -> dict[str, Tensor]:
        """Reward name -> `(P, M)`, for the rewards that ask for it; the same on every process."""
        if not self._wanted:
            return {}
        keys = [_key(record) for record in records]
        new = {key: record for key, record in zip(keys, records, strict=True) if key not in self._known}
        if new:
            self._add(new)
        return {
            name: torch.tensor([self._known[key][name][:count] for key in keys]) for name, count in self._wanted.items()
        }

    def _add(self, new: dict[str, Record]) -> None:
        """Roll out and score the prompts that are new, shared out over processes."""
        trainer, samples = self._trainer, max(self._wanted.values())
        listed = [(key, record, j) for key, record in new.items() for j in range(samples)]
        size, world = trainer.args.per_device_train_batch_size, trainer.accelerator.num_processes
        parts = torch.arange(len(listed)).split(size)[trainer.accelerator.process_index :: world]
        found: dict[str, list[Tensor]] = {name: [torch.zeros(0)] for name in self._wanted}
        for part in parts:
            for name, values in self._scored([listed[int(i)] for i in part]).items():
                found[name].append(values.cpu())
        rows = torch.cat([torch.zeros(0, dtype=torch.long), *parts])
        for name, collected in found.items():
            whole = (
                gather_rows(trainer.accelerator, torch.cat(collected), rows, len(listed))
                .view(len(new), samples)
                .tolist()
            )
            for key, row in zip(new, whole, strict=True):
                self._known.setdefault(key, {})[name] = row

    def _scored(self, listed: list[tuple[str, Record, int]]) -> dict[str, Tensor]:
        trainer = self._trainer
        args, prompts = trainer.args, [record["prompt"] for _, record, _ in listed]
        seeds = [noise_key(args.seed, REFERENCE, int(key, 16), j) & 0x7FFFFFFF for key, _, j in listed]
        plan = evaluation_plan(trainer.policy.schedule(args.num_inference_steps), args.guidance_scale)
        with torch.no_grad(), trainer.reference.active(), trainer.policy.meter.phase("reference"):
            with trainer.clock.phase("rollout"):
                out = rollout(trainer.policy, plan, prompts, seeds, negative_prompt=args.negative_prompt)
            with trainer.clock.phase("reward"):
                wanted = {name: trainer.rewards[name] for name in self._wanted}
                return score(wanted, decoded(out), prompts, [record["metadata"] for _, record, _ in listed])


def _key(record: Record) -> str:
    """15 hex digits of a prompt and its metadata, which some rewards look at."""
    text = json.dumps([record["prompt"], record["metadata"]], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:15]
