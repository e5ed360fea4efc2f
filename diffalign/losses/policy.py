"""Policy-gradient objectives on ratios: REINFORCE, PPO's clip, dual clip, and a mask by KL.

Shape and conventions: :mod:`diffalign.losses.policy_objectives`. A denoising step takes the place of a token. Scale:
with the *mean* over latent elements (DDPO, Flow-GRPO, DanceGRPO) the usual clip range is 1e-4, against 0.2 for tokens;
at 65 536 elements 1e-4 is 6.6 on the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import check_not_negative, keep
from diffalign.losses.policy_objectives import bounded_ratio, objective_inputs, policy_objective


@policy_objective
def reinforce(log_ratio: Tensor, adv: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return ``-A x``; only its gradient is meaningful (REINFORCE; DDPO_SF of arXiv:2305.13301)."""
    x, adv = objective_inputs(log_ratio, adv, mask)
    return -adv * x


@policy_objective
def ratio(log_ratio: Tensor, adv: Tensor, *, mask: Tensor | None = None, max_log_ratio: float = 20.0) -> Tensor:
    """Return ``-A exp(x)``: importance sampling without a clip."""
    x, adv = objective_inputs(log_ratio, adv, mask)
    return -adv * bounded_ratio(x, max_log_ratio)


@policy_objective
def clip(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    eps_low: float | Tensor = 0.2,
    eps_high: float | Tensor | None = None,
    mask: Tensor | None = None,
    max_log_ratio: float = 20.0,
) -> Tensor:
    """Return PPO's clipped surrogate, ``max(-A rho, -A clip(rho, 1 - eps_low, 1 + eps_high))``.

    DDPO, Flow-GRPO and DanceGRPO have a range of 1e-4 (papers and code clip the ratio, not the log-ratio).

    Args:
        log_ratio: see :mod:`~diffalign.losses.policy_objectives`, as ``adv`` and ``mask``.
        adv: see ``log_ratio``.
        eps_low: lower range; a float, or a tensor that broadcasts to ``log_ratio`` (one range per step).
        eps_high: upper range, default ``eps_low``.
        mask: see ``log_ratio``.
        max_log_ratio: bound of the log-ratio.

    Raises:
        ValueError: a float range is negative, or a shape does not fit.
    """
    eps_high = eps_low if eps_high is None else eps_high
    for name, eps in (("eps_low", eps_low), ("eps_high", eps_high)):
        if not isinstance(eps, Tensor) and not eps >= 0:
            raise ValueError(f"{name} must be >= 0, got {eps}")
    x, adv = objective_inputs(log_ratio, adv, mask)
    rho = bounded_ratio(x, max_log_ratio)
    bounded = torch.minimum(torch.maximum(rho, torch.ones_like(rho) - eps_low), torch.ones_like(rho) + eps_high)
    return torch.maximum(-adv * rho, -adv * bounded)


@policy_objective
def dual_clip(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    eps_low: float | Tensor = 0.2,
    eps_high: float | Tensor | None = None,
    bound: float = 3.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Return :func:`clip` with the loss of a sample of A < 0 bounded by ``-bound * A``: a ratio beyond ``bound`` has no
    gradient. ``bound`` is a ratio and must exceed 1; 3 in verl, 10 in HAPO. TRL's ``delta`` is the same bound.

    Raises:
        ValueError: ``bound`` is not above 1.
    """
    if not bound > 1:
        raise ValueError(f"bound is a ratio and must be > 1, got {bound}")
    loss = clip(log_ratio, adv, eps_low=eps_low, eps_high=eps_high, mask=mask)
    adv = objective_inputs(log_ratio, adv, mask)[1]
    return torch.where(adv < 0, torch.minimum(loss, -bound * adv), loss)


@policy_objective
def kl_mask(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    kl: Tensor,
    limit: float = 1e-5,
    mask: Tensor | None = None,
    max_log_ratio: float = 20.0,
) -> Tensor:
    """Return ``-A rho``, masked outside a KL trust region (Flow-DPPO, arXiv:2606.11025, the form of verl-omni).

    Formula: -A rho, without gradient where KL > limit and the update would move rho further from 1

    A term has no gradient when its KL to the rollout policy exceeds ``limit`` *and* the update would move the ratio
    further from 1 (A > 0 at rho > 1, A < 0 at rho < 1). The ratio is not clipped: the KL of two Gaussian steps is
    exact, while a mean ratio drifts below 1.

    Args:
        log_ratio: see :mod:`~diffalign.losses.policy_objectives`, as ``adv`` and ``mask``.
        adv: see ``log_ratio``.
        kl: shape of ``log_ratio``, from :func:`~diffalign.losses.diffusion.gaussian_kl` with the mean over the latent.
        limit: largest KL with a gradient.
        mask: see ``log_ratio``.
        max_log_ratio: bound of the log-ratio.

    Raises:
        ValueError: ``limit`` is negative, or a shape does not fit.
    """
    check_not_negative(limit=limit)
    if kl.shape != log_ratio.shape:
        raise ValueError(f"kl must have the shape of log_ratio {tuple(log_ratio.shape)}, got {tuple(kl.shape)}")
    x, adv = objective_inputs(log_ratio, adv, mask)
    outwards = torch.where(adv > 0, x > 0, x < 0) & (keep(kl, mask) > limit)
    loss = -adv * bounded_ratio(x, max_log_ratio)
    return torch.where(outwards, loss.detach(), loss)
