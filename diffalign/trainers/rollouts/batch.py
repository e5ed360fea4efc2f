"""One rollout, shared out over processes in micro-batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffalign.sampling import StepPlan, Trajectory
from diffalign.trainers.rollouts.spec import RolloutSpec
from diffalign.trainers.run.batch import Update, cut_updates


@dataclass(frozen=True)
class MicroBatch:
    """Samples that go through the network together, in rollout and in training alike.

    Attributes:
        rows: (B,) global sample numbers.
        trajectory: the rollout.
    """

    rows: Tensor
    trajectory: Trajectory


@dataclass(frozen=True)
class RolloutBatch:
    """One rollout.

    Attributes:
        spec: prompts, seeds and order, over all processes.
        plan: the steps of the sampler.
        pieces: per update the root indices of each micro-batch.
        mine: micro-batch number -> micro-batch, those of this process.
        rewards: name -> (N,) fp32, the same on every process; NaN = could not be scored.
        feedback: what the method made of the rewards (advantages, labels), once `prepare` has run.
    """

    spec: RolloutSpec
    plan: StepPlan
    pieces: list[list[Tensor]]
    mine: dict[int, MicroBatch]
    rewards: dict[str, Tensor]
    feedback: Any = None

    @property
    def samples(self) -> int:
        """N, the number of images."""
        return self.spec.samples

    def updates(self) -> list[Update]:
        """The optimiser steps of one pass; each covers all samples of its trajectories."""
        return cut_updates([[self.spec.sample_rows(roots) for roots in update] for update in self.pieces])

    def by_group(self, values: Tensor) -> Tensor:
        """(N,) -> (P, G): one row per prompt."""
        return values.view(len(self.spec.records), -1)
