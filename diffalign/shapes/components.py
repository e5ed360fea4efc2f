"""Connected components of label maps, for a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor


def _spread(roots: Tensor, same_right: Tensor, same_below: Tensor) -> Tensor:
    """Each pixel takes the largest root among itself and its four neighbours of the same label."""
    out = roots.clone()
    view, other = out[:, :, :-1], roots[:, :, 1:]
    torch.maximum(view, other * same_right, out=view)
    view, other = out[:, :, 1:], roots[:, :, :-1]
    torch.maximum(view, other * same_right, out=view)
    view, other = out[:, :-1], roots[:, 1:]
    torch.maximum(view, other * same_below, out=view)
    view, other = out[:, 1:], roots[:, :-1]
    torch.maximum(view, other * same_below, out=view)
    return out


def components(labels: Tensor) -> Tensor:
    """Component of each pixel: the largest flat index among the pixels joined to it (4-neighbours, equal label).

    Neighbour maxima alternate with pointer jumps until nothing changes, so the number of rounds grows with the
    logarithm of a component's extent. The fixed point does not depend on what else is in the batch.

    Args:
        labels: (B, H, W) integer.

    Returns:
        (B, H, W) int64 within [0, B*H*W).
    """
    same_right = labels[:, :, 1:] == labels[:, :, :-1]
    same_below = labels[:, 1:] == labels[:, :-1]
    roots = torch.arange(labels.numel()).reshape(labels.shape)
    while True:
        spread = _spread(_spread(roots, same_right, same_below), same_right, same_below).flatten()
        spread = spread[spread]
        new = spread[spread].reshape(labels.shape)
        if torch.equal(new, roots):
            return roots
        roots = new
