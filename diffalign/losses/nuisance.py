"""Nuisances that a reward should not pay for: the length of a text; brightness, saturation or file size of an image.

To charge for one, stack it below the reward and give it a weight in
:func:`~diffalign.losses.reward_combination.weighted_sum`. To see how much of a gain it explains, train on
:func:`near_target` alone, or look at :func:`nuisance_correlation`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_positive, check_same_shape, keep, scored


def near_target(nuisance: Tensor, *, target: float) -> Tensor:
    """Return ``1 - |nuisance / target - 1|``, largest at ``target`` (length-only PPO, arXiv:2310.03716). Any shape.

    Raises:
        ValueError: ``target`` is not positive.
    """
    check_positive(target=target)
    return 1 - (as_float(nuisance) / target - 1).abs()


def nuisance_correlation(reward: Tensor, nuisance: Tensor) -> Tensor:
    """Return Pearson's correlation over all samples that have both values, a detached scalar; 0 without spread.

    Args:
        reward: any shape; NaN where a sample could not be scored.
        nuisance: same shape.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(reward=reward, nuisance=nuisance)
    valid = scored(reward) & scored(nuisance)
    count = valid.sum()
    centred = []
    for x in (reward, nuisance):
        x = keep(x.detach().double(), valid)
        x = x - torch.where(valid, x, torch.inf).amin()  # equal values must give exactly 0, not rounding noise
        centred.append(keep(x - keep(x, valid).sum() / count, valid))
    a, b = centred
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return torch.where(scale > 0, (a * b).sum() / scale.clamp(min=torch.finfo(scale.dtype).tiny), 0.0)
