"""Layout as a smooth reward: boxes as Gaussians."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class BoxReward(NamedTuple):
    """Two rewards of a predicted box, `(B,)` in [0, 1] each: position of its centre, and overlap with the target."""

    point: Tensor
    coverage: Tensor


def box_gaussian(predicted: Tensor, target: Tensor, *, spread: float = 0.5) -> BoxReward:
    """Gaussian rewards of boxes: dense where "left of" or an overlap at a threshold is 0 or 1.

    A box is the Gaussian with its centre as mean and `spread` times its size as deviations. Point: exp(-1/2 sum of
    (difference of means / target's deviation)^2), which does not see the predicted size. Coverage: exp(-D), D the
    Bhattacharyya distance of the two Gaussians. GUI-G2 (arXiv 2507.15846), the form of ZJU-REAL/GUI-G2; how the paper
    mixes the two is not settled, so they come apart.

    Args:
        predicted: `(B, 4)` corners (x0, y0, x1, y1).
        target: `(B, 4)`, in the same units.
        spread: Deviations over sizes.

    Raises:
        ValueError: If a box is no box: another shape, or without an area.
    """
    (mean_p, sd_p), (mean_t, sd_t) = _gaussian(predicted, spread), _gaussian(target, spread)
    gap = (mean_p - mean_t) ** 2
    pooled = (sd_p**2 + sd_t**2) / 2
    distance = (gap / pooled / 8 + 0.5 * (pooled / (sd_p * sd_t)).log()).sum(-1)
    return BoxReward(point=(-0.5 * (gap / sd_t**2).sum(-1)).exp(), coverage=(-distance).exp())


def _gaussian(boxes: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    """Centres and deviations `(B, 2)` of boxes `(B, 4)`."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes are (B, 4) corners (x0, y0, x1, y1), got {tuple(boxes.shape)}")
    low, high = boxes[:, :2], boxes[:, 2:]
    if not bool((high > low).all()):
        raise ValueError("boxes are (x0, y0, x1, y1) with x1 > x0 and y1 > y0; leave empty detections out before")
    return (low + high) / 2, spread * torch.sub(high, low)
