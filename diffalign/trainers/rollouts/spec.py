"""The prompts and seeds of a rollout: a pure function of the run's seed and the rollout's number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffalign.sampling import noise_key
from diffalign.trainers.on_policy_config import OnPolicyConfig
from diffalign.trainers.reward_config import RewardConfig
from diffalign.trainers.run.batch import Record

PROMPTS, SEEDS, ORDER, WINDOW, STEPS, LEVELS, FORWARD, REFERENCE = range(8)
"""Streams of random numbers; each use names its own, so that one never shifts another."""


@dataclass(frozen=True)
class RolloutSpec:
    """The global list of one rollout, before it is shared out.

    R roots are sampled; each becomes `copies` samples at the fork. Sample ``r * copies + j`` belongs to root r, and the
    G samples of a prompt are adjacent.

    Attributes:
        records: P prompt records.
        record_of: (R,) long, the record of each root.
        seeds: (R,) seeds of x_T.
        branches: (R,) keys that distinguish the step noise of roots with one x_T.
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

    def micro_batches(self, size: int, updates: int = 1) -> list[list[Tensor]]:
        """Root indices of each update, cut into micro-batches of at most `size` images.

        The updates are cut first: which samples an update sees does not depend on `size`.
        """
        return [list(roots.split(max(size // self.copies, 1))) for roots in self.order.tensor_split(updates)]

    def sample_rows(self, roots: Tensor) -> Tensor:
        """The samples that come from these roots, in rollout order."""
        return (roots[:, None] * self.copies + torch.arange(self.copies)).flatten()


def stream(seed: int, name: int, index: int) -> torch.Generator:
    """The generator of one stream at one rollout."""
    return torch.Generator().manual_seed(noise_key(seed, name, index))


def sample_spec(config: OnPolicyConfig, records: Sequence[Record], index: int) -> RolloutSpec:
    """The prompts, seeds and order of rollout `index`.

    Args:
        config: the run configuration.
        records: the training prompts.
        index: number of the rollout, from 0.
    """
    chosen = [records[i] for i in choose_prompts(config, records, index)]
    roots = config.num_generations // config.branches
    record_of = torch.arange(len(chosen)).repeat_interleave(roots)
    same = config.same_initial_noise
    keys = [int(p) * roots if same else row for row, p in enumerate(record_of)]
    seeds = tuple(noise_key(config.seed, SEEDS, index, key) & 0x7FFFFFFF for key in keys)
    branches = tuple(row % roots for row in range(len(record_of)))
    order = torch.randperm(len(record_of), generator=stream(config.seed, ORDER, index))
    return RolloutSpec(tuple(chosen), record_of, seeds, branches, config.branches, order)


def choose_prompts(config: RewardConfig, records: Sequence[Record], index: int) -> list[int]:
    """P indices of records, without repetition while there are enough prompts; tasks by their weights.

    Raises:
        ValueError: a task weight for a task that no prompt has.
    """
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
