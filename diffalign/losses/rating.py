"""A reward model from absolute ratings (RbRL, arXiv:2307.16348; the form of the code).

::

    r = unit_range(scores)                                   # (B,) in [0, 1]
    loss = rating_loss(r, labels, matched_boundaries(r, labels.bincount(minlength=n)))
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from diffalign.losses.common import as_float, check_floating, check_positive


def unit_range(scores: Tensor) -> Tensor:
    """Return scores ``(B,)`` shifted and scaled to [0, 1] by the extremes of the batch; equal scores become 0.

    The extremes have a gradient: result and loss are invariant under ``a scores + b`` with a > 0.

    Raises:
        ValueError: not ``(B,)`` with B >= 1.
    """
    check_floating(scores=scores)
    if scores.ndim != 1 or not scores.numel():
        raise ValueError(f"scores must have shape (B,) with B >= 1, got {tuple(scores.shape)}")
    scores = as_float(scores)
    above = scores - scores.min()
    width = above.max()
    return above / torch.where(width > 0, width, torch.ones_like(width))


def matched_boundaries(r: Tensor, counts: Tensor) -> Tensor:
    """Return ``n + 1`` boundaries, from 0 to 1, such that class i has as many predictions as labels; detached.

    Args:
        r: ``(B,)`` predictions in [0, 1].
        counts: ``(n,)`` labels of each class, sum B. Each inner boundary lies halfway between two predictions.

    Raises:
        ValueError: the counts do not sum to B, or there are fewer than two classes.
    """
    if counts.ndim != 1 or len(counts) < 2 or int(counts.sum()) != r.numel():
        raise ValueError(
            f"counts must be two or more numbers that sum to {r.numel()} predictions, got {counts.tolist()}"
        )
    ordered = as_float(r.detach()).flatten().sort().values
    ends = ordered.new_tensor([0.0, 1.0])
    edges = torch.cat([ends[:1], (ordered[1:] + ordered[:-1]) / 2, ends[1:]])
    return torch.cat([ends[:1], edges[counts.cumsum(0)[:-1].to(edges.device)], ends[1:]])


def rating_logits(r: Tensor, boundaries: Tensor, *, k: float = 30.0) -> Tensor:
    """Return ``-k (r - b_i) (r - b_{i+1})``, ``(B, n)``: largest for the class whose interval holds ``r``.

    Args:
        r: ``(B,)`` in [0, 1].
        boundaries: ``(n + 1,)`` ascending, detached here.
        k: sharpness; with two classes this is logistic regression with slope k.

    Raises:
        ValueError: fewer than two classes, ``r`` is not ``(B,)``, or k <= 0.
    """
    check_positive(k=k)
    check_floating(r=r)
    if r.ndim != 1 or boundaries.ndim != 1 or len(boundaries) < 3:
        raise ValueError(
            f"need r (B,) and three or more boundaries, got {tuple(r.shape)} and {tuple(boundaries.shape)}"
        )
    r, b = as_float(r)[:, None], as_float(boundaries.detach())
    return -k * (r - b[:-1]) * (r - b[1:])


def rating_loss(r: Tensor, labels: Tensor, boundaries: Tensor, *, k: float = 30.0) -> Tensor:
    """Return the cross-entropy of the rating, ``(B,)``; arguments as in :func:`rating_logits`.

    ``labels (B,)``: integer class in 0..n-1, 0 the worst.

    Raises:
        ValueError: see :func:`rating_logits`; or the labels are not B integers.
    """
    logits = rating_logits(r, boundaries, k=k)
    if labels.shape != r.shape or labels.is_floating_point():
        raise ValueError(f"labels must be integers of shape {tuple(r.shape)}, got {labels.dtype} {tuple(labels.shape)}")
    return cross_entropy(logits, labels.long(), reduction="none")
