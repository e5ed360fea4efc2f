"""Policy objectives that clip or penalise tokens with a high covariance of advantage and log-prob.

Shape and conventions: :mod:`diffalign.losses.policy_objectives`; besides, ``logp`` (shape of ``log_ratio``) is the
log-prob of each token under the policy, at most 0, detached. A density has no such probability.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import (
    check_not_negative,
    check_positive,
    check_probability,
    check_same_shape,
    keep,
    masked_mean,
)
from diffalign.losses.policy import clip
from diffalign.losses.policy_objectives import bounded_ratio, objective_inputs, policy_objective


def _checked(log_ratio: Tensor, logp: Tensor, mask: Tensor | None) -> Tensor:
    check_same_shape(log_ratio=log_ratio, logp=logp)
    return keep(logp, mask)


def _covariance(adv: Tensor, logp: Tensor, mask: Tensor | None) -> Tensor:
    """``(A - mean A) (logp - mean logp)`` over all valid tokens; -inf where masked."""
    centred = (adv - masked_mean(adv, mask)) * (logp - masked_mean(logp, mask))
    return centred if mask is None else torch.where(mask.bool(), centred, -torch.inf)


@policy_objective
def clip_cov(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    logp: Tensor,
    generator: torch.Generator,
    share: float = 2e-4,
    low: float = 1.0,
    high: float = 5.0,
    eps_low: float = 0.2,
    eps_high: float | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Return PPO's clip with a random share of the tokens of high covariance set to 0 (Clip-Cov, arXiv:2505.22617,
    verl's form).

    Formula: max(-A rho, -A clip(rho)), 0 for sampled tokens with low < (A - mean A)(logp - mean logp) < high

    Tokens whose advantage and log-prob rise together lower the entropy most. Tokens are sampled, ``share`` of all
    tokens and at least one, from those in ``(low, high)`` that PPO does not clip.

    Args:
        log_ratio: see :mod:`~diffalign.losses.policy_objectives`, as ``adv`` and ``mask``.
        adv: see ``log_ratio``.
        logp: log-prob of each token under the policy, detached.
        generator: for sampling, on the device of ``logp``.
        share: in (0, 1], of the valid tokens.
        low: lower bound of the covariance.
        high: upper bound.
        eps_low: clip range below.
        eps_high: clip range above, default ``eps_low``.
        mask: see ``log_ratio``.

    Raises:
        ValueError: ``share`` is not in (0, 1], or a shape does not fit.
    """
    check_probability(share=share)
    check_positive(share=share)
    x, adv = objective_inputs(log_ratio, adv, mask)
    now = _checked(log_ratio, logp, mask)
    loss = clip(x, adv, eps_low=eps_low, eps_high=eps_high, mask=mask)
    clipped, cov = loss > -adv * bounded_ratio(x), _covariance(adv, now, mask)
    found = (~clipped & (cov > low) & (cov < high)).flatten().nonzero()[:, 0]
    valid = x.numel() if mask is None else int(mask.sum())
    order = torch.randperm(len(found), generator=generator, device=generator.device).to(found.device)
    dropped = torch.zeros(x.numel(), dtype=torch.bool, device=x.device)
    dropped[found[order[: max(int(share * valid), 1)]]] = True
    return keep(loss, ~dropped.view_as(x))


@policy_objective
def kl_cov(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    logp: Tensor,
    share: float = 2e-4,
    kl_coef: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Return ``-A rho``, plus ``kl_coef |x|`` for the tokens of highest covariance (KL-Cov, arXiv:2505.22617, verl's
    form).

    Formula: -A rho + kl_coef |x| on the `share` of tokens of largest (A - mean A)(logp - mean logp)

    Args:
        log_ratio: see :mod:`~diffalign.losses.policy_objectives`, as ``adv`` and ``mask``.
        adv: see ``log_ratio``.
        logp: log-prob of each token under the policy, detached.
        share: in (0, 1], of the valid tokens (at least one).
        kl_coef: weight of the penalty.
        mask: see ``log_ratio``.

    Raises:
        ValueError: ``share`` is not in (0, 1], ``kl_coef`` is negative, or a shape does not fit.
    """
    check_probability(share=share)
    check_positive(share=share)
    check_not_negative(kl_coef=kl_coef)
    x, adv = objective_inputs(log_ratio, adv, mask)
    now = _checked(log_ratio, logp, mask)
    valid = x.numel() if mask is None else int(mask.sum())
    top = _covariance(adv, now, mask).flatten().topk(min(max(int(share * valid), 1), x.numel())).indices
    held = torch.zeros(x.numel(), dtype=torch.bool, device=x.device)
    held[top] = True
    return -adv * bounded_ratio(x) + kl_coef * keep(x.abs(), held.view_as(x))
