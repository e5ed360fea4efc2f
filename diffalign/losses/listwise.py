"""Listwise losses: ``scores (B, G)`` of G samples of each of B prompts to one value per group, ``(B,)``.

``scores`` have the gradient: ``beta * log_ratio``, or log-probs where a method has no reference. Either a target
distribution, :func:`target_kl`, or one softmax per rank, :func:`plackett_luce`. Losses of all ordered pairs are in
:mod:`diffalign.losses.rank_pairs`.

``mask (B, G)`` is 1 where valid; groups of one and groups without a valid sample have the loss 0 and no gradient.
Denoising errors are not comparable between images: on diffusion models scores are log-ratios, at one t per group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import (
    as_float,
    check_any_valid,
    check_floating,
    check_groups,
    check_mask,
    check_same_shape,
    keep,
    readable,
    scored,
)


def _valid(x: Tensor, mask: Tensor | None) -> Tensor:
    """Valid entries, as bool of the shape of ``x``."""
    check_any_valid(mask)
    valid = check_mask(x, mask)
    return torch.ones_like(x, dtype=torch.bool) if valid is None else valid


def _filled(x: Tensor, valid: Tensor) -> Tensor:
    """``x`` with a very low value where not valid: softmax weight 0, no gradient."""
    return torch.where(valid, x, torch.full_like(x, torch.finfo(x.dtype).min))


def _check_distribution(target: Tensor, valid: Tensor) -> None:
    if not readable(target):
        return
    total = target.sum(1)
    off = (total - 1).abs() > 1e-2
    if (target < 0).any() or (off & valid.any(1)).any():
        raise ValueError(f"target must be a distribution over each group, got sums {total.tolist()}")


def target_kl(scores: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return ``KL(target || softmax(scores))``, ``(B,)`` in nats, fp32 (fp64 kept).

    Its gradient is ``softmax(scores) - target``, which includes a baseline. One-hot target: the first stage of
    Plackett-Luce. BRAIn (arXiv:2402.02479): target = softmax(ref + r / gamma - q), scores = log-prob - q.

    Args:
        scores: ``(B, G)``.
        target: ``(B, G)``, a distribution over the valid samples of each group; detached.
        mask: ``(B, G)``.

    Raises:
        ValueError: shapes do not fit, scores are integers, nothing is valid, or the target is no distribution.
    """
    check_floating(scores=scores, target=target)
    check_groups(scores=scores, target=target)
    valid = _valid(scores, mask)
    goal = keep(target.detach(), valid)
    _check_distribution(goal, valid)
    log_p = _filled(keep(scores, valid), valid).log_softmax(1)
    return keep(torch.xlogy(goal, goal) - goal * log_p, valid).sum(1)


def group_softmax(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the softmax of ``logits (B, G)`` over the valid samples of each group, detached: a target. Masked entries
    are 0.
    """
    check_groups(logits=logits)
    valid = _valid(logits, mask)
    return keep(_filled(keep(logits.detach(), valid), valid).softmax(1), valid)


def best_first(labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the order ``(B, G)`` (int64, for ``gather``) that sorts each group best first; ties keep their order,
    masked and unscored samples come last.
    """
    check_groups(labels=labels)
    values = torch.where(scored(labels, mask), as_float(labels), -torch.inf)
    return values.argsort(dim=1, descending=True, stable=True)


def gap_temperature(rewards: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return PRO's temperatures ``(B, G, G)``, detached: ``[k, i] = R_k - R_i`` for i after k, and ``[k, k]`` the
    largest of these (arXiv:2306.17492).

    Args:
        rewards: ``(B, G)``, best first.
        mask: ``(B, G)``.

    Raises:
        ValueError: shapes do not fit, nothing is valid, or the rewards are not best first.
    """
    check_groups(rewards=rewards)
    valid = scored(rewards, mask)
    r = keep(rewards.detach(), valid)
    after = (valid[:, :, None] & valid[:, None, :]).triu(1)
    gap = keep(r[:, :, None] - r[:, None, :], after)
    if readable(gap) and (gap < 0).any():
        raise ValueError("rewards must be sorted best first; gather them by best_first(rewards)")
    return gap + torch.diag_embed(gap.amax(2))


def plackett_luce(scores: Tensor, *, temperature: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Return ``sum_k [logsumexp_{i >= k}(tau_ki s_i) - tau_kk s_k]``, ``(B,)``: minus the log-probability of the order.

    Args:
        scores: ``(B, G)``, best first: ``scores.gather(1, best_first(labels))``.
        temperature: ``(B, G, G)``, ``[k, i]`` at stage k for sample i; detached; None for 1 (:func:`gap_temperature`
            for PRO).
        mask: ``(B, G)``.

    Raises:
        ValueError: shapes do not fit, scores are integers, or nothing is valid.
    """
    check_floating(scores=scores)
    check_groups(scores=scores)
    valid = _valid(scores, mask)
    left = (valid[:, :, None] & valid[:, None, :]).triu()
    stage = keep(scores, valid)[:, None, :].expand(left.shape)
    if temperature is not None:
        check_same_shape(stage=stage, temperature=temperature)
        stage = stage * keep(temperature.detach(), left)
    loss = _filled(stage, left).logsumexp(2) - stage.diagonal(dim1=1, dim2=2)
    return keep(loss, valid).sum(1)
