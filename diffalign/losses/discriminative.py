"""Discriminative objective of a group: positive samples against the log-sum-exp of the negatives (DRPO, DisCO).

No advantage is formed, so the log-prob of a positive sample never decreases because its group is better.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.advantages import usable
from diffalign.losses.common import (
    as_float,
    check_floating,
    check_mask,
    check_not_negative,
    check_positive,
    check_same_shape,
    keep,
)


def positive_weights(quality: Tensor, positive: Tensor, *, lam: float = 0.1, mask: Tensor | None = None) -> Tensor:
    """Return ``softmax(quality / lam)`` over the positives of each group, ``(B, G)``, detached; 0 elsewhere.

    Args:
        quality: ``(B, G)``, a second reward among the positives (1 - length / longest in DRPO).
        positive: ``(B, G)`` bool.
        lam: temperature; ``inf`` is uniform, DisCO.
        mask: ``(B, G)``, 1 where there is a sample.

    Raises:
        ValueError: a shape does not fit, or ``lam`` is not positive.
    """
    check_same_shape(quality=quality, positive=positive)
    check_positive(lam=lam)
    among = usable(quality, mask) & positive.bool()
    logits = torch.where(among, as_float(quality.detach()) / lam, -torch.inf)
    return keep(logits.softmax(1), among)


def discriminative(
    scores: Tensor,
    positive: Tensor,
    *,
    tau: float = 10.0,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Return ``-sum_{i pos} w_i (u_i - tau logsumexp_{j neg}(u_j / tau))``, ``(B,)``.

    The gradient is negative on every positive, positive on every negative, and sums to 0. A group of positives or of
    negatives only has the loss 0 but still counts: divide by the number of all prompts
    (:func:`~diffalign.losses.masked_const`).

    Args:
        scores: ``(B, G)``, mean log-prob of each sample, or a surrogate log-ratio; with gradient.
        positive: ``(B, G)`` bool, the positives.
        tau: temperature over the negatives.
        weight: ``(B, G)``, not negative, detached, renormalised over the positives; None is uniform (DisCO).
        mask: ``(B, G)``, 1 where there is a sample.

    Raises:
        ValueError: a shape does not fit, scores are integers, a weight is negative, or ``tau`` is not positive.
    """
    check_floating(scores=scores)
    check_same_shape(scores=scores, positive=positive)
    check_positive(tau=tau)
    valid = check_mask(scores, mask)
    valid = torch.ones_like(scores, dtype=torch.bool) if valid is None else valid
    good, bad = valid & positive.bool(), valid & ~positive.bool()
    mixed = good.any(1) & bad.any(1)
    u = keep(scores, valid)
    share = _shares(u, good, weight)
    rivals = torch.where(bad | ~mixed[:, None], u / tau, -torch.inf)
    return keep(-(share * u).sum(1) + tau * rivals.logsumexp(1), mixed)


def _shares(u: Tensor, good: Tensor, weight: Tensor | None) -> Tensor:
    """Weights over the positives of each group, summing to 1 where there is one."""
    weight = torch.ones_like(u) if weight is None else weight.detach()
    check_same_shape(scores=u, weight=weight)
    share = keep(weight, good)
    check_not_negative(weight=share)
    total = share.sum(1, keepdim=True)
    return share / torch.where(total > 0, total, torch.ones_like(total))
