"""Policy objectives that mask tokens by a divergence to the rollout policy instead of by their ratio.

Shape and conventions: :mod:`diffalign.losses.policy_objectives`; besides, ``logp`` (shape of ``log_ratio``) is the
log-prob of each token under the policy, at most 0, detached. A density has no such probability: for denoising steps use
:func:`~diffalign.losses.policy.kl_mask`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import (
    check_not_negative,
    check_positive,
    check_same_shape,
    keep,
)
from diffalign.losses.policy_objectives import bounded_ratio, objective_inputs, policy_objective

TINY = 1e-8
"""Added to probabilities under a logarithm (verl)."""


def _truncated(x: Tensor, adv: Tensor, inside: Tensor, bound: float) -> Tensor:
    """``-sg(min(rho, bound)) A x`` where ``inside``, else 0."""
    return keep(-bounded_ratio(x.detach()).clamp(max=bound) * adv * x, inside)


def _log_probs(log_ratio: Tensor, logp: Tensor, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log-probs now and at rollout; only comparisons use them, so that they have no gradient."""
    check_same_shape(log_ratio=log_ratio, logp=logp)
    now = keep(logp, mask)
    return now, now - x


@policy_objective
def dppo_tv(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    logp: Tensor,
    eps_low: float = 0.2,
    eps_high: float | None = None,
    bound: float = 20.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Return ``-sg(min(rho, bound)) A x`` for tokens within a total-variation distance of the rollout policy
    (DPPO-Binary-TV, arXiv:2602.04879, verl's form).

    Formula: -sg(min(rho, bound)) A x where p - p_old <= eps_high (A > 0) or >= -eps_low

    A token of A > 0 counts while ``p - p_old <= eps_high``, any other while ``p - p_old >= -eps_low``.

    Args:
        log_ratio: see :mod:`~diffalign.losses.policy_objectives`, as ``adv`` and ``mask``.
        adv: see ``log_ratio``.
        logp: log-prob of each token under the policy, detached.
        eps_low: largest fall of a probability.
        eps_high: largest rise, default ``eps_low``.
        bound: largest importance weight.
        mask: see ``log_ratio``.

    Raises:
        ValueError: a range is negative, the bound is not positive, or a shape does not fit.
    """
    eps_high = eps_low if eps_high is None else eps_high
    check_not_negative(eps_low=eps_low, eps_high=eps_high)
    check_positive(bound=bound)
    x, adv = objective_inputs(log_ratio, adv, mask)
    now, old = _log_probs(log_ratio, logp, x, mask)
    rise = now.exp() - old.exp()
    return _truncated(x, adv, torch.where(adv > 0, rise <= eps_high, rise >= -eps_low), bound)


@policy_objective
def dppo_kl(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    logp: Tensor,
    eps_low: float = 0.2,
    eps_high: float | None = None,
    bound: float = 20.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Return ``-sg(min(rho, bound)) A x`` for tokens within a binary KL of the rollout policy, or moving back to it
    (DPPO-Binary-KL, arXiv:2602.04879, verl's form).

    Formula: -sg(min(rho, bound)) A x where KL(Bernoulli(p_old) || Bernoulli(p)) <= eps, or moving back

    The KL is that of "this token or another one", ``KL(Bernoulli(p_old) || Bernoulli(p))``; ``eps_high`` bounds it for
    tokens of A > 0 that have risen, ``eps_low`` for the others that have fallen. Arguments as in :func:`dppo_tv`.
    """
    eps_high = eps_low if eps_high is None else eps_high
    check_not_negative(eps_low=eps_low, eps_high=eps_high)
    check_positive(bound=bound)
    x, adv = objective_inputs(log_ratio, adv, mask)
    now, old = _log_probs(log_ratio, logp, x, mask)
    p, q = now.exp(), old.exp()
    kl = q * (old - now) + (1 - q) * ((1 - q + TINY) / (1 - p + TINY)).log()
    up, down = (kl <= eps_high) | (p <= q), (kl <= eps_low) | (p >= q)
    return _truncated(x, adv, torch.where(adv > 0, up, down), bound)
