"""Methods that reshape advantages by the policy's entropy at each step."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from diffalign.losses.advantages import group_advantage
from diffalign.losses.baselines import counted_center, counted_std
from diffalign.losses.common import expand_rows, keep
from diffalign.losses.entropy import adaptive_range, clarity_bonus, confidence_gain, entropy_level, redistribute
from diffalign.losses.policy import dual_clip
from diffalign.losses.recipes.registry import recipe


@recipe("empg", "advantage", k=1.0, k_future=1.0, zeta=0.05)
def empg(adv: Tensor, entropy: Tensor, *, k: float, k_future: float, zeta: float, mask: Tensor | None = None) -> Tensor:
    """EMPG (arXiv:2509.09265) [second-hand]: ``gain A + zeta bonus``, minus the batch's mean, ``(B, T)``.

    Formula: g_t A + zeta b_t - batch mean, g = exp(-k H_t) / mean, b_t = exp(-k_future H_{t+1}), H scaled to [0, 1]

    zeta is .05 in one port and .1 in another.

    Args:
        adv: ``(B,)`` or ``(B, T)``.
        entropy: ``(B, T)``, of each step.
        k: strength of the weight of confident steps.
        k_future: strength of the bonus before a confident step.
        zeta: weight of the bonus.
        mask: ``(B, T)``.
    """
    adv = keep(expand_rows(adv.detach(), entropy), mask)
    out = confidence_gain(entropy, k=k, mask=mask) * adv + zeta * clarity_bonus(entropy, k=k_future, mask=mask)
    valid = torch.ones_like(out, dtype=torch.bool) if mask is None else mask.bool()
    return keep(out - out[valid].mean(), valid)


@recipe("hapo-hetero", "policy_group", eps=0.2, quantile=0.8, strength=1.0, bound=10.0, limit=5.0)
def hapo(
    log_ratio: Tensor,
    rewards: Tensor,
    entropy: Tensor,
    *,
    eps: float,
    quantile: float,
    strength: float,
    bound: float,
    limit: float,
    mask: Tensor | None = None,
) -> Tensor:
    """HAPO (heterogeneous tokens, its code): group statistics over tokens, advantage and clip range by entropy, ``(B G,
    T)``.

    Formula: dual clip of A (1 + strength h) with ranges eps (1 + strength h), h in [-1, 1] = log-entropy centred at its
    quantile

    A group in which an advantage reaches ``limit`` falls back to GRPO. In the released code no level is below 0 (see
    :func:`~diffalign.losses.entropy.entropy_level`). Its sampling temperature is ``1 + .05 h``.

    Args:
        log_ratio: ``(B G, T)``.
        rewards: ``(B, G)``.
        entropy: ``(B G, T)``.
        eps: clip range, widened by entropy.
        quantile: entropy of level 0.
        strength: of redistribution and widening.
        bound: of the dual clip, a ratio.
        limit: advantage from which a group falls back to GRPO.
        mask: ``(B G, T)``.
    """
    valid = torch.ones_like(log_ratio, dtype=torch.bool) if mask is None else mask.bool()
    count = valid.sum(1).view_as(rewards)
    center, scale = partial(counted_center, count=count), partial(counted_std, count=count)
    adv = group_advantage(rewards, center=center, scale=scale)
    adv = torch.where((adv.abs() >= limit).any(1, keepdim=True), group_advantage(rewards), adv).flatten()
    level = entropy_level(entropy, quantile=quantile, mask=mask)
    low, high = adaptive_range(level, eps_low=eps, eps_high=eps, strength=strength)
    adv = redistribute(adv, keep(log_ratio, mask), level, eps_low=eps, eps_high=eps, strength=strength)
    return dual_clip(log_ratio, adv, eps_low=low, eps_high=high, bound=bound, mask=mask)
