"""Rank agreement of two scores, and Pareto fronts of several objectives. Larger is better, all detached."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses.advantages import usable
from diffalign.losses.common import as_float, check_same_shape, keep, scored


def rank_agreement(a: Tensor, b: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the share of concordant pairs of each group, ``(B,)`` in [0, 1], ``(Kendall's tau + 1) / 2``.

    A pair tied in either score counts 1/2 (Cream's code ranks ties by index instead); a group without a pair gets 1/2.

    Args:
        a: ``(B, G)`` scores.
        b: ``(B, G)`` scores.
        mask: ``(B, G)``; NaN and infinite scores are left out.

    Raises:
        ValueError: a shape does not fit.
    """
    check_same_shape(a=a, b=b)
    valid = usable(a, mask) & usable(b)
    a, b = (keep(x.detach(), valid) for x in (a, b))
    pairs = (valid[:, :, None] & valid[:, None]).triu(1)
    sign = (a[:, :, None] - a[:, None]).sign() * (b[:, :, None] - b[:, None]).sign()
    tau = torch.where(pairs, sign, 0.0).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
    return (1 + tau) / 2


class Fronts(NamedTuple):
    """``rank (N,)`` int64, 0 for the non-dominated; ``crowding (N,)``, larger in sparse regions."""

    rank: Tensor
    crowding: Tensor


def _points(points: Tensor) -> Tensor:
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(f"points must have shape (N, K) with N, K >= 1, got {tuple(points.shape)}")
    return as_float(points.detach())


def _ranks(points: Tensor, usable: Tensor) -> Tensor:
    """Non-dominated sorting; invalid points come after the last front."""
    at_least = (points[:, None] >= points[None]).all(2)
    beats = at_least & ~at_least.T
    rank = torch.zeros(len(points), dtype=torch.long, device=points.device)
    left, level = usable.clone(), 0
    while left.any():
        front = left & ~(beats & left[:, None]).any(0)
        rank[front], level = level, level + 1
        left &= ~front
    rank[~usable] = level
    return rank


def _crowding(values: Tensor, same_front: Tensor) -> Tensor:
    """Gap between the next larger and the next smaller value of one objective, over the front's range, ``(N,)``."""
    above, below = values[None] > values[:, None], values[None] < values[:, None]
    upper = torch.where(same_front & above, values, math.inf).amin(1)
    lower = torch.where(same_front & below, values, -math.inf).amax(1)
    high = torch.where(same_front, values, -math.inf).amax(1)
    low = torch.where(same_front, values, math.inf).amin(1)
    return (upper - lower) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)


def pareto_rank(points: Tensor) -> Fronts:
    """Return the front and the crowding distance of each point (the sorting of NSGA-II).

    A point dominates another if it is at least as good in all objectives and better in one. Crowding sums, over the
    objectives, the gap between a point's nearest distinct neighbours in its front over the front's range; it is
    infinite at the ends. Duplicates share one value, so the result is equivariant under permutations.

    Args:
        points: ``(N, K)``. A point with a NaN or infinite value comes after the last front, with crowding 0.

    Raises:
        ValueError: the shape does not fit.
    """
    points = _points(points)
    whole = scored(points).all(1)
    points = keep(points, whole[:, None].expand_as(points))
    rank = _ranks(points, whole)
    same = (rank[:, None] == rank[None]) & whole[None] & whole[:, None]
    crowding = torch.stack([_crowding(values, same) for values in points.T]).sum(0)
    return Fronts(rank, torch.where(whole, crowding, 0.0))
