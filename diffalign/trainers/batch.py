"""One roll-out, shared out over processes in micro-batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from diffalign.sampling import StepPlan, Trajectory
from diffalign.trainers.rollout_spec import RolloutSpec


@dataclass(frozen=True)
class MicroBatch:
    """Samples that go through the network together, in roll-out and in training alike.

    Attributes:
        rows: (B,) global sample numbers.
        trajectory: what was rolled out.
    """

    rows: Tensor
    trajectory: Trajectory


@dataclass(frozen=True)
class Batch:
    """One roll-out.

    Attributes:
        spec: the global list.
        plan: what the sampler did.
        mine: micro-batch number -> micro-batch, those of this process.
        rewards: name -> (N,) fp32, the same on every process; NaN = could not be scored.
    """

    spec: RolloutSpec
    plan: StepPlan
    mine: dict[int, MicroBatch]
    rewards: dict[str, Tensor]

    def by_group(self, values: Tensor) -> Tensor:
        """(N,) -> (P, G): one row per prompt."""
        return values.view(len(self.spec.records), -1)


def gather_rows(accelerator: Accelerator, values: Tensor, rows: Tensor, total: int) -> Tensor:
    """(total, ...) tensor, equal on every process, from each process's own rows (n, ...); every row has one owner."""
    out = torch.zeros((total, *values.shape[1:]), dtype=values.dtype, device=accelerator.device)
    out[rows.to(out.device)] = values.to(out.device)
    return accelerator.reduce(out, reduction="sum") if accelerator.num_processes > 1 else out
