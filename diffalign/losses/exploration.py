"""Information of a label: confidence intervals of Borda scores, and information gain of a linear model. All detached.

Values ``(N,)`` go into :func:`~diffalign.losses.pair_selection.largest`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_floating, check_not_negative, check_positive, check_same_shape


class Gap(NamedTuple):
    """``gap (B,)``: width of the best Borda score's confidence interval; ``first (B,)``: candidate of the largest upper
    bound.
    """

    gap: Tensor
    first: Tensor


def ucb_gap(score: Tensor, std: Tensor, *, u: float = 2.0) -> Gap:
    """Return the uncertainty of the best Borda score of each prompt (AE-Borda, arXiv:2312.00267).

    The upper bound of ``P(a beats c)`` is ``sigmoid((s_a + u d_a) - (s_c - u d_c))``, the lower swaps the signs of u;
    a Borda score is the mean over the other candidates c. The gap is the largest upper minus the largest lower score:
    never negative, and 0 without uncertainty.

    Args:
        score: ``(B, A)`` mean of ``beta * log-ratio`` over dropout passes, A >= 2 candidates.
        std: ``(B, A)`` its standard deviation.
        u: width in standard deviations.

    Raises:
        ValueError: shapes do not fit, or ``u`` is negative.
    """
    check_not_negative(u=u)
    check_floating(score=score, std=std)
    check_same_shape(score=score, std=std)
    if score.ndim != 2 or score.shape[1] < 2:
        raise ValueError(f"score must have shape (B, A) with A >= 2, got {tuple(score.shape)}")
    score, spread = as_float(score.detach()), u * as_float(std.detach())
    high, low = score + spread, score - spread
    others = ~torch.eye(score.shape[1], dtype=torch.bool, device=score.device)
    count = score.shape[1] - 1
    upper = ((high[:, :, None] - low[:, None]).sigmoid() * others).sum(2) / count
    lower = ((low[:, :, None] - high[:, None]).sigmoid() * others).sum(2) / count
    return Gap(upper.amax(1) - lower.amax(1), upper.argmax(1))


def start_gram(dim: int, *, ridge: float = 1.0) -> Tensor:
    """Return ``ridge`` times the identity, ``(dim, dim)`` fp64: the information before the first pair.

    Raises:
        ValueError: ``ridge`` is not positive.
    """
    check_positive(ridge=ridge, dim=dim)
    return ridge * torch.eye(dim, dtype=torch.float64)


def elliptical(difference: Tensor, gram: Tensor) -> Tensor:
    """Return ``d' gram^-1 d``, ``(N,)``: the remaining information of a pair of features with difference ``d`` for a
    linear model (REGIME, Dueling RL). It does not increase when pairs are added to ``gram``.

    Args:
        difference: ``(N, D)``, first minus second.
        gram: ``(D, D)`` symmetric positive definite, ``ridge I + sum d d'`` of the pairs so far.

    Raises:
        ValueError: shapes do not fit.
    """
    if difference.ndim != 2 or gram.shape != (difference.shape[1],) * 2:
        raise ValueError(f"need difference (N, D) and gram (D, D), got {tuple(difference.shape)}, {tuple(gram.shape)}")
    d = difference.detach().to(gram)
    return (d * torch.linalg.solve(gram, d.T).T).sum(1)


def cover(difference: Tensor, *, n: int, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Select ``n`` pairs greedily by information, and update the gram matrix.

    Args:
        difference: ``(N, D)``.
        n: number of pairs, 1..N.
        gram: ``(D, D)`` from :func:`start_gram` or an earlier call.

    Returns:
        ``index (n,)`` in order, and the new gram ``(D, D)``.

    Raises:
        ValueError: shapes do not fit, or ``n`` is not in 1..N.
    """
    if not 1 <= n <= len(difference):
        raise ValueError(f"n must be in 1..N = {len(difference)}, got {n}")
    chosen: list[Tensor] = []
    taken = torch.zeros(len(difference), dtype=torch.bool, device=difference.device)
    for _ in range(n):
        i = torch.where(taken, -math.inf, elliptical(difference, gram)).argmax()
        d = difference[i].detach().to(gram)
        chosen, taken, gram = [*chosen, i], taken.index_fill(0, i, True), gram + torch.outer(d, d)
    return torch.stack(chosen), gram
