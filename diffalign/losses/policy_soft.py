"""Policy objectives with a smooth weight or target instead of PPO's hard clip.

Shape and conventions: :mod:`diffalign.losses.policy_objectives`. ``x`` is the log-ratio, ``rho = exp(x)``, ``sg`` stops
the gradient. Released code multiplies by the log-prob instead of ``x``: same gradient, the value differs by a constant.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffalign.losses.common import check_not_negative, check_positive, expand_rows, keep
from diffalign.losses.policy_objectives import MAX_LOG_RATIO, bounded_ratio, objective_inputs, policy_objective

SMALLEST_WEIGHT = 1e-8
"""Floor of VESPO's sequence weight (its code)."""


@policy_objective
def cispo(
    log_ratio: Tensor, adv: Tensor, *, eps_low: float = 1.0, eps_high: float = 4.0, mask: Tensor | None = None
) -> Tensor:
    """Return ``-sg(clip(rho, 1 - eps_low, 1 + eps_high)) A x``: clipped importance weights, a gradient for every token
    (CISPO, MiniMax-M1, arXiv:2506.13585).

    ``eps_low = 1`` means no lower bound, as in the paper and TRL, whose ``epsilon_high`` is the upper bound itself, ``1
    + eps_high`` (5 recommended); verl clips on both sides.

    Raises:
        ValueError: a range is negative, or a shape does not fit.
    """
    check_not_negative(eps_low=eps_low, eps_high=eps_high)
    x, adv = objective_inputs(log_ratio, adv, mask)
    return -bounded_ratio(x.detach()).clamp(1 - eps_low, 1 + eps_high) * adv * x


@policy_objective
def sapo(
    log_ratio: Tensor, adv: Tensor, *, tau_pos: float = 1.0, tau_neg: float = 1.05, mask: Tensor | None = None
) -> Tensor:
    """Return ``-(4 / tau) sigmoid(tau (rho - 1)) A``, tau = ``tau_pos`` where A > 0, else ``tau_neg`` (soft adaptive
    policy optimisation, arXiv:2511.20347).

    Formula: -(4 / tau) sigmoid(tau (rho - 1)) A, tau = tau_pos where A > 0, else tau_neg

    At rho = 1 the gradient is that of ``-A rho``; it decays on both sides, faster for large tau.

    Raises:
        ValueError: a temperature is not positive, or a shape does not fit.
    """
    check_positive(tau_pos=tau_pos, tau_neg=tau_neg)
    x, adv = objective_inputs(log_ratio, adv, mask)
    tau = torch.where(adv > 0, tau_pos, tau_neg)
    return -4 / tau * (tau * (bounded_ratio(x) - 1)).sigmoid() * adv


@policy_objective
def vespo(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    k_pos: float = 2.0,
    lam_pos: float = 3.0,
    k_neg: float = 3.0,
    lam_neg: float = 2.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Return ``-sg(phi(W)) A x``, W the product of a row's ratios, ``phi(W) = W**k exp(lam (1 - W))`` (VESPO,
    arXiv:2602.10693).

    Formula: -sg(phi) A x, phi = W**k exp(lam (1 - W)), W = exp(sum_t x_t), k and lam by the sign of A

    phi(1) = 1; sequences far from the rollout policy on either side lose weight. W is in ``[1e-8, e**20]``.

    Args:
        log_ratio: see :mod:`~diffalign.losses.policy_objectives`, as ``adv`` and ``mask``.
        adv: see ``log_ratio``.
        k_pos: exponent of W where A >= 0.
        lam_pos: decay where A >= 0, > 0.
        k_neg: exponent where A < 0.
        lam_neg: decay where A < 0, > 0.
        mask: see ``log_ratio``.

    Raises:
        ValueError: a setting is negative, a decay is 0, or a shape does not fit.
    """
    check_not_negative(k_pos=k_pos, k_neg=k_neg)
    check_positive(lam_pos=lam_pos, lam_neg=lam_neg)
    x, adv = objective_inputs(log_ratio, adv, mask)
    steps = x.detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    total = (steps.sum(1, keepdim=True) if x.ndim == 2 else steps).clamp(math.log(SMALLEST_WEIGHT), MAX_LOG_RATIO)
    k, lam = torch.where(adv >= 0, k_pos, k_neg), torch.where(adv >= 0, lam_pos, lam_neg)
    return -(lam + k * total - lam * total.exp()).exp() * adv * x


@policy_objective
def dro(log_ratio: Tensor, adv: Tensor, *, beta: float = 0.1, mask: Tensor | None = None) -> Tensor:
    """Return ``-A x + beta x**2 / 2``: direct reward optimisation, a quadratic penalty to the rollout policy instead of
    a clip (arXiv:2405.19107, verl's form). Minimal at ``x = A / beta``; no released default of beta.

    Raises:
        ValueError: beta is not positive, or a shape does not fit.
    """
    check_positive(beta=beta)
    x, adv = objective_inputs(log_ratio, adv, mask)
    return -adv * x + beta * x**2 / 2


def target_ratio(score: Tensor, *, eps_low: float = 0.3, eps_high: float | None = None, tau: float = 1e-4) -> Tensor:
    """Return the ``goal`` of :func:`target`, ``1 - eps_low + (eps_low + eps_high) sigmoid(score / tau)``.

    Bounded-ratio policy optimisation (arXiv:2604.18578). With equal ranges a score of 0 gives the ratio 1.

    Args:
        score: any shape, positive above the group's *median*; detached.
        eps_low: distance of the smallest ratio from 1 (.3 for language models, .2 to .3 in control).
        eps_high: distance of the largest ratio, default ``eps_low``.
        tau: sharpness; 1e-4 in the authors' script, 1.0 in their yaml.

    Raises:
        ValueError: a range is negative, or ``tau`` is not positive.
    """
    eps_high = eps_low if eps_high is None else eps_high
    check_not_negative(eps_low=eps_low, eps_high=eps_high)
    check_positive(tau=tau)
    return 1 - eps_low + (eps_low + eps_high) * (keep(score.detach()) / tau).sigmoid()


@policy_objective
def target(
    log_ratio: Tensor, adv: Tensor, *, goal: Tensor, mask: Tensor | None = None, max_log_ratio: float = 20.0
) -> Tensor:
    """Return ``|A| |rho - goal|``: absolute regression of the ratio on a bounded goal.

    With ``goal = 1 + eps sign(A)`` it has the gradient of :func:`clip` inside the trust region; outside, where
    :func:`clip` has none, it points back. The minimum is 0 (bounded-ratio policy optimisation).

    Args:
        log_ratio: see :mod:`~diffalign.losses.policy_objectives`, as ``adv`` and ``mask``.
        adv: see ``log_ratio``.
        goal: ``(B,)``, ``(B, 1)`` or ``(B, T)``, from :func:`target_ratio`; detached.
        mask: see ``log_ratio``.
        max_log_ratio: bound of the log-ratio.
    """
    goal = keep(expand_rows(goal.detach(), log_ratio), mask)
    x, adv = objective_inputs(log_ratio, adv, mask)
    return adv.abs() * (bounded_ratio(x, max_log_ratio) - goal).abs()
