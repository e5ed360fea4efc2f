"""One step of a sampler: ``x' = alpha' x0_hat + kappa eps_hat + c noise``, its outcome and its density."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.sampling.prediction import PREDICTIONS
from diffalign.sampling.schedule import Schedule

C_MIN = 1e-4
"""A step with less noise than this has no usable density."""


class StepOut(NamedTuple):
    """One step of a sampler.

    Attributes:
        mean: (B, ...) fp32 (fp64 stays), differentiable in the model output and in x.
        std: (B,) noise added, 0 where the step is deterministic.
        next_x: (B, ...) in the storage dtype of x.
        log_prob: (B,) Gaussian log-density of next_x per latent element (or summed), None for a deterministic step;
            NaN in the deterministic rows of a mixed batch.
        x0_hat: (B, ...) the clean sample the network predicts.
        eps_hat: (B, ...) the noise the network predicts.
    """

    mean: Tensor
    std: Tensor
    next_x: Tensor
    log_prob: Tensor | None
    x0_hat: Tensor
    eps_hat: Tensor


@dataclass(frozen=True)
class Dynamics:
    """A table (kappa_k, c_k) over a schedule, and the step that reads it.

    Attributes:
        schedule: the levels.
        kappa: (T,) float64 weight of eps_hat.
        c: (T,) float64 standard deviation of the fresh noise.
        history: (T,) float64 weight of ``x0_hat_k - x0_hat_{k-1}`` (second-order multistep solvers), else 0.
        name: how the table was made.
    """

    schedule: Schedule
    kappa: Tensor
    c: Tensor
    history: Tensor
    name: str

    @property
    def num_steps(self) -> int:
        """T, the number of steps."""
        return self.schedule.num_steps

    @property
    def stochastic(self) -> Tensor:
        """(T,) bool: the step has a density (c above ``C_MIN``)."""
        return self.c > C_MIN

    @property
    def noise_level(self) -> Tensor:
        """(T,) noise a perfect network leaves after each step, sqrt(kappa^2 + c^2)."""
        return (self.kappa**2 + self.c**2).sqrt()

    @property
    def consistent(self) -> Tensor:
        """(T,) bool: the step leaves exactly the schedule's noise level."""
        return (self.noise_level**2 - self.schedule.next_sigma**2).abs() < 1e-6

    def step(
        self,
        model_output: Tensor,
        k: int | Tensor,
        x: Tensor,
        next_x: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        x0_prev: Tensor | None = None,
        reparam: bool = False,
        reduce: str = "mean",
    ) -> StepOut:
        """Take, or evaluate, step k.

        Args:
            model_output: (B, ...) the network's (guided) prediction at x.
            k: step index, or (B,) long tensor with one index per sample.
            x: (B, ...) state before the step, in storage dtype.
            next_x: (B, ...) a recorded outcome to evaluate; then no noise is used.
            noise: (B, ...) standard normal; needed where the step is stochastic and next_x is not given.
            x0_prev: (B, ...) x0_hat of the step before, for multistep rows.
            reparam: keep the graph from next_x to the mean through the noise (pathwise gradients).
            reduce: "mean" over latent elements (the field's convention: clip ranges are calibrated to it) or "sum".

        Raises:
            ValueError: a step index outside the schedule, or noise missing.
        """
        if isinstance(k, int) and not 0 <= k < self.num_steps:
            raise ValueError(f"step {k} is outside the schedule: valid 0..{self.num_steps - 1}")
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(x.dtype, torch.float32)
            wide = x.to(dtype)
            mean, x0_hat, eps_hat = self._mean(model_output.to(dtype), k, wide, x0_prev)
            std = self._row(self.c, k, wide)
            if next_x is None:
                next_x = self._draw(mean, std, k, noise, reparam).to(x.dtype)
            log_prob = self._log_prob(next_x.to(dtype), mean, std, reduce)
        return StepOut(mean, std.flatten().expand(x.shape[0]), next_x, log_prob, x0_hat, eps_hat)

    def _row(self, table: Tensor, k: int | Tensor, like: Tensor) -> Tensor:
        """Table entries of step k in like's dtype, shaped to broadcast over (B, ...); rounded once from float64."""
        ones = (1,) * (like.dim() - 1)
        if isinstance(k, int):
            return torch.full((1, *ones), float(table[k]), dtype=like.dtype, device=like.device)
        return table[k.cpu()].to(device=like.device, dtype=like.dtype).reshape(-1, *ones)

    def _mean(
        self, output: Tensor, k: int | Tensor, x: Tensor, x0_prev: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        schedule = self.schedule
        alpha, sigma = self._row(schedule.alpha[:-1], k, x), self._row(schedule.sigma[:-1], k, x)
        x0_hat, eps_hat = PREDICTIONS[schedule.prediction](output, x, alpha, sigma)
        denoised, direction = x0_hat, eps_hat
        if x0_prev is not None and bool((self.history[k] != 0).any()):
            denoised = x0_hat + self._row(self.history, k, x) * (x0_hat - x0_prev.to(x.dtype))
            direction = (x - alpha * denoised) / sigma
        mean = self._row(schedule.next_alpha, k, x) * denoised + self._row(self.kappa, k, x) * direction
        return mean, x0_hat, eps_hat

    def _draw(self, mean: Tensor, std: Tensor, k: int | Tensor, noise: Tensor | None, reparam: bool) -> Tensor:
        if not bool((self.c[k] > 0).any()):
            return mean
        if noise is None:
            raise ValueError(f"step {k} of {self.name} is stochastic: give noise, or next_x to evaluate")
        drawn = mean + std * noise.to(mean)
        return drawn if reparam else drawn.detach()

    def _log_prob(self, next_x: Tensor, mean: Tensor, std: Tensor, reduce: str) -> Tensor | None:
        dense = std > C_MIN
        if not bool(dense.any()):
            return None
        safe = torch.where(dense, std, torch.ones_like(std))
        elements = -((next_x - mean) ** 2) / (2 * safe**2) - safe.log() - 0.5 * math.log(2 * math.pi)
        flat = elements.flatten(1)
        value = {"mean": flat.mean, "sum": flat.sum}[reduce](1)
        return torch.where(dense.flatten().expand_as(value), value, torch.full_like(value, math.nan))
