"""What happened in a rollout, as tensors and ids."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from diffalign.sampling.conditioning import Conditioning
from diffalign.sampling.plan import StepPlan


@dataclass(frozen=True)
class Trajectory:
    """One batch of denoising trajectories.

    Attributes:
        plan: what was done; a replay uses the same tables, guidance and conditions.
        conditioning: the prompts, encoded once each.
        seeds: (B,) long, seed of x_T, -1 where none was given.
        branch: (B,) long, distinguishes the step noise of rows that share a seed.
        parent: (B,) long, row of the batch before the last fork, -1 if there was none.
        origin: (B,) long, row of the batch at plan.start.
        init_noise: (B, *latent_shape) latent at plan.start.
        x: (B, *latent_shape) latent after the last executed step.
        x0_hat: (B, *latent_shape) clean prediction of the last executed step.
        states: step index k -> (B, *latent_shape) state before step k, in storage dtype.
        log_probs: step index k -> (B,) mean log-density of the recorded step, None where it is deterministic.
        means: step index k -> (B, *latent_shape) means, when they were asked for.
        images: (B, 3, height, width), video (B, F, 3, height, width), in [0, 1], when they were decoded.
    """

    plan: StepPlan
    conditioning: Conditioning
    seeds: Tensor
    branch: Tensor
    parent: Tensor
    origin: Tensor
    init_noise: Tensor
    x: Tensor
    x0_hat: Tensor | None = None
    states: dict[int, Tensor] = field(default_factory=dict)
    log_probs: dict[int, Tensor | None] = field(default_factory=dict)
    means: dict[int, Tensor] = field(default_factory=dict)
    images: Tensor | None = None

    @property
    def batch(self) -> int:
        """B, the number of samples."""
        return int(self.prompt_id.shape[0])

    @property
    def prompts(self) -> tuple[str, ...]:
        """The distinct prompts."""
        return self.conditioning.prompts

    @property
    def prompt_id(self) -> Tensor:
        """(B,) long, row of `prompts`."""
        return self.conditioning.prompt_id

    @property
    def steps(self) -> tuple[int, ...]:
        """Recorded step indices that have a density: those a policy gradient can train on."""
        return tuple(k for k, value in self.log_probs.items() if value is not None)

    @property
    def old_log_probs(self) -> Tensor:
        """(B, K) log-densities of `steps`.

        Raises:
            ValueError: nothing recorded has a density.
        """
        values = [value for value in self.log_probs.values() if value is not None]
        if not values:
            raise ValueError(
                f"no recorded step of {self.plan.dynamics.name} has a density: a policy gradient needs stochastic "
                "steps (flow_sde, dance_sde, cps, ddim with eta > 0)"
            )
        return torch.stack(values, dim=1)

    @property
    def prompt_of(self) -> list[str]:
        """The prompt of each row."""
        return [self.prompts[i] for i in self.prompt_id.tolist()]

    def select(self, rows: Tensor) -> Trajectory:
        """The rows (n,) long alone, in this order; a row may come twice."""

        def taken(value: Tensor) -> Tensor:
            return value[rows.to(value.device)]

        return replace(
            self,
            conditioning=self.conditioning.select(rows),
            seeds=taken(self.seeds),
            branch=taken(self.branch),
            parent=taken(self.parent),
            origin=taken(self.origin),
            init_noise=taken(self.init_noise),
            x=taken(self.x),
            x0_hat=None if self.x0_hat is None else taken(self.x0_hat),
            states={k: taken(v) for k, v in self.states.items()},
            log_probs={k: None if v is None else taken(v) for k, v in self.log_probs.items()},
            means={k: taken(v) for k, v in self.means.items()},
            images=None if self.images is None else taken(self.images),
        )

    def ancestors(self, k: int) -> tuple[Tensor, Tensor]:
        """Rows that were one sample before step k: one row of each such family (F,), and the family of each row (B,).

        Whatever rows were selected, in whatever order: branch ids count the copies that forks at k and later made.
        """
        copies = self.plan.copies(k)
        if copies == 1:
            return torch.arange(self.batch), torch.arange(self.batch)
        names = torch.stack([self.origin, self.branch // copies], dim=1)
        families, family = names.unique(dim=0, return_inverse=True)
        first = torch.full((len(families),), self.batch)
        return first.scatter_reduce(0, family, torch.arange(self.batch), "amin"), family

    def forked(self, copies: int) -> Trajectory:
        """Every row `copies` times in a row, with new branch ids and parents."""
        if copies == 1:
            return self
        rows = torch.arange(self.batch).repeat_interleave(copies)
        copy_index = torch.arange(copies).repeat(self.batch)
        spread = self.select(rows)
        return replace(spread, branch=spread.branch * copies + copy_index, parent=rows)
