"""Policy-gradient objectives. A denoising step stands where a token stands.

All have one shape, ``(log_ratio, adv, *, mask, ...) -> like log_ratio``, unreduced fp32, to be minimised:

- ``log_ratio``: ``(B,)`` or ``(B, T)``, log-prob of the policy minus log-prob at roll-out; the only input with a
  gradient.
- ``adv``: ``(B,)``, ``(B, 1)`` or ``(B, T)``, detached here.
- ``mask``: shape of ``log_ratio``, 1 where valid; masked entries (deterministic steps, say) come back as 0 with no
  gradient.

Ratios are formed from log-ratios clamped to ``+-max_log_ratio``. Scale: with the *mean* over latent elements, the
convention of DDPO, Flow-GRPO and DanceGRPO, a clip range of 1e-4 is what 0.2 is for a token; at 65 536 elements it
stands for 6.6 on the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import check_not_negative, check_positive, expand_rows, keep


def _inputs(log_ratio: Tensor, adv: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    adv = expand_rows(adv.detach(), log_ratio)
    return keep(log_ratio, mask), keep(adv, mask)


def reinforce(log_ratio: Tensor, adv: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return ``-A x``, which only means something by its gradient (REINFORCE; DDPO_SF of arXiv:2305.13301)."""
    x, adv = _inputs(log_ratio, adv, mask)
    return -adv * x


def ratio(log_ratio: Tensor, adv: Tensor, *, mask: Tensor | None = None, max_log_ratio: float = 20.0) -> Tensor:
    """Return ``-A exp(x)``: importance sampling without a clip."""
    x, adv = _inputs(log_ratio, adv, mask)
    return -adv * x.clamp(-max_log_ratio, max_log_ratio).exp()


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

    Used by DDPO, Flow-GRPO and DanceGRPO with 1e-4 (paper and code alike clip the ratio, not the log-ratio).

    Args:
        log_ratio: see the module.
        adv: see the module.
        eps_low: lower range; a float, or a tensor that broadcasts to ``log_ratio`` (one range per step).
        eps_high: upper range, default ``eps_low``.
        mask: see the module.
        max_log_ratio: bound of the log-ratio.

    Raises:
        ValueError: a float range is negative, or a shape does not fit.
    """
    eps_high = eps_low if eps_high is None else eps_high
    for name, eps in (("eps_low", eps_low), ("eps_high", eps_high)):
        if not isinstance(eps, Tensor) and not eps >= 0:
            raise ValueError(f"{name} must be >= 0, got {eps}")
    x, adv = _inputs(log_ratio, adv, mask)
    rho = x.clamp(-max_log_ratio, max_log_ratio).exp()
    bounded = torch.minimum(torch.maximum(rho, torch.ones_like(rho) - eps_low), torch.ones_like(rho) + eps_high)
    return torch.maximum(-adv * rho, -adv * bounded)


def dual_clip(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    eps_low: float | Tensor = 0.2,
    eps_high: float | Tensor | None = None,
    bound: float = 3.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Return :func:`clip` with the loss of a bad sample bounded by ``-bound * A`` (A < 0), so that a ratio that has run
    away upwards stops pulling. ``bound`` is a ratio and must exceed 1; 3 in verl, 10 in HAPO.

    Raises:
        ValueError: ``bound`` is not above 1.
    """
    if not bound > 1:
        raise ValueError(f"bound is a ratio and must be > 1, got {bound}")
    loss = clip(log_ratio, adv, eps_low=eps_low, eps_high=eps_high, mask=mask)
    adv = _inputs(log_ratio, adv, mask)[1]
    return torch.where(adv < 0, torch.minimum(loss, -bound * adv), loss)


def kl_mask(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    kl: Tensor,
    limit: float = 1e-5,
    mask: Tensor | None = None,
    max_log_ratio: float = 20.0,
) -> Tensor:
    """Return ``-A rho`` without gradient where the step has left the trust region and would leave it further.

    Flow-DPPO (the form of verl-omni): a term is held when its KL to the roll-out policy exceeds ``limit`` *and* the
    update moves the ratio on outwards (A > 0 at rho > 1, A < 0 at rho < 1). No ratio is clipped: the KL of two
    Gaussian steps is exact, while a mean ratio drifts below 1.

    Args:
        log_ratio: see the module.
        adv: see the module.
        kl: shape of ``log_ratio``, from :func:`~diffalign.losses.diffusion.gaussian_kl` with the mean over the latent.
        limit: largest KL that goes on.
        mask: see the module.
        max_log_ratio: bound of the log-ratio.

    Raises:
        ValueError: ``limit`` is negative, or a shape does not fit.
    """
    check_not_negative(limit=limit)
    if kl.shape != log_ratio.shape:
        raise ValueError(f"kl must have the shape of log_ratio {tuple(log_ratio.shape)}, got {tuple(kl.shape)}")
    x, adv = _inputs(log_ratio, adv, mask)
    outwards = torch.where(adv > 0, x > 0, x < 0) & (keep(kl, mask) > limit)
    loss = -adv * x.clamp(-max_log_ratio, max_log_ratio).exp()
    return torch.where(outwards, loss.detach(), loss)


def target_ratio(score: Tensor, *, eps_low: float = 0.3, eps_high: float | None = None, tau: float = 1e-4) -> Tensor:
    """Return the ratio that :func:`target` aims at, ``1 - eps_low + (eps_low + eps_high) sigmoid(score / tau)``.

    Bounded-ratio policy optimisation (arXiv:2604.18578). With equal ranges a score of 0 means 1: the sample is left
    where it is.

    Args:
        score: any shape, better than the *median* is positive; detached.
        eps_low: distance of the smallest target from 1 (.3 for language models, .2 to .3 in control).
        eps_high: distance of the largest, default ``eps_low``.
        tau: sharpness; 1e-4 in the authors' script, 1.0 in their yaml.

    Raises:
        ValueError: a range is negative, or ``tau`` is not positive.
    """
    eps_high = eps_low if eps_high is None else eps_high
    check_not_negative(eps_low=eps_low, eps_high=eps_high)
    check_positive(tau=tau)
    return 1 - eps_low + (eps_low + eps_high) * (keep(score.detach()) / tau).sigmoid()


def target(
    log_ratio: Tensor, adv: Tensor, *, goal: Tensor, mask: Tensor | None = None, max_log_ratio: float = 20.0
) -> Tensor:
    """Return ``|A| |rho - goal|``: the ratio is regressed onto a bounded goal, and pulled back when it has gone past.

    With ``goal = 1 + eps sign(A)`` it has the gradient of :func:`clip` inside the trust region; outside, where
    :func:`clip` has none, it points back. The smallest value is 0 (bounded-ratio policy optimisation).

    Args:
        log_ratio: see the module.
        adv: see the module.
        goal: ``(B,)``, ``(B, 1)`` or ``(B, T)``, from :func:`target_ratio`; detached.
        mask: see the module.
        max_log_ratio: bound of the log-ratio.
    """
    goal = keep(expand_rows(goal.detach(), log_ratio), mask)
    x, adv = _inputs(log_ratio, adv, mask)
    return adv.abs() * (x.clamp(-max_log_ratio, max_log_ratio).exp() - goal).abs()
