"""The forward process: a clean latent noised again, and the network's prediction of it.

Methods without likelihoods (DiffusionNFT, AWM, Diffusion-DPO) need no trajectory: a clean latent, its prompt, and a
freshly drawn level.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.sampling.conditioning import Conditioning, predict_at
from diffalign.sampling.plan import StepPlan
from diffalign.sampling.policy import Policy
from diffalign.sampling.schedule import Schedule


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


def denoise(policy: Policy, plan: StepPlan, conditioning: Conditioning, k: Tensor, x: Tensor) -> Tensor:
    """The prediction at level k, guided as the plan says, at least in fp32, under the caller's grad mode.

    Args:
        policy: the model.
        plan: schedule and guidance.
        conditioning: prompts of the rows of x.
        k: (B,) long, a step index per sample.
        x: (B, *latent_shape) noised latents.
    """
    output = predict_at(policy, plan, conditioning, k, x)
    return output.to(torch.promote_types(output.dtype, torch.float32))
