"""More scales for :func:`~diffalign.losses.group_advantage`, all of its shape ``(rewards, mask, eps, ...) -> divisor``.

The scale of :func:`counted_center <diffalign.losses.baselines.counted_center>` is in :mod:`diffalign.losses.baselines`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.advantages import group_std, mean_center
from diffalign.losses.baselines import with_virtual
from diffalign.losses.common import keep, row_mean


def virtual_scale(
    rewards: Tensor, mask: Tensor, eps: float, *, n: int = 1, r_max: float = 1.0, unbiased: bool = True
) -> Tensor:
    """Return the std with ``n`` virtual samples of reward ``r_max``, + eps, ``(B, 1)`` (NGRPO); goes with
    :func:`~diffalign.losses.baselines.virtual_center`.
    """
    return group_std(*with_virtual(rewards, mask, n, r_max), eps, unbiased=unbiased)


def mean_abs(rewards: Tensor, mask: Tensor, eps: float) -> Tensor:
    """Return the mean absolute deviation from the group mean, + eps, ``(B, 1)`` (PIPO, arXiv:2604.00860): the absolute
    advantages of a group of G then sum to G.
    """
    return row_mean((rewards - mean_center(rewards, mask)).abs(), mask)[:, None] + eps


def _beta_fit(rate: Tensor) -> tuple[Tensor, Tensor]:
    """Parameters of the Beta density of BNPO for success rates ``(P,)``: 1 + a third of a fit by moments, at least 1.

    Both are 1 (uniform) for a single rate or equal rates.
    """
    if rate.numel() < 2 or rate.max() == rate.min():
        return torch.ones_like(rate[:1]), torch.ones_like(rate[:1])
    mean = rate.mean()
    size = mean * (1 - mean) / rate.var() - 1
    return (1 + mean * size / 3).clamp(min=1), (1 + (1 - mean) * size / 3).clamp(min=1)


def beta_density(rewards: Tensor, mask: Tensor, eps: float) -> Tensor:
    """Return the density of each group's mean reward under a Beta fitted to those of the batch, ``(B, 1)`` (BNPO,
    arXiv:2506.02864, the form of changyi7231/BNPO).

    With both parameters 1 it is 1: plain centring. With both 1.5 it is ``8/pi sqrt(p (1 - p))``, the std of GRPO up to
    a factor. ``eps`` is its smallest value, the bound on the weight (1e-6 in the code), not added.

    Args:
        rewards: ``(B, G)`` in [0, 1]; map others to it first.
        mask: ``(B, G)``.
        eps: smallest divisor.

    Raises:
        ValueError: a reward is outside [0, 1].
    """
    if ((rewards < 0) | (rewards > 1)).any():
        raise ValueError(
            f"the Beta scale needs rewards in [0, 1], got {rewards.min().item():g} to {rewards.max().item():g}; "
            "map them affinely first"
        )
    some = mask.any(1)
    rate = mean_center(rewards, mask)[:, 0].clamp(0, 1)
    a, b = _beta_fit(rate[some])
    log_norm = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
    density = (torch.xlogy(a - 1, rate) + torch.xlogy(b - 1, 1 - rate) - log_norm).exp()
    return keep(density, some)[:, None].clamp(min=eps)
