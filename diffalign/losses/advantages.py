"""Advantages of a group: rewards ``(B, G)`` of G samples of each of B prompts, to values of the same shape.

``group_advantage`` takes the two choices as functions. A *center* has the shape ``(rewards, mask) -> baseline`` and a
*scale* the shape ``(rewards, mask, eps) -> divisor``, each ``(B, 1)``, ``(B, G)`` or ``()``; other settings of one are
``functools.partial(group_std, unbiased=False)``. ``mask`` is bool, 1 where the reward is valid.

A NaN (could not be scored) or infinite reward is left out of all statistics, and its advantage is 0. Equal rewards
give advantages of exactly 0: deviations are taken from the group's smallest reward first, so no rounding error meets
a tiny eps.

On rewards [1, 2, 3, 6]: population std [-1.0690, -.5345, 0, 1.6036]; unbiased [-.9258, -.4629, 0, 1.3887];
leave-one-out without a scale [-2.6667, -1.3333, 0, 4].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffalign.losses.common import as_float, keep, scored

Center = Callable[[Tensor, Tensor], Tensor]
Scale = Callable[[Tensor, Tensor, float], Tensor]


def usable(rewards: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the valid rewards ``(B, G)`` as bool: finite and not masked.

    Raises:
        ValueError: ``rewards`` is not ``(B, G)`` with B, G >= 1, or the mask has another shape.
    """
    if rewards.ndim != 2 or rewards.numel() == 0:
        raise ValueError(
            f"rewards must have shape (B, G) with at least one sample, got {tuple(rewards.shape)}; "
            "pad ragged groups and mask them"
        )
    return scored(rewards, mask)


def _lowest(rewards: Tensor, mask: Tensor) -> Tensor:
    """Smallest valid reward of each group, ``(B, 1)``; 0 where there is none."""
    low = torch.where(mask, rewards, torch.inf).amin(1, keepdim=True)
    return torch.where(mask.any(1, keepdim=True), low, torch.zeros_like(low))


def _count(mask: Tensor, like: Tensor) -> Tensor:
    return mask.sum(1, keepdim=True).to(like.dtype)


def mean_center(rewards: Tensor, mask: Tensor) -> Tensor:
    """Return the group mean, ``(B, 1)`` (GRPO)."""
    low = _lowest(rewards, mask)
    return low + keep(rewards - low, mask).sum(1, keepdim=True) / _count(mask, rewards).clamp(min=1)


def loo_center(rewards: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the *other* samples, ``(B, G)`` (RLOO). A sample without others is its own baseline."""
    low = _lowest(rewards, mask)
    above = keep(rewards - low, mask)
    return low + (above.sum(1, keepdim=True) - above) / (_count(mask, rewards) - 1).clamp(min=1)


def no_center(rewards: Tensor, mask: Tensor) -> Tensor:
    """Return 0, ``(B, 1)``: raw rewards (REINFORCE)."""
    return torch.zeros_like(rewards[:, :1])


def group_std(rewards: Tensor, mask: Tensor, eps: float, *, unbiased: bool = True) -> Tensor:
    """Return each group's std + eps, ``(B, 1)`` (GRPO; DanceGRPO: unbiased, eps 1e-8). A group of one has std 0."""
    square = keep((rewards - mean_center(rewards, mask)) ** 2, mask).sum(1, keepdim=True)
    return (square / (_count(mask, rewards) - int(unbiased)).clamp(min=1)).sqrt() + eps


def batch_std(rewards: Tensor, mask: Tensor, eps: float, *, unbiased: bool = False) -> Tensor:
    """Return the std of all rewards + eps, ``(1, 1)`` (Flow-GRPO's code: population, eps 1e-4; its paper writes the
    group std).
    """
    return group_std(rewards.reshape(1, -1), mask.reshape(1, -1), eps, unbiased=unbiased)


def no_scale(rewards: Tensor, mask: Tensor, eps: float) -> Tensor:
    """Return 1, ``(1, 1)``: centred rewards without a scale (Dr. GRPO)."""
    return torch.ones_like(rewards[:1, :1])


def group_advantage(
    rewards: Tensor,
    *,
    center: Center = mean_center,
    scale: Scale = group_std,
    mask: Tensor | None = None,
    eps: float = 1e-6,
    clip: float | None = None,
) -> Tensor:
    """Return ``(rewards - center) / scale``, clipped to ``+-clip``.

    Flow-GRPO is ``scale=batch_std, eps=1e-4, clip=5``, with ``global_std: False`` ``scale=partial(group_std,
    unbiased=False), eps=1e-4``; DanceGRPO ``eps=1e-8, clip=5``; TRL's GRPO ``eps=1e-4``, verl's ``eps=1e-6``; RLOO
    ``center=loo_center, scale=no_scale``. A group scale cancels a per-prompt factor: multiply the result instead.
    Computed in fp64: a spread of 1e-3 around 1e4 keeps its digits.

    Args:
        rewards: ``(B, G)``, detached here; NaN where a sample could not be scored.
        center: baseline function.
        scale: divisor function.
        mask: ``(B, G)``, 1 where there is a sample.
        eps: added to the standard deviation, outside the root.
        clip: bound of the result, None for none.

    Returns:
        ``(B, G)`` fp32 (fp64 kept), without gradient; 0 for invalid rewards.

    Raises:
        ValueError: a shape does not fit, or ``clip`` is not positive.
    """
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive or None, got {clip}")
    mask, dtype = usable(rewards, mask), as_float(rewards).dtype
    wide = keep(rewards.detach().double(), mask)  # fp32 loses the spread of rewards far from 0
    adv = keep((wide - center(wide, mask)) / scale(wide, mask, eps), mask).to(dtype)
    return adv if clip is None else adv.clamp(-clip, clip)


def has_spread(rewards: Tensor, *, mask: Tensor | None = None, tol: float = 0.0) -> Tensor:
    """Return the groups whose valid rewards differ by more than ``tol``, ``(B,)`` bool.

    The others have zero advantage under every in-group centring: Flow-GRPO drops their samples, DanceGRPO keeps them.
    """
    mask, rewards = usable(rewards, mask), as_float(rewards)
    high = torch.where(mask, rewards, -torch.inf).amax(1)
    return mask.any(1) & (high - _lowest(rewards, mask)[:, 0] > tol)


def zero_variance_share(rewards: Tensor, *, mask: Tensor | None = None, tol: float = 0.0) -> Tensor:
    """Return the share of groups with equal rewards, which have no gradient, a 0-d tensor in [0, 1]."""
    return 1 - as_float(has_spread(rewards, mask=mask, tol=tol)).mean()
