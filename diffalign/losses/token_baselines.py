"""Advantages per token, normalised over all tokens of a batch or by a baseline per position.

Shapes: tokens ``(N, T)``, groups ``(B, G, T)``. ``mask`` has the shape of the values, 1 where there is a token. A
denoising step takes the place of a token. No gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_floating, check_same_shape, keep, masked_mean


def whiten(values: Tensor, *, mask: Tensor | None = None, eps: float = 1e-8) -> Tensor:
    """Return ``(x - mean) / sqrt(var + eps)`` over all valid entries, like ``values``; 0 where masked.

    verl's ``masked_whiten``: unbiased variance, eps inside the root. A batch of one valid entry gives 0.
    """
    x = keep(values.detach().double(), mask)
    count = x.numel() if mask is None else mask.sum()
    centred = keep(x - masked_mean(x, mask), mask)
    variance = (centred**2).sum() / torch.as_tensor(count - 1).clamp(min=1)
    return (centred * (variance + eps).rsqrt()).to(as_float(values).dtype)


def returns_to_go(rewards: Tensor, *, mask: Tensor | None = None, gamma: float = 1.0) -> Tensor:
    """Return ``sum_{s >= t} gamma**(s - t) r_s`` over the valid tokens of each row, like ``rewards (N, T)``; 0 where
    masked. Masked tokens (tool output) are skipped without a discount.
    """
    check_floating(rewards=rewards)
    r, valid = keep(rewards.detach(), mask), torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask.bool()
    total, out = r.new_zeros(len(r)), []
    for t in reversed(range(r.shape[1])):
        total = torch.where(valid[:, t], r[:, t] + gamma * total, total)
        out.append(total)
    return keep(torch.stack(out[::-1], 1), valid)


def _single_tail(mask: Tensor) -> Tensor:
    """Positions of a group's longest member beyond its second longest, ``(B, G, T)`` bool."""
    length = mask.sum(2)
    top = length.topk(2, dim=1).values
    alone = (length == top[:, :1]) & (top[:, :1] > top[:, 1:])
    place = torch.arange(mask.shape[2], device=mask.device)
    return alone[:, :, None] & (place >= top[:, 1:, None])


def optimal_token_baseline(
    rewards: Tensor, logp: Tensor, sum_sq: Tensor, *, mask: Tensor, eps: float = 1e-8, zero_tail: bool = True
) -> Tensor:
    """Return the advantage with the optimal baseline per position, ``(B, G, T)`` (OTB, the form of verl).

    ``A_t = G_t - sum_i G_it W_it / sum_i W_it`` over the members that have a token at t, with ``G`` the return to go
    and ``W_t = sum_{s <= t} (1 - 2 p_s + sum_v p_s(v)**2)``, a proxy of the squared score.

    Args:
        rewards: ``(B, G, T)`` per token.
        logp: ``(B, G, T)`` log-probs at rollout.
        sum_sq: ``(B, G, T)`` sums of squared probabilities over the vocabulary.
        mask: ``(B, G, T)``.
        eps: added to the divisor.
        zero_tail: no baseline beyond the second longest member.

    Raises:
        ValueError: the shapes differ or are not ``(B, G, T)``.
    """
    check_same_shape(rewards=rewards, logp=logp, sum_sq=sum_sq, mask=mask)
    if rewards.ndim != 3:
        raise ValueError(f"expected tensors of shape (B, G, T), got {tuple(rewards.shape)}")
    valid = mask.bool()
    to_go = keep(keep(rewards.detach(), valid).flip(2).cumsum(2).flip(2), valid)
    energy = keep(keep(1 - 2 * logp.detach().exp() + sum_sq.detach(), valid).cumsum(2), valid)
    baseline = ((to_go * energy).sum(1) / (energy.sum(1) + eps))[:, None].expand_as(to_go)
    if rewards.shape[1] == 1:
        return to_go
    return keep(to_go - (keep(baseline, ~_single_tail(valid)) if zero_tail else baseline), valid)


def compressed(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return values with the valid tokens of each row first, and their indices for ``scatter``; ``(..., T)``."""
    order = (~mask.bool()).long().argsort(dim=-1, stable=True)
    return values.gather(-1, order), order
