"""Scalarisation of several objectives by preference weights, and length penalties.

Rewards are K first; NaN where a reward of non-zero weight is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_positive, check_same_shape, keep, scored
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.regression import regression_loss
from diffalign.losses.reward_combination import Weights, log_sum, tchebycheff, weighted_sum
from diffalign.losses.selection import Selection, topk


def near_target(nuisance: Tensor, *, target: float) -> Tensor:
    """Return ``1 - |nuisance / target - 1|``, largest at ``target`` (length-only PPO, arXiv:2310.03716). Any shape.

    Raises:
        ValueError: ``target`` is not positive.
    """
    check_positive(target=target)
    return 1 - (as_float(nuisance) / target - 1).abs()


def nuisance_correlation(reward: Tensor, nuisance: Tensor) -> Tensor:
    """Return Pearson's correlation over all samples that have both values, a detached scalar; 0 without spread.

    Args:
        reward: any shape; NaN where a sample could not be scored.
        nuisance: same shape.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(reward=reward, nuisance=nuisance)
    valid = scored(reward) & scored(nuisance)
    count = valid.sum()
    centred = []
    for x in (reward, nuisance):
        x = keep(x.detach().double(), valid)
        x = x - torch.where(valid, x, torch.inf).amin()  # equal values give exactly 0
        centred.append(keep(x - keep(x, valid).sum() / count, valid))
    a, b = centred
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return torch.where(scale > 0, (a * b).sum() / scale.clamp(min=torch.finfo(scale.dtype).tiny), 0.0)


class Nuisance(NamedTuple):
    """A reward with a penalty on a nuisance variable, the nuisance-only reward, and the correlation of reward and
    nuisance.
    """

    reward: Tensor
    nuisance_only: Tensor
    correlation: Tensor


@recipe("long-way", "reward", limit=156.0)
def long_way(reward: Tensor, length: Tensor, *, limit: float, spread: float) -> Nuisance:
    """A Long Way to Go (arXiv:2310.03716): a length penalty, length alone as reward, and their correlation.

    Formula: reward + spread (1 - length / limit); 1 - |length / limit - 1|; Pearson's correlation of reward and length

    ``reward + spread * (1 - length / limit)``; ``1 - |length / limit - 1|``; Pearson's correlation over the batch.
    Formulas known, 156 tokens unsure. On images the nuisance is for example brightness, saturation or file size: set
    ``limit``.

    Args:
        reward: any shape.
        length: same shape, the nuisance variable.
        limit: length without a penalty, and of the largest length-only reward.
        spread: running standard deviation of the reward.
    """
    check_positive(limit=limit, spread=spread)
    length = as_float(length)
    check_same_shape(reward=reward, length=length)
    charged = weighted_sum(torch.stack([as_float(reward), 1 - length / limit]), [1.0, spread])
    return Nuisance(charged, near_target(length, target=limit), nuisance_correlation(reward, length))


class Directed(NamedTuple):
    """Rewards projected on a preference direction, and the samples selected by them."""

    reward: Tensor
    selection: Selection


@recipe("dpa", "reward", n=1)
def dpa(rewards: Tensor, direction: Tensor, *, n: int) -> Directed:
    """DPA (arXiv:2402.18571): rewards projected on a unit vector, and the ``n`` best of each group for fine-tuning.

    Formula: sum_k v_k r_k, v = direction / |direction|; the n best of each group

    Args:
        rewards: ``(K, B, G)``.
        direction: ``(K,)``, or ``(K, B)`` with one per prompt; normalised here. In the paper angles, ``(cos, sin)``,
            written into the prompt.
        n: samples kept per prompt; the rejection sampling keeps the best.
    """
    length = direction.norm(dim=0)
    check_positive(length=length)
    unit = (direction / length).reshape(*direction.shape, *[1] * (rewards.ndim - direction.ndim))
    reward = weighted_sum(rewards, unit)
    return Directed(reward, topk(reward, n=n))


@recipe("mogfn", "reward")
def mogfn(rewards: Tensor, weights: Weights, *, exponent: float) -> Tensor:
    """MOGFN (arXiv:2210.12765): log-reward of preference weights ``w``, sampled from a Dirichlet and a condition of the
    model. :func:`mogfn_tchebycheff` is the other scalarisation, :func:`mogfn_loss` the loss on either.

    Formula: exponent sum_k w_k log r_k
    """
    check_positive(exponent=exponent)
    return exponent * log_sum(rewards, weights)


def mogfn_tchebycheff(rewards: Tensor, weights: Weights, ideal: Weights, *, exponent: float) -> Tensor:
    """The log-reward ``-beta max_k w_k (z_k - r_k)`` of MOGFN, which also reaches concave parts of a front."""
    check_positive(exponent=exponent)
    return exponent * tchebycheff(rewards, weights, ideal=ideal)


def mogfn_loss(log_forward: Tensor, log_backward: Tensor, log_reward: Tensor, log_z: Tensor) -> Tensor:
    """Trajectory balance, ``(log Z + log P_F - log P_B - log R)**2``, ``(B,)``, on sums over steps.

    On diffusion models ``P_F`` is the denoising kernel and ``P_B`` the noising one. The target is absolute: use sums
    over latent elements.
    """
    check_same_shape(log_forward=log_forward, log_backward=log_backward)
    return regression_loss(log_forward - log_backward.detach(), log_reward, log_z=log_z)
