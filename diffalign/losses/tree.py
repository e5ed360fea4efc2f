"""Advantages of segments of a trajectory, along trees and chains: the gain in expected reward of each segment.

A tree is flat: ``value (N,)`` of each node and ``parent (N,)``, -1 for a root and otherwise smaller than the node's
index. One array may contain several trees. An edge from a parent to a child is a segment: some tokens, some denoising
steps, a turn. Its advantage is the child's value minus the parent's; along a path they sum to leaf minus root. A chain
(``parent = i - 1``) gives differences.

A NaN node (could not be scored) is left out of its parent's mean, and its edge gets 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_same_shape, keep


def _depths(parent: Tensor, nodes: Tensor) -> list[int]:
    """Depth of each node, 0 at a root.

    Raises:
        ValueError: the shapes differ, or a parent does not come before its child.
    """
    if nodes.ndim != 1:
        raise ValueError(f"expected one value per node, shape (N,), got {tuple(nodes.shape)}")
    check_same_shape(value=nodes, parent=parent)
    depth: list[int] = []
    for i, above in enumerate(parent.tolist()):
        if not -1 <= above < i or above != int(above):
            raise ValueError(f"node {i} has parent {above}: give -1 for a root, else the number of an earlier node")
        depth.append(0 if above < 0 else depth[int(above)] + 1)
    return depth


def _means(value: Tensor, parent: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean of the finite values of each parent's children, and whether there is one, ``(size,)`` both.

    Deviations are taken from the smallest child first, so that the mean of equal values is exact.
    """
    finite = torch.isfinite(value)
    count = value.new_zeros(size).index_add(0, parent, finite.to(value.dtype))
    low = value.new_full((size,), torch.inf).scatter_reduce(0, parent, value.masked_fill(~finite, torch.inf), "amin")
    low = keep(low, torch.isfinite(low))
    above = value.new_zeros(size).index_add(0, parent, keep(value - low[parent], finite))
    return low + above / count.clamp(min=1), count > 0


def backed_up(value: Tensor, parent: Tensor) -> Tensor:
    """Return values with each inner node replaced by the mean of its *direct children*, ``(N,)``, detached.

    The mean of children is the mean of leaves only in balanced trees (SPO's code, hybrid_inference_strategy.py, takes
    the children). Leaves keep their value; an inner node without a scored child is NaN.

    Args:
        value: ``(N,)``; only leaves are read.
        parent: ``(N,)``.

    Raises:
        ValueError: the shapes differ, or a parent does not come before its child.
    """
    depth = torch.tensor(_depths(parent, value), device=value.device)
    out = as_float(value.detach()).clone()
    for level in range(int(depth.max()), 0, -1):
        here = depth == level
        mean, any_child = _means(out[here], parent[here].long(), len(out))
        inner = torch.zeros_like(here).index_fill(0, parent[here].long(), True)
        out = torch.where(inner, torch.where(any_child, mean, torch.nan), out)
    return out


def tree_advantage(value: Tensor, parent: Tensor) -> Tensor:
    """Return ``value - value[parent]`` of each node's edge, ``(N,)``, detached; 0 for a root.

    Args:
        value: ``(N,)``, Monte-Carlo values, a critic's, or :func:`backed_up` rewards of leaves.
        parent: ``(N,)``.

    Raises:
        ValueError: the shapes differ, or a parent does not come before its child.
    """
    _depths(parent, value)
    value = as_float(value.detach())
    above = torch.where(parent < 0, value, value[parent.clamp(min=0).long()])
    return keep(value - above, torch.isfinite(value) & torch.isfinite(above))


def sibling_advantage(value: Tensor, parent: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Return ``(value - mean of siblings) / (their std + eps)`` of each node, ``(N,)``, detached; 0 for a root.

    A node is its own sibling; population std. On :func:`backed_up` values this is :func:`tree_advantage`
    over the std of the parent's children, which SPO offers.

    Raises:
        ValueError: the shapes differ, or a parent does not come before its child.
    """
    _depths(parent, value)
    value, child = as_float(value.detach()), parent >= 0
    at = parent.clamp(min=0).long()
    mean, _ = _means(value[child], at[child], len(value))
    away = keep(value - mean[at], child & torch.isfinite(value))
    square, _ = _means(torch.where(torch.isfinite(value), away, torch.nan)[child] ** 2, at[child], len(value))
    return away / (square[at].sqrt() + eps)


def chain_advantage(value: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the gain ``value[:, t + 1] - value[:, t]`` of each segment of chains, ``(B, T)``, detached.

    Args:
        value: ``(B, T + 1)``, before the first segment, then after each: a Monte-Carlo value (SPO-chain), the
            probability of the correct answer (information gain), the reward of a preview.
        mask: ``(B, T)``, 1 where there is a segment.

    Raises:
        ValueError: ``value`` has no segment, or the mask has another shape.
    """
    if value.ndim != 2 or value.shape[1] < 2:
        raise ValueError(f"expected values of shape (B, T + 1) with T >= 1, got {tuple(value.shape)}")
    gain = as_float(value.detach()).diff(dim=1)
    finite = torch.isfinite(gain)
    return keep(gain, finite if mask is None else finite & keep(torch.ones_like(gain), mask).bool())


def spread(adv: Tensor, segment: Tensor) -> Tensor:
    """Return the advantage of each step's segment, ``(B, T)``.

    Args:
        adv: ``(B, S)``.
        segment: ``(B, T)``, index of each step's segment, 0..S-1; -1 for a step without one, which gets 0.

    Raises:
        ValueError: a shape does not fit, or a segment index does not exist.
    """
    if adv.ndim != 2 or segment.ndim != 2 or len(adv) != len(segment):
        raise ValueError(f"expected adv (B, S) and segment (B, T), got {tuple(adv.shape)} and {tuple(segment.shape)}")
    if segment.numel() and not -1 <= int(segment.min()) <= int(segment.max()) < adv.shape[1]:
        raise ValueError(f"segments must be -1 or one of 0..{adv.shape[1] - 1}")
    return keep(as_float(adv.detach()).gather(1, segment.long().clamp(min=0)), segment >= 0)


def cut_segments(prob: Tensor, *, threshold: float = 0.9, every: int = 5) -> Tensor:
    """Return the index of each token's segment, ``(B, T)``: a new one begins after every ``every``-th token with a
    rollout probability below the threshold (SPO-chain: .9, each 5th or 10th).

    Raises:
        ValueError: ``prob`` is not ``(B, T)``, or ``every`` is below 1.
    """
    if prob.ndim != 2 or every < 1:
        raise ValueError(f"expected prob (B, T) and every >= 1, got {tuple(prob.shape)} and {every}")
    open_tokens = (prob < threshold).long()
    return (open_tokens.cumsum(1) - open_tokens) // every
