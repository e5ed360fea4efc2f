"""Two methods that fit beside the shipped ones without changing anything of the loop: examples for docs and tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffalign.config import RunConfig, key
from diffalign.rewards.scoring import score
from diffalign.sampling import denoise, encode_prompts, make_plan, noised, ode, rollout, step_noise
from diffalign.trainers import BaseTrainer, RewardConfig
from diffalign.trainers.rollouts.spec import choose_prompts
from diffalign.trainers.run.batch import Update, cut_updates


@dataclass(frozen=True)
class RowBatch:
    """N rows in micro-batches of one update; each process holds those that it owns."""

    mine: Mapping[int, Any]
    pieces: Sequence[Tensor]

    @property
    def samples(self) -> int:
        """N."""
        return sum(len(rows) for rows in self.pieces)

    def updates(self) -> list[Update]:
        """One optimiser step."""
        return cut_updates([self.pieces])


def cut(trainer: BaseTrainer, rows: int) -> list[Tensor]:
    """Rows in micro-batches."""
    return list(torch.arange(rows).split(trainer.args.per_device_train_batch_size))


def owned(trainer: BaseTrainer, pieces: Sequence[Tensor]) -> range:
    """Numbers of the micro-batches of this process."""
    return range(trainer.accelerator.process_index, len(pieces), trainer.accelerator.num_processes)


# --- offline: records of images, a denoising loss ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(RunConfig):
    """Flow matching on images that somebody liked."""

    method: str = key("fine_tune", "training method")
    batch: int = key(4, "images per update", above=0)


class FineTuneTrainer(BaseTrainer):
    """Records are {"prompt", "metadata": {"image": (3, H, W)}}."""

    Config = FineTuneConfig
    args: FineTuneConfig
    updates_per_batch = 1

    def collect(self, index: int) -> RowBatch:
        """The next images, encoded."""
        pieces = cut(self, self.args.batch)
        records = [self.records[(index * self.args.batch + i) % len(self.records)] for i in range(self.args.batch)]
        mine = {}
        for number in owned(self, pieces):
            some = [records[int(i)] for i in pieces[number]]
            latents = self.policy.encode_images(torch.stack([record["metadata"]["image"] for record in some]))
            mine[number] = (latents, [record["prompt"] for record in some], index)
        return RowBatch(mine, pieces)

    def losses(self, batch: RowBatch, number: int, rows: Tensor) -> Iterator[Tensor]:
        """The velocity at one level per image."""
        x0, prompts, index = batch.mine[number]
        plan = make_plan(ode(self.policy.schedule(self.args.num_inference_steps)))
        seeds = (batch.pieces[number] + index * batch.samples).tolist()
        noise = step_noise(tuple(x0.shape[1:]), seeds, seeds, 0, self.args.seed)
        k = torch.tensor(seeds) % self.args.num_inference_steps
        cond = encode_prompts(self.policy, prompts, negative_prompt=None)
        velocity = denoise(self.policy, plan, cond, k, noised(plan.dynamics.schedule, k, x0, noise))
        yield ((velocity - (noise - x0)) ** 2).flatten(1).mean(1).sum() / len(rows)


# --- through the sampler: the reward of a rollout with graph ----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LastStepConfig(RewardConfig):
    """Reward back-propagation through the last step (DRaFT-1)."""

    method: str = key("last_step", "training method")


class LastStepTrainer(BaseTrainer):
    """The reward's gradient, through decoder and last step."""

    Config = LastStepConfig
    args: LastStepConfig
    updates_per_batch = 1

    def collect(self, index: int) -> RowBatch:
        """Prompts and seeds; the rollout needs a graph and is part of the loss."""
        chosen = choose_prompts(self.args, self.records, index)
        pieces = cut(self, len(chosen))
        records = [self.records[i] for i in chosen]
        mine = {n: ([records[int(i)] for i in pieces[n]], pieces[n] + index * 1000) for n in owned(self, pieces)}
        return RowBatch(mine, pieces)

    def losses(self, batch: RowBatch, number: int, rows: Tensor) -> Iterator[Tensor]:
        """Minus the mean reward."""
        records, seeds = batch.mine[number]
        schedule = self.policy.schedule(self.args.num_inference_steps)
        plan = make_plan(ode(schedule), grad=[schedule.num_steps - 1], guidance=self.args.guidance_scale)
        prompts, metadata = [r["prompt"] for r in records], [r["metadata"] for r in records]
        images = rollout(self.policy, plan, prompts, seeds.tolist()).images
        scores = score(self.rewards, images, prompts, metadata, grad=True)
        yield -torch.stack(list(scores.values())).sum() / len(rows)
