"""The forward process: a clean latent noised again, and the network's prediction of it.

Methods without likelihoods (DiffusionNFT, AWM) need no trajectory: clean latent, prompt, and a freshly drawn level.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.sampling.policy import Policy
from diffalign.sampling.rollout import predict_at
from diffalign.sampling.schedule import Schedule
from diffalign.sampling.trajectory import Trajectory


def _rows(table: Tensor, k: Tensor, like: Tensor) -> Tensor:
    """Entries k of a table, shaped to multiply like (B, ...)."""
    return table[k.cpu()].to(like).reshape(-1, *(1,) * (like.dim() - 1))


def noised(schedule: Schedule, k: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
    """``alpha_k x0 + sigma_k noise``.

    Args:
        schedule: the levels.
        k: (B,) long, a step index per sample.
        x0: (B, ...) clean latents.
        noise: (B, ...) standard normal.
    """
    return _rows(schedule.alpha, k, x0) * x0 + _rows(schedule.sigma, k, x0) * noise


def denoise(policy: Policy, trajectory: Trajectory, k: Tensor, x: Tensor) -> Tensor:
    """The prediction at level k, guided as the roll-out was, in fp32, under the caller's grad mode.

    Args:
        policy: the model.
        trajectory: the roll-out whose prompts belong to the rows of x.
        k: (B,) long, a step index per sample.
        x: (B, C, H, W) noised latents.
    """
    output = predict_at(policy, trajectory, k, x)
    return output.to(torch.promote_types(output.dtype, torch.float32))
