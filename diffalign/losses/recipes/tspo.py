"""TSPO: policy gradient on the selection of a subset of frames, time steps or seeds."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.advantages import group_advantage
from diffalign.losses.common import check_floating, check_mask, check_same_shape, keep
from diffalign.losses.policy import clip
from diffalign.losses.recipes.registry import recipe


def _log_elementary(scores: Tensor, valid: Tensor, largest: int) -> Tensor:
    """``log e_k(exp(scores))`` over each row's valid scores for k = 0..largest, ``(B, largest + 1)``: the sum over all
    subsets of size k of the product of their members' weights. ``-inf`` where a row has fewer than k.
    """
    none = scores.new_full((len(scores),), -torch.inf)
    table = [torch.zeros_like(none)] + [none] * largest
    for score, member in zip(scores.unbind(1), valid.unbind(1), strict=True):
        longer = [_log_add(table[k], table[k - 1] + score) for k in range(1, largest + 1)]
        table = [table[0]] + [torch.where(member, new, old) for new, old in zip(longer, table[1:], strict=True)]
    return torch.stack(table, 1)


def _log_add(a: Tensor, b: Tensor) -> Tensor:
    """``logaddexp`` with gradient 0 instead of NaN where both are ``-inf``."""
    nothing = (a == -torch.inf) & (b == -torch.inf)
    both = torch.logaddexp(keep(a, ~nothing), keep(b, ~nothing))
    return torch.where(nothing, -torch.inf, both)


def subset_log_prob(scores: Tensor, chosen: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the log-prob of a subset among all of its size, ``(B,)``.

    ``p(S) = exp(sum_{i in S} s_i) / sum_{|S'| = |S|} exp(sum_{i in S'} s_i)``, exact, by elementary symmetric
    polynomials in log-space. Independent of order, unlike sampling without replacement. The full and the empty subset
    have log-prob 0 and no gradient. Invariant under a shift of all scores.

    Args:
        scores: ``(B, N)``, with gradient.
        chosen: ``(B, N)`` bool.
        mask: ``(B, N)``, 1 where there is a candidate.

    Raises:
        ValueError: a shape does not fit, scores are integers, or a masked candidate is chosen.
    """
    check_floating(scores=scores)
    if scores.ndim != 2 or scores.numel() == 0:
        raise ValueError(f"scores must have shape (B, N) with at least one candidate, got {tuple(scores.shape)}")
    check_same_shape(scores=scores, chosen=chosen)
    valid, chosen = check_mask(scores, mask), chosen.bool()
    valid = torch.ones_like(chosen) if valid is None else valid
    if (chosen & ~valid).any():
        raise ValueError("a masked candidate is chosen")
    size = chosen.sum(1)
    table = _log_elementary(keep(scores, valid), valid, int(size.max()))
    return keep(scores, chosen).sum(1) - table.gather(1, size[:, None])[:, 0]


@recipe("tspo", "policy_group", eps=0.2)
def tspo(scores: Tensor, old_scores: Tensor, chosen: Tensor, rewards: Tensor, *, eps: float) -> Tensor:
    """TSPO [derived]: GRPO on the selection of frames, time steps or seeds, ``(B, G)``.

    Formula: max(-A rho, -A clip(rho, 1 - eps, 1 + eps)), rho of p(S) = exp(sum_S s) / sum_{|S'| = |S|} exp(sum_S' s)

    The clip range is GRPO's. The exact probability among all subsets of one size is our reading.

    Args:
        scores: ``(B, N)``, a score for each candidate of a prompt; with gradient.
        old_scores: ``(B, N)``, at rollout.
        chosen: ``(B, G, N)`` bool, G sampled subsets per prompt.
        rewards: ``(B, G)``.
        eps: clip range.
    """
    subsets = chosen.flatten(0, 1)
    new, old = (
        subset_log_prob(s[:, None].expand(chosen.shape).flatten(0, 1), subsets) for s in (scores, old_scores.detach())
    )
    adv = group_advantage(rewards)
    return clip(new - old, adv.flatten(), eps_low=eps).view_as(adv)
