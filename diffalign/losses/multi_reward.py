"""Advantages of several rewards. Rewards are stacked K first, ``(K, B, G)``, with one weight each.

A reward of weight 0 is ignored, so it may be NaN. ``advantage`` is ``group_advantage`` with its settings bound:
``functools.partial(group_advantage, scale=batch_std, eps=1e-4, clip=5.0)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from diffalign.losses.advantages import batch_std, group_advantage, group_std, usable
from diffalign.losses.common import as_float, keep


def _weighted(rewards: Tensor, weights: Sequence[float]) -> list[tuple[float, Tensor]]:
    """Pairs of weight and reward ``(B, G)`` with the weights that are 0 left out."""
    if rewards.ndim != 3 or len(weights) != rewards.shape[0]:
        raise ValueError(
            f"rewards must have shape (K, B, G) with K weights, got {tuple(rewards.shape)} and {len(weights)} weights"
        )
    pairs = [(float(w), r) for w, r in zip(weights, as_float(rewards.detach()), strict=True) if w != 0]
    if not pairs:
        raise ValueError("every reward has weight 0; give at least one a weight")
    return pairs


def advantage_of_sum(
    rewards: Tensor,
    weights: Sequence[float],
    *,
    advantage: Callable[..., Tensor] = group_advantage,
    mask: Tensor | None = None,
) -> Tensor:
    """Sum, then normalise (Flow-GRPO): the reward with the largest spread dominates. A NaN in any reward of non-zero
    weight drops the sample.

    Args:
        rewards: ``(K, B, G)``.
        weights: K numbers.
        advantage: ``(rewards (B, G), mask=...) -> (B, G)``.
        mask: ``(B, G)``.

    Returns:
        ``(B, G)`` without gradient.

    Raises:
        ValueError: the number of weights is not K, or all are 0.
    """
    return advantage(torch.stack([w * r for w, r in _weighted(rewards, weights)]).sum(0), mask=mask)


def sum_of_advantages(
    rewards: Tensor,
    weights: Sequence[float],
    *,
    advantage: Callable[..., Tensor] = group_advantage,
    mask: Tensor | None = None,
) -> Tensor:
    """Normalise each reward in its groups, then add with weights (MixGRPO's "advantage_aggr"; the first two steps of
    :func:`gdpo_advantage`).

    An affine change of one reward with a positive slope changes nothing (up to eps). A NaN drops the sample from that
    reward only. Arguments, result and errors as in :func:`advantage_of_sum`. ``clip`` bounds each term.
    """
    return torch.stack([w * advantage(r, mask=mask) for w, r in _weighted(rewards, weights)]).sum(0)


def batch_whiten(adv: Tensor, *, mask: Tensor | None = None, unbiased: bool = True, eps: float = 1e-4) -> Tensor:
    """Return ``(A - mean(A)) / (std(A) + eps)`` over all valid entries of ``A (B, G)``, detached; 0 where masked."""
    valid = usable(adv, mask)
    flat, kept = keep(adv, valid).reshape(1, -1), valid.reshape(1, -1)
    return group_advantage(flat, scale=partial(batch_std, unbiased=unbiased), mask=kept, eps=eps).view_as(adv)


def gdpo_advantage(
    rewards: Tensor,
    weights: Sequence[float],
    *,
    mask: Tensor | None = None,
    unbiased: bool = True,
    eps: float = 1e-4,
) -> Tensor:
    """Return GDPO's advantage (arXiv:2601.05242): the sum of per-reward group advantages, whitened over the batch.

    TRL's form (``multi_objective_aggregation="normalize_then_sum"``): each reward over its group's std, for any
    ``scale_rewards``, then ``(A - mean(A)) / (std(A) + eps)`` over the whole batch. verl weights the batch statistics
    by response length and has eps 1e-6 in the groups.

    Args:
        rewards: ``(K, B, G)``; NaN where a reward failed: the sample's sum is over the others. A sample without any
            reward has advantage 0.
        weights: K numbers.
        mask: ``(B, G)``.
        unbiased: unbiased standard deviations of group and batch; False for population ones.
        eps: added to both.

    Returns:
        ``(B, G)`` without gradient.

    Raises:
        ValueError: the number of weights is not K, or all are 0.
    """
    each = [usable(r, mask) for _, r in _weighted(rewards, weights)]
    advantage = partial(group_advantage, scale=partial(group_std, unbiased=unbiased), eps=eps)
    summed = sum_of_advantages(rewards, weights, advantage=advantage, mask=mask)
    return batch_whiten(summed, mask=torch.stack(each).any(0), unbiased=unbiased, eps=eps)
