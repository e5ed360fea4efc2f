"""Advantages of several rewards. Rewards are stacked K first, ``(K, B, G)``, with one weight each.

A reward of weight 0 (logged only) is not looked at, so it may be NaN. ``advantage`` is ``group_advantage`` with its
settings
bound: ``functools.partial(group_advantage, scale=batch_std, eps=1e-4, clip=5.0)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffalign.losses.advantages import group_advantage
from diffalign.losses.common import as_float


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
    """Sum, then normalise (Flow-GRPO): the reward of largest spread rules. A NaN in any counted reward drops the
    sample.

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
    """Normalise each reward in its groups, then add with weights (GDPO; MixGRPO's "advantage_aggr").

    An affine change of one reward with a positive slope changes nothing (up to eps). A NaN drops the sample from that
    one reward only. Arguments, result and errors as in :func:`advantage_of_sum`. A bound ``clip`` acts on each term.
    """
    return torch.stack([w * advantage(r, mask=mask) for w, r in _weighted(rewards, weights)]).sum(0)
