"""Hypervolume: how much of objective space a set of points dominates above a reference. Larger is better, detached."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_positive


def _above(front: Tensor, ref: Tensor) -> Tensor:
    """Points ``(N, K)`` as gaps above the reference; a coordinate below it is 0, and then so is the point's volume."""
    if front.ndim != 2 or 0 in front.shape or ref.shape != front.shape[1:]:
        raise ValueError(f"need front (N, K) and ref (K,), got {tuple(front.shape)} and {tuple(ref.shape)}")
    gaps = (as_float(front.detach()) - as_float(ref.detach())).clamp(min=0)
    if not gaps.isfinite().all():
        raise ValueError("the front and the reference must be finite; leave out points that were not scored")
    return gaps


def _sweep(gaps: Tensor) -> Tensor:
    """Volume of the union of boxes from 0 to each point, by slabs along the last axis."""
    if gaps.shape[1] == 1:
        return gaps.amax()
    gaps = gaps[gaps[:, -1].argsort(descending=True)]
    depth = gaps[:, -1] - torch.cat([gaps[1:, -1], gaps.new_zeros(1)])
    return torch.stack([d * _sweep(gaps[: i + 1, :-1]) for i, d in enumerate(depth)]).sum()


def hypervolume(front: Tensor, ref: Tensor) -> Tensor:
    """Return the exact volume above ``ref`` that the points dominate, a 0-d tensor, for up to three objectives.

    Args:
        front: ``(N, K)``, K <= 3; dominated points change nothing.
        ref: ``(K,)``, the worst point that counts.

    Raises:
        ValueError: K > 3 (see :func:`sampled_hypervolume`), a shape does not fit, or a value is not finite.
    """
    gaps = _above(front, ref)
    if gaps.shape[1] > 3:
        raise ValueError(f"exact for K <= 3, got K = {gaps.shape[1]}; use sampled_hypervolume")
    return _sweep(gaps)


def sampled_hypervolume(front: Tensor, ref: Tensor, *, generator: torch.Generator, samples: int = 10_000) -> Tensor:
    """Return a Monte Carlo estimate for any number of objectives, a 0-d tensor, unbiased.

    Uniform draws from the box between ``ref`` and the largest coordinates; with volume v of a box of volume V its
    standard deviation is ``sqrt(v (V - v) / samples)``. Memory is samples x N x K.

    Raises:
        ValueError: a shape does not fit, a value is not finite, or ``samples`` is not positive.
    """
    check_positive(samples=samples)
    gaps = _above(front, ref)
    box = gaps.amax(0)
    draws = box * torch.rand(samples, len(box), dtype=gaps.dtype, device=gaps.device, generator=generator)
    inside = (draws[:, None] < gaps[None]).all(2).any(1)
    return box.prod() * inside.to(gaps.dtype).mean()
