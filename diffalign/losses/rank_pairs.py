"""Losses over all ordered pairs of a ranked group: ``scores (B, G)``, ``labels (B, G)`` to one value per group,
``(B,)``.

``scores`` have the gradient: ``beta * log_ratio``. ``labels`` are larger-is-better; samples with a NaN or infinite
label are left out. ``mask (B, G)`` is 1 where valid. A group without an ordered pair has the loss 0 and no gradient.

Each pair may have a weight ``(B, G, G)``: :func:`dcg_weight` from ranks by labels, ``rank(labels)`` (RankDPO), or by
current scores, ``rank(scores, labels)`` (LiPO); None is uniform (TRPA, CPL, DYPO). On diffusion models all samples of a
group must share one t; for the noise see ``diffalign.losses.draws``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffalign.losses.common import (
    as_float,
    check_any_valid,
    check_floating,
    check_groups,
    check_same_shape,
    keep,
    readable,
    scored,
)
from diffalign.losses.preference import logistic

Link = Callable[[Tensor], Tensor]


def ordered_pairs(labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return ``(B, G, G)`` bool, True at ``[b, i, j]`` if the label of i exceeds that of j; ties are no pairs."""
    check_groups(labels=labels)
    check_any_valid(mask)
    valid = scored(labels, mask)
    return (labels[:, :, None] > labels[:, None, :]) & valid[:, :, None] & valid[:, None, :]


def rank(values: Tensor, ties: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Return ranks ``(B, G)``, detached fp32: 1 for the largest valid value, 0 for masked entries.

    Equal values are ordered by ``ties (B, G)``; values equal there too share the mean of their ranks. ``rank(labels)``
    ranks by labels, ``rank(scores, labels)`` by current scores: at the start of training all scores are 0, and without
    the labels all weights would stay 0 [ours].
    """
    check_groups(values=values, **({} if ties is None else {"ties": ties}))
    ties = torch.zeros_like(values) if ties is None else ties
    valid = scored(values, mask) & scored(ties)
    same = values[:, :, None] == values[:, None, :]
    below = values[:, :, None] < values[:, None, :]
    below |= same & (ties[:, :, None] < ties[:, None, :])
    level = same & (ties[:, :, None] == ties[:, None, :])
    above = keep(below.float() + level.float() / 2, valid[:, :, None] & valid[:, None, :])
    return keep(above.sum(2) + 0.5, valid)


def dcg_weight(labels: Tensor, ranks: Tensor) -> Tensor:
    """Return ``|2**label_i - 2**label_j| |1 / ln(1 + rank_i) - 1 / ln(1 + rank_j)|``, ``(B, G, G)``, detached.

    The change of the discounted cumulative gain by swapping i and j (LiPO, arXiv:2402.01878; RankDPO, arXiv:2410.18013,
    natural logarithm). Labels are exponents: use [0, 1] or small grades.

    Args:
        labels: ``(B, G)``; unscored ones give weights of 0.
        ranks: ``(B, G)`` from 1 for the best, as :func:`rank` returns them, by labels (RankDPO) or scores (LiPO).

    Raises:
        ValueError: shapes differ, or ``2**label`` overflows.
    """
    check_groups(labels=labels, ranks=ranks)
    valid = scored(labels) & (ranks > 0)
    gain = torch.exp2(keep(labels.detach(), valid))
    if readable(gain) and not torch.isfinite(gain).all():
        raise ValueError(f"labels are exponents of 2 here: up to {labels.max().item():g} overflows; scale them")
    discount = keep(1 / torch.log1p(as_float(ranks.detach())), valid)
    weight = (gain[:, :, None] - gain[:, None, :]).abs() * (discount[:, :, None] - discount[:, None, :]).abs()
    return keep(weight, valid[:, :, None] & valid[:, None, :])


def _pair_losses(
    scores: Tensor, labels: Tensor, weight: Tensor | None, scale: Tensor | None, link: Link, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Loss of each ordered pair ``(B, G, G)``, 0 elsewhere, and which pairs these are."""
    check_floating(scores=scores)
    check_groups(scores=scores, labels=labels, **({} if scale is None else {"scale": scale}))
    pairs, valid = ordered_pairs(labels, mask), scored(labels, mask)
    s = keep(scores, valid)
    z = s[:, :, None] - s[:, None, :]
    z = z if scale is None else z * keep(scale.detach(), valid)[:, :, None]
    loss = link(keep(z, pairs))
    if weight is not None:
        check_same_shape(pairs=pairs, weight=weight)
        loss = loss * keep(weight.detach(), pairs)
    return keep(loss, pairs), pairs


def pairwise_sum(
    scores: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    scale: Tensor | None = None,
    link: Link = logistic,
    mask: Tensor | None = None,
) -> Tensor:
    """Return ``sum over label_i > label_j of w_ij link(scale_i (s_i - s_j))``, ``(B,)`` (LiPO, RankDPO).

    For two samples without weight it is the pair loss of the link. Ties do not contribute.

    Args:
        scores: ``(B, G)``, with gradient.
        labels: ``(B, G)``, larger is better.
        weight: ``(B, G, G)``, detached; None for 1.
        scale: ``(B, G)``, factor of the margins of the pairs that this sample wins, detached; None for 1 (TRPA: 2.5 for
            its best level).
        link: loss of a margin, elementwise; the logistic one by default.
        mask: ``(B, G)``, 1 where valid.

    Raises:
        ValueError: shapes do not fit, scores are integers, or nothing is valid.
    """
    return _pair_losses(scores, labels, weight, scale, link, mask)[0].sum((1, 2))


def pairwise_mean(
    scores: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    scale: Tensor | None = None,
    link: Link = logistic,
    mask: Tensor | None = None,
) -> Tensor:
    """Return :func:`pairwise_sum` over the number of ordered pairs of the group, ``(B,)`` (ranked batches of CPL; DYPO,
    success against failure). Arguments as there.
    """
    loss, pairs = _pair_losses(scores, labels, weight, scale, link, mask)
    return loss.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
