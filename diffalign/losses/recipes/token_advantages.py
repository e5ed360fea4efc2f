"""Advantage estimators per token of verl, by name; see :mod:`diffalign.losses.token_baselines` and
:mod:`diffalign.losses.gae`. Tokens ``(N, T)``, groups ``(B, G, T)``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffalign.losses.advantages import group_advantage, no_scale
from diffalign.losses.common import check_same_shape
from diffalign.losses.gae import gae
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.running import History, running_advantage
from diffalign.losses.token_baselines import compressed, optimal_token_baseline, returns_to_go, whiten


@recipe("gae", "advantage", gamma=1.0, lam=0.95)
def whitened_gae(rewards: Tensor, values: Tensor, *, gamma: float, lam: float, mask: Tensor | None = None) -> Tensor:
    """GAE (arXiv:1506.02438, verl's form for language models): whitened over all tokens, ``(N, T)``.

    Formula: whiten(sum_l (gamma lam)**l delta_{t+l}), delta_t = r_t + gamma V_{t+1} - V_t

    ``rewards`` and ``values`` ``(N, T)``. Returns for the value loss and advantages without whitening:
    :func:`diffalign.losses.gae.gae`. verl's lam is 1 by default.
    """
    return whiten(gae(rewards, values, mask=mask, gamma=gamma, lam=lam).advantages, mask=mask)


@recipe("reinforce-plus-plus", "advantage", aliases=("reinforce++",), gamma=1.0)
def reinforce_plus_plus(rewards: Tensor, *, gamma: float, mask: Tensor | None = None) -> Tensor:
    """REINFORCE++ (arXiv:2501.03262, verl's form): discounted returns whitened over all tokens, ``(N, T)``.

    Formula: whiten(sum_{s >= t} gamma**(s - t) r_s)

    ``rewards (N, T)`` per token, KL penalty included.
    """
    return whiten(returns_to_go(rewards, mask=mask, gamma=gamma), mask=mask)


@recipe("reinforce-plus-plus-baseline", "advantage", aliases=("reinforce++-baseline", "rf++-baseline"))
def reinforce_plus_plus_baseline(rewards: Tensor, mask: Tensor) -> Tensor:
    """REINFORCE++ with a group baseline (arXiv:2501.03262, verl's form), ``(B G, T)``.

    Formula: whiten(R - mean R of the group), whitened over all tokens of the batch

    ``rewards (B, G)``, ``mask (B G, T)``.
    """
    centred = group_advantage(rewards, scale=no_scale).flatten()
    check_same_shape(samples=centred, mask=mask.any(1))
    return whiten(centred[:, None].expand(mask.shape), mask=mask)


@recipe("optimal-token-baseline", "advantage", aliases=("otb",))
def otb(rewards: Tensor, logp: Tensor, sum_sq: Tensor, mask: Tensor) -> Tensor:
    """Optimal token baseline (verl's ``optimal_token_baseline``), ``(B, G, T)``.

    Formula: G_t - sum_i G_it W_it / sum_i W_it, W_t = sum_{s <= t} (1 - 2 p_s + sum_v p_s(v)**2), G the return to go

    Arguments ``(B, G, T)`` as in :func:`diffalign.losses.token_baselines.optimal_token_baseline`. No baseline beyond
    the second longest member of a group.
    """
    return optimal_token_baseline(rewards, logp, sum_sq, mask=mask)


@recipe("tir-optimal-token-baseline", "advantage", aliases=("tir-otb", "multi-turn-otb"))
def tir_otb(rewards: Tensor, logp: Tensor, sum_sq: Tensor, mask: Tensor) -> Tensor:
    """Optimal token baseline for responses with tool output (verl's ``tir_optimal_token_baseline``): positions are
    those among the policy's own tokens.

    Formula: as ``optimal-token-baseline``, position t = the t-th valid token

    Arguments and result ``(B, G, T)``.
    """
    check_same_shape(rewards=rewards, logp=logp, sum_sq=sum_sq, mask=mask)
    (r, order), (p, _), (s, _), (m, _) = (compressed(x, mask) for x in (rewards, logp, sum_sq, mask))
    adv = optimal_token_baseline(r, p, s, mask=m)
    return torch.zeros_like(adv).scatter(-1, order, adv)


@recipe("ddpo-advantage", "advantage", buffer_size=32, min_count=16, eps=1e-6)
def ddpo_advantage(
    rewards: Tensor, prompts: Sequence[str], history: History, *, buffer_size: int, min_count: int, eps: float
) -> tuple[History, Tensor]:
    """DDPO (arXiv:2305.13301, its code): rewards over the mean and std of their prompt's recent rewards.

    Formula: (R - mean H) / (std H + eps), H the last ``buffer_size`` rewards of the prompt, population std

    ``rewards (N,)``, N prompts; returns the new history and advantages ``(N,)``. With fewer than ``min_count`` entries:
    mean and std of this batch.
    """
    return running_advantage(history, prompts, rewards, buffer_size=buffer_size, min_count=min_count, eps=eps)
