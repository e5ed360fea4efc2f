"""Policy objectives for off-policy samples, for example of an expert or a data set.

Shape and conventions: :mod:`diffalign.losses.policy_objectives`. ``log_ratio`` has another meaning in each function.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffalign.losses.common import (
    as_float,
    check_floating,
    check_not_negative,
    check_positive,
    expand_rows,
    keep,
    readable,
)
from diffalign.losses.policy_objectives import objective_inputs, policy_objective


@policy_objective
def shaped(log_ratio: Tensor, adv: Tensor, *, gamma: float = 0.1, mask: Tensor | None = None) -> Tensor:
    """Return ``-A q / (q + gamma)`` with ``q = exp(log_ratio)`` (LUFFY's shaping, as Critique-GRPO uses it).

    The gradient with respect to ``log_ratio`` is ``-A gamma q / (q + gamma)**2``: largest where q = gamma, which raises
    rare tokens of an expert; 0 for gamma -> 0.

    Args:
        log_ratio: the plain log-prob of a token, so that q is a probability. A density is not bounded by 1: pass the
            log-ratio to the reference instead.
        adv: as in :mod:`~diffalign.losses.policy_objectives`.
        gamma: probability of the largest gradient, > 0.
        mask: shape of ``log_ratio``.

    Raises:
        ValueError: ``gamma`` is not positive, or a shape does not fit.
    """
    check_positive(gamma=gamma)
    x, adv = objective_inputs(log_ratio, adv, mask)
    return -adv * (x - math.log(gamma)).sigmoid()


def halfway_gap(old: Tensor) -> Tensor:
    """Return ``log(p_old / omega)`` for ``omega = (p_old + 1) / 2``, RL-PLUS's behaviour policy of external data;
    ``old`` is a log-prob of any shape, detached.

    Raises:
        ValueError: a log-prob is of an integer type.
    """
    check_floating(old=old)
    old = as_float(old.detach())
    return old - torch.logaddexp(old, torch.zeros_like(old)) + math.log(2)


@policy_objective
def mixture(
    log_ratio: Tensor, adv: Tensor, *, gap: Tensor, mask: Tensor | None = None, max_log_ratio: float = 20.0
) -> Tensor:
    """Return ``-A 2 p / (p_old + omega)``: importance sampling from a mixture of the old policy and another, omega.

    RL-PLUS (arXiv:2508.00222). Computed in log space, stable for densities and tiny ``p_old``. The ratio is at most
    ``2 p / omega``; with :func:`halfway_gap` at most 4. ``gap = 0`` is the plain ratio.

    Args:
        log_ratio: ``log p - log p_old``.
        adv: as in :mod:`~diffalign.losses.policy_objectives`, times a factor such as :func:`focal_factor` if any.
        gap: ``log p_old - log omega``, ``(B,)``, ``(B, 1)`` or ``(B, T)``; detached.
        mask: shape of ``log_ratio``.
        max_log_ratio: bound of the logarithm of half the mixture ratio.
    """
    gap = keep(expand_rows(gap.detach(), log_ratio), mask)
    x, adv = objective_inputs(log_ratio, adv, mask)
    half = x + torch.nn.functional.logsigmoid(gap)
    return -2 * adv * half.clamp(-max_log_ratio, max_log_ratio).exp()


def focal_factor(logp: Tensor, *, gamma: float = 0.5) -> Tensor:
    """Return ``(1 - p)**gamma``, detached: smaller for likely tokens (RL-PLUS). For token probabilities only.

    Raises:
        ValueError: ``gamma`` is negative, or a log-prob is of an integer type or above 0.
    """
    check_not_negative(gamma=gamma)
    check_floating(logp=logp)
    p = as_float(logp.detach()).exp()
    if readable(p) and (p > 1).any():
        raise ValueError("a focal factor needs log-probs of at most 0; a density has none, leave the factor out")
    return (1 - p) ** gamma


@policy_objective
def awr(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    max_weight: float = 100.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Return ``-min(exp(A / temperature), max_weight) x``: weighted imitation (advantage-weighted regression).

    Only the gradient is meaningful. ``temperature -> inf`` is behaviour cloning. No ratio is formed, so the data may
    come from any policy.

    Args:
        log_ratio: a log-prob, a log-ratio, or minus a denoising error.
        adv: as in :mod:`~diffalign.losses.policy_objectives`.
        temperature: > 0, a number, or ``(B,)``, ``(B, 1)`` or ``(B, T)``.
        max_weight: largest weight, >= 1 (100 in IQL and inverse preference learning).
        mask: shape of ``log_ratio``.

    Raises:
        ValueError: the temperature is not positive, ``max_weight`` is below 1, or a shape does not fit.
    """
    check_positive(temperature=temperature, max_weight=max_weight)
    if max_weight < 1:
        raise ValueError(f"max_weight must be at least 1, the weight of an average sample, got {max_weight}")
    x, adv = objective_inputs(log_ratio, adv, mask)
    if isinstance(temperature, Tensor):
        temperature = expand_rows(temperature.detach(), x)
    return -(adv / temperature).clamp(max=math.log(max_weight)).exp() * x
