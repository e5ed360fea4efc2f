"""Which prompts and seeds a roll-out uses: a pure function of the run seed and the roll-out's number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffalign.config import RunConfig
from diffalign.sampling import (
    WindowSchedule,
    constant_window,
    exponential_window,
    linear_window,
    noise_key,
    window_position,
)

Record = Mapping[str, Any]
"""{"prompt": str, "metadata": dict}."""

PROMPTS, SEEDS, ORDER, WINDOW, STEPS, LEVELS, FORWARD, REFERENCE = range(8)
"""Streams of random numbers; each draw names its own, so that one never shifts another."""


@dataclass(frozen=True)
class RolloutSpec:
    """The global list of one roll-out, before it is shared out.

    R roots are sampled; each becomes `copies` samples at the fork. Sample ``r * copies + j`` belongs to root r, and the
    G samples of a prompt stand next to each other.

    Attributes:
        records: P prompt records.
        record_of: (R,) long, the record of each root.
        seeds: (R,) seeds of x_T.
        branches: (R,) keys that tell apart the step noise of roots with one x_T.
        copies: samples per root.
        order: (R,) long, the order in which roots are cut into micro-batches.
    """

    records: tuple[Record, ...]
    record_of: Tensor
    seeds: tuple[int, ...]
    branches: tuple[int, ...]
    copies: int
    order: Tensor

    @property
    def samples(self) -> int:
        """N, the number of images."""
        return len(self.seeds) * self.copies

    @property
    def sample_records(self) -> list[Record]:
        """The record of each of the N samples."""
        return [self.records[int(i)] for i in self.record_of.repeat_interleave(self.copies)]

    def micro_batches(self, size: int, parts: int = 1) -> list[list[Tensor]]:
        """Root indices of each of `parts` updates, cut into micro-batches of at most `size` images.

        The updates are cut first: which samples an update sees does not depend on `size`.
        """
        return [list(part.split(max(size // self.copies, 1))) for part in self.order.tensor_split(parts)]

    def sample_rows(self, roots: Tensor) -> Tensor:
        """The samples that come out of these roots, in roll-out order."""
        return (roots[:, None] * self.copies + torch.arange(self.copies)).flatten()


def stream(seed: int, name: int, index: int) -> torch.Generator:
    """The generator of one stream at one roll-out."""
    return torch.Generator().manual_seed(noise_key(seed, name, index))


def sample_spec(config: RunConfig, records: Sequence[Record], index: int) -> RolloutSpec:
    """The prompts, seeds and order of roll-out `index`.

    Args:
        config: the run configuration.
        records: the training prompts.
        index: number of the roll-out, from 0.
    """
    chosen = [records[i] for i in _choose(config, records, index)]
    roots = config.num_generations // config.prefix_branches
    record_of = torch.arange(len(chosen)).repeat_interleave(roots)
    same = config.same_initial_noise
    keys = [int(p) * roots if same else row for row, p in enumerate(record_of)]
    seeds = tuple(noise_key(config.seed, SEEDS, index, key) & 0x7FFFFFFF for key in keys)
    branches = tuple(row % roots for row in range(len(record_of)))
    order = torch.randperm(len(record_of), generator=stream(config.seed, ORDER, index))
    return RolloutSpec(tuple(chosen), record_of, seeds, branches, config.prefix_branches, order)


def window_starts(config: RunConfig) -> range:
    """Every step at which a window may start; without a window just 0."""
    size = config.sde_window_size or config.num_inference_steps
    low, high = config.sde_window_range or [0, max(config.num_inference_steps - size, 1)]
    stride = 1 if config.sde_window_schedule == "random" else config.sde_window_stride
    return range(low, max(high, low + 1), stride)


WINDOW_SCHEDULES: dict[str, WindowSchedule] = {
    "progressive": constant_window,
    "decay": linear_window,
    "exp_decay": exponential_window,
}
"""sde_window_schedule -> how long the window stays; `random` draws instead."""


def window_start(config: RunConfig, index: int) -> int:
    """First stochastic step of roll-out `index`, one for all of its samples: drawn, or in the schedule's order."""
    starts = window_starts(config)
    if config.sde_window_schedule == "random":
        return starts[int(torch.randint(len(starts), (1,), generator=stream(config.seed, WINDOW, index)))]
    dwell = WINDOW_SCHEDULES[config.sde_window_schedule]
    return window_position(index, starts, config.num_inference_steps, config.sde_window_every, dwell)


def step_choice(config: RunConfig, index: int, samples: int, steps: int, count: int) -> Tensor:
    """(samples, count) long: which of `steps` recorded steps each sample trains, in its own order (DanceGRPO)."""
    keys = torch.rand(samples, steps, generator=stream(config.seed, STEPS, index))
    return keys.argsort(1)[:, :count]


def levels(config: RunConfig, step: int, seeds: Sequence[int], branches: Sequence[int]) -> Tensor:
    """(B, n) step indices whose noise levels each sample is trained at, in one update.

    The first `timestep_fraction` of the T steps is cut into n parts with one draw from each (AWM), or n of a random
    `timestep_fraction` are taken (DiffusionNFT); a function of seed, update and sample alone.

    Args:
        config: the run configuration.
        step: optimiser step.
        seeds: (B,) seeds of x_T.
        branches: (B,) keys that tell samples of one seed apart.
    """
    total = config.num_inference_steps
    pool = max(int(total * config.timestep_fraction + 1e-9), 1)
    count = config.train_timesteps or pool
    rows = []
    for seed, branch in zip(seeds, branches, strict=True):
        generator = torch.Generator().manual_seed(noise_key(config.seed, LEVELS, step, seed, branch))
        if config.timestep_selection == "random":
            rows.append(torch.randperm(total, generator=generator)[:count])
        else:
            edges = torch.linspace(0, pool, count + 1).floor()
            rows.append((edges[:-1] + torch.rand(count, generator=generator) * edges.diff()).long())
    return torch.stack(rows)


def _choose(config: RunConfig, records: Sequence[Record], index: int) -> list[int]:
    """P indices, without repetition while there are enough prompts; tasks by their weights."""
    weights = torch.ones(len(records), dtype=torch.float64)
    if config.task_weights:
        tags = [str(record["metadata"].get("tag", "")) for record in records]
        counts = Counter(tags)
        unknown = sorted(set(config.task_weights) - set(counts))
        if unknown:
            raise ValueError(f"task_weights names {unknown}; the training prompts have the tasks {sorted(counts)}")
        weights = torch.tensor([config.task_weights.get(tag, 0.0) / counts[tag] for tag in tags])
    usable = int((weights > 0).sum())
    repeat = config.prompts_per_rollout > usable
    generator = stream(config.seed, PROMPTS, index)
    return torch.multinomial(weights.double(), config.prompts_per_rollout, repeat, generator=generator).tolist()
