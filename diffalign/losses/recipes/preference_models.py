"""Preference models beyond one Bradley-Terry score: mixture of Bradley-Terry heads, rewards from a critic, step
rewards.

Winner first in arguments and in stacked tensors ``(2, B, T)``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses import value
from diffalign.losses.common import as_float, check_same_shape, keep
from diffalign.losses.mixture import mixture_preference
from diffalign.losses.preference import logistic, pair_margin
from diffalign.losses.recipes.registry import recipe


@recipe("micro", "reward_model")
def micro(scores_w: Tensor, scores_l: Tensor, router_logits: Tensor) -> Tensor:
    """MiCRo (arXiv:2505.24846), first stage: heads and prompt router trained jointly, ``(B,)``. Few-shot adaptation to
    a user: ``mixture.hedge`` [derived].

    Formula: -log sum_k softmax(router)_k sigmoid(s_w,k - s_l,k)

    Args:
        scores_w: ``(B, K)`` of the heads.
        scores_l: ``(B, K)``.
        router_logits: ``(B, K)``, with gradient.
    """
    check_same_shape(scores_w=scores_w, scores_l=scores_l)
    return mixture_preference(as_float(scores_w) - as_float(scores_l), router_logits)


@recipe("rpr-context", "reward_model")
def rpr_context(scores_w: Tensor, scores_l: Tensor, log_prior: Tensor) -> Tensor:
    """Context-aware preferences (arXiv:2407.14916) [derived]: a mixture over contexts.

    Formula: -log sum_z p(z | prompt) sigmoid(r_w^z - r_l^z)

    Args:
        scores_w: ``(B, K)`` given each context z.
        scores_l: ``(B, K)``.
        log_prior: ``(B, K)`` log p(z | prompt) of a frozen model; detached.
    """
    return micro(scores_w, scores_l, log_prior.detach())


def _step_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of ``x (2, B, T)``, already 0 where masked, over both segments of each pair, ``(B,)``; 0 of nothing."""
    valid = torch.ones_like(x) if mask is None else mask.bool().to(x.dtype)
    return x.sum((0, 2)) / valid.sum((0, 2)).clamp(min=1)


class Ipl(NamedTuple):
    """``q (B,)``: loss of the critic on each pair; ``v (2, B, T)``: loss of the value head, masked steps 0."""

    q: Tensor
    v: Tensor


@recipe("ipl", "reward_model", reward_l2=0.5, level=0.7)
def ipl(
    q: Tensor,
    v: Tensor,
    v_next: Tensor,
    *,
    mask: Tensor | None = None,
    gamma: float = 0.99,
    reward_l2: float,
    level: float,
) -> Ipl:
    """Inverse preference learning (arXiv:2305.15363): the reward is computed from a critic instead of learned.

    Formula: q: -log sigmoid(sum r_w - sum r_l) + reward_l2 mean r**2, r = Q - gamma sg V'; v: |level - 1[V > Q]| (V -
    Q)**2

    Bradley-Terry on the segments' sums of r, plus ``reward_l2`` times the mean of ``r**2``; V by expectile regression
    on Q. Class defaults of the code (MetaWorld: ``reward_l2=3``, ``level=0.75``); gamma is ours. The policy follows by
    ``policy_off.awr``.

    Args:
        q: ``(2, B, T)``, winner first.
        v: ``(2, B, T)`` values of the same states.
        v_next: ``(2, B, T)`` values of the next ones, 0 after the end.
        mask: ``(2, B, T)``.
        gamma: discount.
        reward_l2: weight of the mean square of r over both segments.
        level: expectile.
    """
    check_same_shape(q=q, v=v, v_next=v_next)
    q = keep(q, mask)
    r = q - gamma * keep(v_next.detach(), mask)
    pair = logistic(pair_margin(r[0].sum(1), r[1].sum(1)))
    return Ipl(pair + reward_l2 * _step_mean(r**2, mask), value.expectile(keep(v, mask), q, level=level))


@recipe("hindsight-prior", "reward_model")
def hindsight_prior(rewards: Tensor, importance: Tensor, *, weight: float, mask: Tensor | None = None) -> Tensor:
    """Hindsight PRIOR (arXiv:2404.08828): Bradley-Terry on sums, plus a squared error of each step's reward to its
    share of the return, ``(B,)``. Second-hand; ``weight`` is unknown, a large one collapses the rewards.

    Formula: -log sigmoid(sum r_w - sum r_l) + weight mean_t (r_t - a_t sg sum r)**2

    Args:
        rewards: ``(2, B, T)`` of each step, winner first.
        importance: ``(2, B, T)``, sums to 1 per segment (attention of a world model; on images cross-attention mass, or
            the change of the preview in a step); detached.
        weight: of the squared error.
        mask: ``(2, B, T)``.
    """
    check_same_shape(rewards=rewards, importance=importance)
    r, share = keep(rewards, mask), keep(importance, mask)
    total = r.sum(2)
    pull = 2 * value.mse(r, share * total[..., None])
    return logistic(pair_margin(total[0], total[1])) + weight * _step_mean(pull, mask)
