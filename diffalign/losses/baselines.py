"""More centres for :func:`~diffalign.losses.group_advantage`, all of its shape ``(rewards, mask, ...) -> baseline``.

Rewards are ``(B, G)`` and finite, ``mask`` is bool, 1 where valid; both come from ``group_advantage``. Further
arguments are bound with ``functools.partial(given_center, baseline=values)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.advantages import mean_center
from diffalign.losses.common import as_float, check_not_negative, check_same_shape, expand_rows, keep


def median_center(rewards: Tensor, mask: Tensor) -> Tensor:
    """Return the group median, ``(B, 1)``; the midpoint of the two middle ones in a group of even size. 0 where there
    is none.
    """
    values = torch.where(mask, rewards, torch.nan).nanquantile(0.5, dim=1, keepdim=True)
    return keep(values, mask.any(1, keepdim=True))


def max_center(rewards: Tensor, mask: Tensor) -> Tensor:
    """Return the group maximum, ``(B, 1)``: advantages are at most 0, and 0 for the best, as an optimal advantage A* is
    (arXiv:2310.02456). 0 where there is none.
    """
    return keep(torch.where(mask, rewards, -torch.inf).amax(1, keepdim=True), mask.any(1, keepdim=True))


def given_center(rewards: Tensor, mask: Tensor, *, baseline: Tensor) -> Tensor:
    """Return a given baseline: the reward of a greedy sample (ReMax), a probe (POISE) or reference samples.

    Args:
        rewards: ``(B, G)``.
        mask: ``(B, G)``.
        baseline: ``(B,)``, ``(B, 1)`` or ``(B, G)``. NaN gives a NaN advantage: mask such samples.

    Raises:
        ValueError: the baseline does not fit the rewards.
    """
    return keep(expand_rows(as_float(baseline.detach()), rewards), mask)


def counted_center(rewards: Tensor, mask: Tensor, *, count: Tensor) -> Tensor:
    """Return the mean in which sample i counts ``count[i]`` times, ``(B, 1)``: the mean over all tokens of a group
    (HAPO, heterogeneous). ``count (B, G)``, not negative.

    Raises:
        ValueError: a count is negative, or its shape is not that of the rewards.
    """
    share = _shares(rewards, mask, count)
    low = mean_center(rewards, mask)  # equal rewards: the deviations are exactly 0 whatever the weights
    return low + (share * keep(rewards - low, mask)).sum(1, keepdim=True)


def _shares(rewards: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """Counts over their sum in each group, ``(B, G)``, all 0 where that sum is 0."""
    check_same_shape(rewards=rewards, count=count)
    count = keep(count.detach(), mask)
    check_not_negative(count=count)
    total = count.sum(1, keepdim=True)
    return count.to(rewards.dtype) / torch.where(total > 0, total, torch.ones_like(total))


def counted_std(rewards: Tensor, mask: Tensor, eps: float, *, count: Tensor) -> Tensor:
    """Return the population std around :func:`counted_center` with the same counts, + eps, ``(B, 1)``. A *scale*."""
    square = (rewards - counted_center(rewards, mask, count=count)) ** 2
    return (_shares(rewards, mask, count) * square).sum(1, keepdim=True).sqrt() + eps


def with_virtual(rewards: Tensor, mask: Tensor, n: int, r_max: float) -> tuple[Tensor, Tensor]:
    """Return rewards and mask with ``n`` more samples of reward ``r_max`` in each group.

    Raises:
        ValueError: ``n`` is negative.
    """
    if n < 0:
        raise ValueError(f"n must be a number of samples, got {n}")
    extra = rewards.new_full((rewards.shape[0], n), r_max)
    return torch.cat([rewards, extra], 1), torch.cat([mask, torch.ones_like(extra, dtype=torch.bool)], 1)


def virtual_center(rewards: Tensor, mask: Tensor, *, n: int = 1, r_max: float = 1.0) -> Tensor:
    """Return the mean with ``n`` virtual samples of the best reward ``r_max``, ``(B, 1)`` (NGRPO, arXiv:2509.18851).

    A group of failures then has negative advantages: ``-1/sqrt(G + 1)`` with :func:`virtual_scale` and one virtual
    sample. ``n = 0`` is the plain mean.
    """
    return mean_center(*with_virtual(rewards, mask, n, r_max))
