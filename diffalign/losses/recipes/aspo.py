"""ASPO: a second preference added to an advantage without changing its sign."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.advantages import group_advantage
from diffalign.losses.common import (
    as_float,
    check_not_negative,
    check_same_shape,
    expand_rows,
    keep,
)
from diffalign.losses.recipes.registry import recipe


def bounded_bias(adv: Tensor, bias: Tensor, *, k: float = 0.7, eligible: Tensor | None = None) -> Tensor:
    """Return ``A + clip(bias, -k |A|, k |A|)``, like ``adv``, detached; ineligible entries untouched.

    With k < 1 no advantage changes its sign, and one of 0 stays 0 (ASPO, arXiv:2508.19201, k = .7).

    Args:
        adv: ``(B,)`` or ``(B, G)``.
        bias: ``(B,)``, ``(B, 1)`` or the shape of ``adv``.
        k: largest bias as a share of ``|A|``, >= 0.
        eligible: shape of ``adv``, bool; None for all.

    Raises:
        ValueError: a shape does not fit, or ``k`` is negative.
    """
    check_not_negative(k=k)
    adv = as_float(adv.detach())
    if eligible is None:
        eligible = torch.ones_like(adv, dtype=torch.bool)
    check_same_shape(adv=adv, eligible=eligible)
    bias = keep(expand_rows(bias.detach(), adv), eligible)
    bound = k * adv.abs()
    return adv + torch.maximum(torch.minimum(bias, bound), -bound)


def early_bias(position: Tensor, length: Tensor, eligible: Tensor, *, delta: float = -2.0) -> Tensor:
    """Return ``delta (p - mean p) / mean length``, ``(B, G)``, means over each group's eligible samples; 0 elsewhere.

    ASPO: p is the position of the first tool call; delta < 0 favours early calls. On images p may be any cost, for
    example the number of model evaluations.

    Args:
        position: ``(B, G)``.
        length: ``(B, G)``, > 0 where eligible.
        eligible: ``(B, G)`` bool: correct samples that used the tool.
        delta: strength and sign.

    Raises:
        ValueError: the shapes differ or are not ``(B, G)``.
    """
    check_same_shape(position=position, length=length, eligible=eligible)
    if position.ndim != 2:
        raise ValueError(f"expected tensors of shape (B, G), got {tuple(position.shape)}")
    eligible = eligible.bool()
    count = eligible.sum(1, keepdim=True).clamp(min=1)
    p, size = keep(position.detach(), eligible), keep(length.detach(), eligible)
    mean, scale = p.sum(1, keepdim=True) / count, size.sum(1, keepdim=True) / count
    return keep(delta * (p - mean) / scale, eligible)


@recipe("aspo", "advantage", delta=-2.0, k=0.7)
def aspo(rewards: Tensor, position: Tensor, length: Tensor, eligible: Tensor, *, delta: float, k: float) -> Tensor:
    """ASPO (arXiv:2508.19201, a public verl recipe): GRPO's advantage with a bounded bias towards early use of a tool.
    Arguments as in :mod:`diffalign.losses.recipes.aspo`.

    Formula: A + clip(delta (p - mean p) / mean length, -k |A|, k |A|) on eligible samples, A of GRPO
    """
    adv = group_advantage(rewards)
    return bounded_bias(adv, early_bias(position, length, eligible, delta=delta), k=k, eligible=eligible.bool())
