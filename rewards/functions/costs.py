"""Rewards that depend on the cost of an answer: tokens, or for images the model evaluations of the sampler."""

from __future__ import annotations

import math

import torch
from torch import Tensor

HISTORY_FLOOR = -0.7
"""Least reward of a correct answer in HAPO, however much it costs."""


def history_cosine(cost: Tensor, best: Tensor, correct: Tensor, *, weight: float = 1.0) -> Tensor:
    """Cost measured by the cheapest correct answer that the prompt has had so far, `(B,)` in [-weight, weight].

    With x = min(cost / best, 2) and f = cos(pi x / 2), a correct answer gets max(-0.7, f) and a wrong one min(0, f),
    times the weight; a prompt without a history gets 0. HAPO (arXiv 2505.11225), the form of HCY123902/HAPO.

    Args:
        cost: `(B,)`, not negative.
        best: `(B,)` least cost of a correct answer to the prompt, NaN where there is none yet.
        correct: `(B,)` bool.
        weight: Factor; the outcome itself counts 1 beside it.

    Raises:
        ValueError: If a cost is negative or a history is not positive.
    """
    if bool((cost < 0).any()) or bool((best <= 0).any()):
        raise ValueError(f"costs are not negative and histories positive, got {cost.tolist()} and {best.tolist()}")
    wave = (math.pi / 2 * (cost / best).clamp(max=2.0)).cos()
    shaped = torch.where(correct.bool(), wave.clamp(min=HISTORY_FLOOR), wave.clamp(max=0.0))
    return weight * torch.where(best.isnan(), torch.zeros_like(shaped), shaped)


def budget_cosine(
    cost: Tensor,
    correct: Tensor,
    *,
    longest: float = 4096.0,
    budget: Tensor | None = None,
    answered: Tensor | None = None,
) -> Tensor:
    """Reward of a correct answer that falls with its cost, and with its distance from a budget, `(B,)`.

    Correct within the longest allowance L: 4 cos(pi n / 2L); under a budget b the smaller of 4 cos(pi n / 2L) -
    |n - b| / L and 4 cos(pi b / 2L). Wrong, or longer than L: 0; no answer: -1. HBPO (arXiv 2507.15844), the form of
    ZJU-REAL/HBPO.

    Args:
        cost: `(B,)` cost n.
        correct: `(B,)` bool.
        longest: L.
        budget: `(B,)` budget b; None for the form without one.
        answered: `(B,)` bool; None where all have an answer.

    Raises:
        ValueError: If L is not positive.
    """
    if longest <= 0:
        raise ValueError(f"longest must be positive, got {longest}")
    reward = 4 * (math.pi * cost / (2 * longest)).cos()
    if budget is not None:
        reward = torch.minimum(reward - (cost - budget).abs() / longest, 4 * (math.pi * budget / (2 * longest)).cos())
    reward = torch.where(correct.bool() & (cost <= longest), reward, torch.zeros_like(reward))
    return reward if answered is None else torch.where(answered.bool(), reward, -torch.ones_like(reward))


def rank_discount(correct: Tensor, rank: Tensor) -> Tensor:
    """1 for a hit; for a miss at rank i of a group with a hit, its share of -1 by 1 / log2(i + 2), `(B, G)`.

    The shares are those of all G ranks, so that a full list of misses would sum to -1; a group without a hit gets 0.
    The more the model likes a wrong answer, the more it costs. ReRe (arXiv 2510.12211), the form of sober-clever/ReRe.

    Args:
        correct: `(B, G)` bool.
        rank: `(B, G)` integers 0..G-1, 0 for the answer that the model likes best.

    Raises:
        ValueError: If the shapes differ or a row is no permutation of 0..G-1.
    """
    size = correct.shape[-1]
    if correct.shape != rank.shape or not bool((rank.sort(-1).values == torch.arange(size, device=rank.device)).all()):
        raise ValueError(f"expected one rank 0..{size - 1} per answer, got {tuple(correct.shape)} and {rank.tolist()}")
    discount = 1 / (torch.arange(size, dtype=torch.float32, device=rank.device) + 2).log2()
    penalty = -(discount / discount.sum())[rank]
    hit = correct.bool()
    return torch.where(hit, 1.0, torch.where(hit.any(-1, keepdim=True), penalty, 0.0))


def progress_reward(value: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    """Gain of a value over the best of its history, never negative, and the history after it, `(B,)` each.

    RetroAgent (arXiv 2603.08561), rebuilt from its description.

    Args:
        value: `(B,)` completion or score.
        best: `(B,)` best so far; NaN where there is none yet, which pays nothing. The result is the next call's.
    """
    gain = torch.where(best.isnan(), torch.zeros_like(value), (value - best).clamp(min=0.0))
    return gain, torch.fmax(best, value)
