"""Random selection: resampling by reward and rejection sampling.

Shapes as in :mod:`~diffalign.losses.selection`: ``(rewards (B, G), *, ..., generator, mask (B, G)) -> Selection``.
All randomness is from ``generator``, on the device of the rewards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.advantages import usable
from diffalign.losses.common import check_not_negative, check_positive
from diffalign.losses.selection import Selection, check_count, chosen, usable_rewards


def _draw(weight: Tensor, valid: Tensor, n: int, generator: torch.Generator) -> Selection:
    """``n`` draws with replacement in proportion to ``weight (B, G)``; an empty group is sampled uniformly."""
    some = valid.any(1, keepdim=True)
    index = torch.multinomial(
        torch.where(some, weight, torch.ones_like(weight)), n, replacement=True, generator=generator
    )
    return chosen(index, some.expand_as(index))


def best_random(
    rewards: Tensor,
    *,
    n: int | None = None,
    share_best: float = 0.4,
    share_other: float = 0.1,
    generator: torch.Generator,
    mask: Tensor | None = None,
) -> Selection:
    """Resample each group with replacement, the best with weight 0.4 and every other with 0.1 (PF-PPO BR).

    Args:
        rewards: ``(B, G)``.
        n: draws, default G.
        share_best: weight of the best sample.
        share_other: weight of each of the others; 0 selects the best only.
        generator: source of randomness.
        mask: ``(B, G)``.

    Raises:
        ValueError: a share is negative or ``share_best`` is 0, ``n`` < 1, or a shape does not fit.
    """
    check_positive(share_best=share_best)
    check_not_negative(share_other=share_other)
    rewards, valid = usable_rewards(rewards, mask)
    n = rewards.shape[1] if n is None else n
    check_positive(n=n)
    weight = torch.where(valid, share_other, 0.0).to(rewards.dtype)
    return _draw(weight.scatter(1, rewards.argmax(1, keepdim=True), share_best), valid, n, generator)


def softmax(
    rewards: Tensor, *, temperature: float = 1.0, n: int = 1, generator: torch.Generator, mask: Tensor | None = None
) -> Selection:
    """Draw ``n`` samples with replacement, each with probability ``~ exp(r / temperature)``: the choice of one of G
    samples.

    For G towards infinity the distribution of the selected sample is ``p exp(r / temperature) / Z``; with G = 1 it is
    ``p``.

    Raises:
        ValueError: ``temperature`` or ``n`` is not positive, or a shape does not fit.
    """
    check_positive(temperature=temperature, n=n)
    rewards, valid = usable_rewards(rewards, mask)
    high = rewards.amax(1, keepdim=True)
    return _draw(((rewards - high) / temperature).exp(), valid, n, generator)


def accept(
    rewards: Tensor,
    *,
    beta: float = 0.5,
    r_max: float | Tensor | None = None,
    generator: torch.Generator,
    mask: Tensor | None = None,
) -> Tensor:
    """Return which samples one pass of rejection sampling accepts, ``u < exp((r - r_max) / beta)``, ``(B, G)`` bool.

    With one fixed ``r_max`` above every reward the accepted follow ``p exp(r / beta) / Z`` exactly; with the maximum of
    each group (default) only approximately, and its best sample is always accepted.

    Args:
        rewards: ``(B, G)``.
        beta: towards 0 only the best sample passes, towards infinity all.
        r_max: a number, or ``(B, 1)``.
        generator: source of randomness.
        mask: ``(B, G)``.

    Raises:
        ValueError: ``beta`` is not positive, or a shape does not fit.
    """
    check_positive(beta=beta)
    rewards, valid = usable_rewards(rewards, mask)
    r_max = rewards.amax(1, keepdim=True) if r_max is None else r_max
    u = torch.rand(rewards.shape, dtype=rewards.dtype, device=rewards.device, generator=generator)
    return valid & (u < ((rewards - r_max) / beta).exp())


def rejection(
    rewards: Tensor, *, n: int, beta: float = 0.5, generator: torch.Generator, mask: Tensor | None = None
) -> Selection:
    """Select ``n`` samples of each group by passes of :func:`accept` without replacement (RSO: 64 to 8, beta 0.5).

    Each pass is over the remaining samples, with the largest remaining reward as ``r_max``; within a pass the first
    accepted samples are taken. In the order of acceptance.

    Raises:
        ValueError: ``beta`` is not positive, ``n`` is not in 1..G, or a shape does not fit.
    """
    check_count(n, rewards)
    remaining, size = usable(rewards, mask), rewards.shape[1]
    accepted_at = torch.full(rewards.shape, size, device=rewards.device)
    for turn in range(n):
        new = accept(rewards, beta=beta, generator=generator, mask=remaining)
        accepted_at = torch.where(new, turn, accepted_at)
        remaining = remaining & ~new
    index = accepted_at.argsort(dim=1, stable=True)[:, :n]
    return chosen(index, accepted_at.gather(1, index) < size)
