"""Comparing rewards with each other, and with known strengths of the generators that they score."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def reward_distance(a: Tensor, b: Tensor) -> Tensor:
    """Half the distance of two standardised rewards of the same samples, in [0, 1] per group, `(B,)`.

    sqrt((1 - Pearson) / 2): 0 exactly for positive affine maps of each other, 1 for opposite rewards, a pseudometric.
    STARC (arXiv 2309.15257) for one decision. Samples that are NaN in either leave it; NaN where a reward is constant.

    Args:
        a: `(B, G)` rewards of groups.
        b: `(B, G)`.

    Raises:
        ValueError: If the shapes differ.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"expected two (B, G) tensors, got {tuple(a.shape)} and {tuple(b.shape)}")
    both = a.isfinite() & b.isfinite()

    def standard(r: Tensor) -> Tensor:
        known = torch.where(both, r, 0.0)
        centred = torch.where(both, known - known.sum(1, keepdim=True) / both.sum(1, keepdim=True), 0.0)
        return centred / centred.norm(dim=1, keepdim=True)  # a constant reward is 0 / 0: it orders nothing

    return (standard(a) - standard(b)).norm(dim=1) / 2


def _share(elo: float, elo_reference: float) -> float:
    """Expected share of wins of the reference over the source, by their Elo."""
    return 1 / (1 + 10 ** ((elo - elo_reference) / 400))


def elo_offset(
    source: Tensor, reference: Tensor, elo: float, elo_reference: float, *, tau: float = 0.1, steps: int = 100
) -> float:
    """Offset d of a source's scores so that its win rate against a reference is the one that their Elo predicts.

    mean sigmoid((s_o + d - s_r) / tau) = 1 / (1 + 10^((E_r - E_o) / 400)) over all cross pairs. CHARM (arXiv
    2504.10045), the equation of HexagonStar/CHARM, which approaches it by 100 steps of Adam; the left side grows with
    d, so bisection finds the root. Subtract nothing: add d to the source's scores. On images the sources are
    text-to-image models with arena Elo: a correction of a reward's liking for one of them.

    Args:
        source: `(N,)` scores of the source's samples.
        reference: `(M,)` scores of the reference's samples.
        elo: Elo of the source.
        elo_reference: Elo of the reference.
        tau: Temperature of the win probability, in units of the score.
        steps: Bisections.

    Raises:
        ValueError: If tau is not positive or a side has no finite score.
    """
    source, reference = source[source.isfinite()].double(), reference[reference.isfinite()].double()
    if tau <= 0 or not len(source) or not len(reference):
        raise ValueError(f"tau must be positive and both sides scored, got {tau}, {len(source)} and {len(reference)}")
    gap = source[:, None] - reference
    goal = 1 - _share(elo, elo_reference)
    logit = tau * torch.logit(torch.tensor(goal, dtype=torch.float64))
    low, high = float(logit - gap.max()), float(logit - gap.min())
    for _ in range(steps):
        middle = (low + high) / 2
        won = float(((gap + middle) / tau).sigmoid().mean())
        low, high = (middle, high) if won < goal else (low, middle)
    return (low + high) / 2


class Mismatch(NamedTuple):
    """Win rate of the source over the reference on equal prompts, and its distance from the Elo prediction."""

    wins: float
    degree: float


def mismatch_degree(source: Tensor, reference: Tensor, elo: float, elo_reference: float) -> Mismatch:
    """How much a reward over- or undervalues a source: (wins - p) / max(p, 1 - p), p by Elo, in [-1, 1].

    CHARM's diagnosis; a tie counts half.

    Args:
        source: `(N,)` scores on N prompts.
        reference: `(N,)` scores of the reference on the same prompts; NaN pairs are left out.
        elo: Elo of the source.
        elo_reference: Elo of the reference.

    Raises:
        ValueError: If the shapes differ or no pair is scored.
    """
    if source.shape != reference.shape:
        raise ValueError(f"scores on the same prompts are needed, got {tuple(source.shape)}, {tuple(reference.shape)}")
    gap = (source - reference)[(source - reference).isfinite()]
    if not len(gap):
        raise ValueError("no prompt is scored on both sides")
    wins = float(((gap.sign() + 1) / 2).mean())
    p = 1 - _share(elo, elo_reference)
    return Mismatch(wins, (wins - p) / max(p, 1 - p))
