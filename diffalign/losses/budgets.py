"""Rewards of one trajectory stopped at several budgets: exits of a chain of thought, or of a sampler at step s.

A budget is the number of tokens or sampling steps before the answer is scored; on images the reward of a budget is that
of the clean image predicted at that step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffalign.losses.advantages import mean_center, usable
from diffalign.losses.common import as_float, check_mask, check_not_negative, check_positive, keep


def _per_budget(rewards: Tensor, prob: Tensor) -> tuple[Tensor, Tensor]:
    if rewards.ndim != 3 or prob.shape != rewards.shape[2:]:
        raise ValueError(
            f"expected rewards (B, G, S) and prob (S,), got {tuple(rewards.shape)} and {tuple(prob.shape)}"
        )
    check_not_negative(prob=prob)
    if not prob.any():
        raise ValueError(f"prob must hold weights that are not all 0, got {prob.tolist()}")
    rewards = as_float(rewards.detach())
    return rewards, prob.detach().to(rewards.dtype)


def budget_returns(rewards: Tensor, prob: Tensor) -> Tensor:
    """Return ``g_s = sum_{k >= s} P_k r_k``, ``(B, G, S)``: the return to go from budget s (BRPO, arXiv:2505.13438).

    Args:
        rewards: ``(B, G, S)``, reward if stopped at budget s.
        prob: ``(S,)``, probability of each budget.

    Raises:
        ValueError: a shape does not fit, or a weight is negative.
    """
    rewards, prob = _per_budget(rewards, prob)
    return (prob * rewards).flip(2).cumsum(2).flip(2)


def budget_baseline(rewards: Tensor, prob: Tensor) -> Tensor:
    """Return ``(s/S) v1 + ((S - s)/S) v2`` for s = 0..S-1, ``(B, G, S)`` (BRPO, the form of sail-sg/AnytimeReasoner).

    ``v1`` extrapolates the sample's own earlier rewards, their mean with weights ``2**k`` times the remaining
    probability; ``v2`` is the group's mean return. Arguments and errors as in :func:`budget_returns`.
    """
    rewards, prob = _per_budget(rewards, prob)
    size = rewards.shape[2]
    left = prob.flip(0).cumsum(0).flip(0)
    weight = 2.0 ** torch.arange(size, dtype=rewards.dtype, device=rewards.device)
    past = (weight * rewards).cumsum(2) / weight.cumsum(0)
    own = torch.cat([torch.zeros_like(past[:, :, :1]), past[:, :, :-1]], 2) * left
    group = budget_returns(rewards, prob).mean(1, keepdim=True)
    share = torch.arange(size, dtype=rewards.dtype, device=rewards.device) / size
    return share * own + (1 - share) * group


def decay_by_hits(correct: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return ``2**-(n - 1)`` for the n-th correct exit of a trajectory and 0 for a wrong one, ``(B, S)`` (S-GRPO,
    arXiv:2505.07686). A third-party implementation decays by the index of the exit instead.

    Args:
        correct: ``(B, S)`` bool, exits in order.
        mask: ``(B, S)``, 1 where there is an exit.
    """
    hit = correct.bool()
    valid = check_mask(correct, mask)
    hit = hit if valid is None else hit & valid
    return keep(0.5 ** (hit.cumsum(1) - 1).float(), hit)


def budget_anchor(budget: Tensor, *, longest: float = 4096.0) -> Tensor:
    """Return ``4 cos(pi b / (2 L))``, like ``budget``: the expected reward of budget b of at most L (HBPO)."""
    check_positive(longest=longest)
    return 4 * (math.pi * as_float(budget.detach()) / (2 * longest)).cos()


def subgroup_offset(rewards: Tensor, budget: Tensor, *, longest: float = 4096.0, mask: Tensor | None = None) -> Tensor:
    """Return the mean reward of each sample's budget subgroup minus its :func:`budget_anchor`, ``(B, G)``.

    HBPO (arXiv:2507.15844). The released code adds this term twice, this function once. 0 for invalid rewards.

    Args:
        rewards: ``(B, G)``.
        budget: ``(B, G)``; samples of one prompt with equal budgets form a subgroup.
        longest: L.
        mask: ``(B, G)``.

    Raises:
        ValueError: a shape does not fit.
    """
    valid = usable(rewards, mask)
    check_mask(rewards, budget)
    together = (budget[:, :, None] == budget[:, None, :]) & valid[:, None, :]
    peers = as_float(rewards.detach())[:, None, :].expand_as(together)
    means = mean_center(keep(peers, together).flatten(0, 1), together.flatten(0, 1)).view_as(rewards)
    return keep(means - budget_anchor(budget, longest=longest), valid)
