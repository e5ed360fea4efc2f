"""RiskPO: an advantage from the lower quantiles of the rewards instead of their mean."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_not_negative, keep


def risk_advantage(
    scores: Tensor,
    q_lo: float | Tensor,
    q_hi: float | Tensor,
    *,
    a_lo: float = 0.2,
    a_hi: float = 0.8,
    omega: float = 1.5,
    natural_baseline: bool = True,
) -> Tensor:
    """Return the mixed value-at-risk advantage ``(omega c + g) / (1 + omega)``, like ``scores``, detached.

    ``g = ((S - q_lo)+ - (S - q_hi)+ [- (q_hi - q_lo)]) / (a_hi - a_lo)`` is the range value at risk, ``c = -(q_lo - S)+
    / a_lo`` the shortfall below. It does not decrease with the score. With the baseline a bundle with ``S >= q_hi``
    gets exactly 0. RiskPO (arXiv:2510.00911, RTkenny/RiskPO): baseline on in the yaml's default, off in the published
    script.

    Args:
        scores: any shape, summed rewards of bundles; NaN gets 0.
        q_lo: running quantile of the scores at level ``a_lo``.
        q_hi: at level ``a_hi`` (.9 on MATH), not below ``q_lo``.
        a_lo: in (0, a_hi).
        a_hi: at most 1.
        omega: weight of the shortfall.
        natural_baseline: subtract ``q_hi - q_lo``.

    Raises:
        ValueError: levels or quantiles are out of order, or ``omega`` is negative.
    """
    check_not_negative(omega=omega)
    if not 0 < a_lo < a_hi <= 1:
        raise ValueError(f"levels must satisfy 0 < a_lo < a_hi <= 1, got {a_lo} and {a_hi}")
    scores = as_float(scores.detach())
    low, high = (torch.as_tensor(q, dtype=scores.dtype, device=scores.device).detach() for q in (q_lo, q_hi))
    if (low > high).any():
        raise ValueError(f"the lower quantile must not exceed the upper one, got {q_lo} and {q_hi}")
    middle = (scores - low).relu() - (scores - high).relu() - natural_baseline * (high - low)
    shortfall = -(low - scores).relu() / a_lo
    return keep((omega * shortfall + middle / (a_hi - a_lo)) / (1 + omega), torch.isfinite(scores))


def share_by_merit(bundle: Tensor, rewards: Tensor, *, tol: float = 1e-6) -> Tensor:
    """Share each bundle's advantage among its members in proportion to ``r - mean of the prompt``,
    ``(..., P, G)``, detached.

    "sum-mean" in RiskPO's code: shares sum to the bundle's advantage, a member below its prompt's mean has the opposite
    sign. If the sum of merits is at most ``tol`` all members get the same. Shares can exceed the total, since the
    divisor is that sum.

    Args:
        bundle: ``(..., G)``, advantage of bundle g, which consists of sample g of each prompt.
        rewards: ``(..., P, G)``, G samples of each of the bundle's P prompts (10 and 5 in the paper).
        tol: largest absolute sum of merits that counts as 0.

    Raises:
        ValueError: a shape does not fit.
    """
    if rewards.ndim < 2 or bundle.shape != rewards[..., 0, :].shape:
        raise ValueError(
            f"expected bundle (..., G) and rewards (..., P, G), got {tuple(bundle.shape)} and {tuple(rewards.shape)}"
        )
    rewards = as_float(rewards.detach())
    merit = rewards - rewards.mean(-1, keepdim=True)
    total = merit.sum(-2, keepdim=True)
    some = total.abs() > tol
    share = torch.where(some, merit / torch.where(some, total, torch.ones_like(total)), 1 / rewards.shape[-2])
    return as_float(bundle.detach())[..., None, :] * share
