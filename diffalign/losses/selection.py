"""Selection of samples of a group.

All have one shape, ``(rewards (B, G), ..., *, mask (B, G)) -> Selection(indices (B, n), weight (B, n))``: ``indices``
pick samples of each group, best first where there is an order, and ``weight`` is 1, or 0 for an empty slot, whose index
is valid but arbitrary. Train on ``values.gather(1, indices)`` times ``weight``. Detached.

NaN, infinite and masked rewards are never selected. Of equal rewards the first is selected. Random rules of the same
shape are in :mod:`~diffalign.losses.resampling`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses.advantages import usable
from diffalign.losses.common import as_float, check_floating, check_same_shape


class Selection(NamedTuple):
    """Chosen samples of each group: ``indices (B, n)`` int64, ``weight (B, n)`` 0 or 1 in fp32."""

    indices: Tensor
    weight: Tensor


def usable_rewards(rewards: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return rewards ``(B, G)`` with ``-inf`` where invalid, and which are valid."""
    valid = usable(rewards, mask)
    return torch.where(valid, as_float(rewards), -math.inf), valid


def check_count(n: int, rewards: Tensor) -> None:
    """Reject a number of samples outside 1..G.

    Raises:
        ValueError: ``n`` is not in 1..G.
    """
    if not 1 <= n <= rewards.shape[1]:
        raise ValueError(f"n must be in 1..G = {rewards.shape[1]}, got {n}")


def chosen(index: Tensor, filled: Tensor) -> Selection:
    """Return a selection from indices and a bool mask of the filled slots, both ``(B, n)``."""
    return Selection(index, filled.float())


def best(rewards: Tensor, *, mask: Tensor | None = None) -> Selection:
    """Select the largest reward, ``n = 1`` (SuperHF)."""
    return topk(rewards, n=1, mask=mask)


def topk(rewards: Tensor, *, n: int, mask: Tensor | None = None) -> Selection:
    """Select the ``n`` largest rewards, best first (DPA).

    Raises:
        ValueError: ``n`` is not in 1..G, or a shape does not fit.
    """
    rewards, valid = usable_rewards(rewards, mask)
    check_count(n, rewards)
    index = rewards.argsort(dim=1, descending=True, stable=True)[:, :n]
    return chosen(index, valid.gather(1, index))


def best_worst(rewards: Tensor, *, gap: float = 0.0, mask: Tensor | None = None) -> Selection:
    """Select the largest and the smallest reward of each group, ``n = 2``, as a pair (West-of-N, Cream, PF-PPO BW).

    A pair with a reward gap of at most ``gap`` has weight 0. Extremes are those of the group; verl's PF-PPO takes those
    of the whole batch.

    Raises:
        ValueError: ``gap`` is NaN, or a shape does not fit.
    """
    if math.isnan(gap):
        raise ValueError("gap must be a number, got nan")
    rewards, valid = usable_rewards(rewards, mask)
    low = torch.where(valid, rewards, math.inf)
    index = torch.stack([rewards.argmax(1), low.argmin(1)], 1)
    apart = rewards.amax(1) - low.amin(1) > gap
    return chosen(index, apart[:, None].expand_as(index))


def rank_then_point(scores: Tensor, wins: Tensor, *, mask: Tensor | None = None) -> Selection:
    """Select the best-scored winner and the worst-scored loser of a pairwise ranking, ``n = 2`` (UnifiedReward).

    The pair has weight 0 if a side is empty or the winner's score is not higher. Scores are compared as numbers; the
    released code compares strings, in which 9 > 10.

    Args:
        scores: ``(B, G)`` pointwise scores.
        wins: ``(B, G)`` in [0, 1], share of comparisons won, averaged over both orders of presentation; winners above
            1/2, losers below.
        mask: ``(B, G)``.

    Raises:
        ValueError: a shape does not fit, or ``wins`` is not a floating type.
    """
    check_floating(wins=wins)
    check_same_shape(scores=scores, wins=wins)
    scores, valid = usable_rewards(scores, mask)
    up, down = valid & (wins > 0.5), valid & (wins < 0.5)
    high, low = torch.where(up, scores, -math.inf), torch.where(down, scores, math.inf)
    index = torch.stack([high.argmax(1), low.argmin(1)], 1)
    return chosen(index, (high.amax(1) > low.amin(1))[:, None].expand_as(index))
