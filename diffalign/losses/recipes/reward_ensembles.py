"""Rewards from an ensemble: ``(K, ...) -> (...)``. NaN members are left out per sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses import ensemble_uncertainty as uncertainty
from diffalign.losses import reward_ensembles as ensembles
from diffalign.losses.common import check_same_shape
from diffalign.losses.constraints import identity, lagrangian
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.reward_combination import stacked
from diffalign.losses.reward_shaping import center


@recipe("reward-ensembles", "reward", coef=0.1, unbiased=True)
def reward_ensembles(rewards: Tensor, *, coef: float | None, unbiased: bool) -> Tensor:
    """UWO and WCO (arXiv:2310.02743; their code): mean minus variance, or with ``coef=None`` the minimum.

    Formula: mean_k r_k - coef var_k r_k, or min_k r_k

    These are the settings of the PPO path (coef .1, unbiased variance). The best-of-n path has coef 1 (launcher .5)
    and the population variance: ``coef=1, unbiased=False``. K = 5.
    """
    if coef is None:
        return ensembles.worst_case(rewards)
    return ensembles.mean_var(rewards, coef=coef, unbiased=unbiased)


@recipe("freehand", "reward")
def freehand(rewards: Tensor, reference: Tensor) -> Tensor:
    """FREEHAND (arXiv:2305.14816), as an ensemble [derived]: each member centred on the reference samples, then the
    minimum. The confidence set of the theory is not included.

    Formula: min_k (r_k - mean_m ref_k,m)

    ``rewards`` ``(K, B)`` or ``(K, B, G)``, ``reference`` ``(K, B, M)``: member k on M reference samples.
    """
    if reference.ndim != 3 or len(reference) != len(rewards):
        raise ValueError(f"reference must have shape (K, B, M), got {tuple(reference.shape)} for K = {len(rewards)}")
    return ensembles.worst_case(torch.stack([center(r, ref) for r, ref in zip(rewards, reference, strict=True)]))


@recipe("reward-robust", "reward")
def reward_robust(rewards: Tensor, std: Tensor, *, weight: float) -> Tensor:
    """BRME (arXiv:2409.15360) [derived]: the most confident head's reward mixed with the worst case.

    Formula: weight r_k* + (1 - weight) min_k r_k, k* = argmin_k std_k

    ``rewards`` and ``std`` ``(K, ...)``: each head's mean and deviation. The weight is unknown: 1 is the nominal
    reward, 0 the worst case.
    """
    return ensembles.robust(rewards, ensembles.most_confident(rewards, std), weight=weight)


@recipe("dtr", "reward")
def dtr(rewards: Tensor) -> Tensor:
    """DTR's reward (arXiv:2412.09104; its code): z-scores of each member over the data set, then their mean; M = 3.

    Formula: mean_k (r_k - mean r_k) / std r_k

    Population std, no eps. The regularisation of trajectory returns is not included.
    """
    return ensembles.z_mean(rewards)


@recipe("dcppo", "reward", ridge=1.0)
def dcppo(reward: Tensor, features: Tensor, seen: Tensor, *, coef: float, ridge: float) -> Tensor:
    """DCPPO (arXiv:2305.18438) [known, derived]: a linear reward minus an elliptical bonus.

    Formula: w'phi - coef sqrt(phi' L^-1 phi), L = ridge I + sum phi phi'

    ``reward`` ``(B,)`` of a linear head on ``features`` ``(B, D)``; ``seen`` ``(N, D)``, the features of its training
    data. Dynamic choices are not included.
    """
    return uncertainty.lower_bound(reward, uncertainty.elliptical(features, seen, ridge=ridge), coef=coef)


class Exploring(NamedTuple):
    """The reward with its bonus, ``(...)``, and the loss of the coefficient, ``()``."""

    reward: Tensor
    dual_loss: Tensor


@recipe("maxinforl", "reward", gain=uncertainty.information_gain)
def maxinforl(
    rewards: Tensor,
    target_rewards: Tensor,
    log_coef: Tensor,
    *,
    gain: Callable[[Tensor], Tensor],
) -> Exploring:
    """MaxInfoRL (arXiv:2412.12098; its code): the ensemble's mean plus its expected information gain.

    Formula: mean_k r_k + exp(log_coef) gain(r); dual: log_coef sg(gain(policy) - gain(target))

    Adaptive coefficient: minimising ``dual_loss`` over ``log_coef`` (0 at the start, Adam) lowers it while the policy's
    samples have a larger gain than those of its moving average. With ``gain=ensemble_variance`` the reward is
    ``mean_var`` with the negative coefficient ``-exp(log_coef)``. The code also normalises the gain by running
    statistics; the soft actor-critic is not included.

    Args:
        rewards: ``(K, ...)``, members on samples of the policy.
        target_rewards: ``(K, ...)``, members on samples of its moving average.
        log_coef: ``()``, a parameter; gradient through ``dual_loss`` only.
        gain: information measure, ``(K, ...) -> (...)``.
    """
    gained, expected = gain(rewards), gain(target_rewards)
    reward = ensembles.ensemble_mean(rewards) + log_coef.detach().exp() * gained
    return Exploring(reward, lagrangian(log_coef, gained.nanmean(), expected.nanmean(), squash=identity))


@recipe("mbrl-penalties", "reward", measure=uncertainty.mixture_std)
def mbrl_penalties(means: Tensor, stds: Tensor, *, coef: float, measure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Offline model-based penalties (arXiv:2110.04135): mean minus one of several uncertainties.

    Formula: mean_k r_k - coef u(means, stds)

    ``measure`` is one of :mod:`diffalign.losses.ensemble_uncertainty`: ``max_aleatoric``, ``max_pairwise``,
    ``mixture_std``, ``mixture_variance``, ``leave_one_out_kl``, or ``partial(likelihood_variance, value=...)``.
    Measure, coefficient and number of members must be tuned together (same paper), so the coefficient has no default.

    ``means`` and ``stds`` are ``(K, ...)``; without predicted stds use ``mean_std`` or ``mean_var``.
    """
    check_same_shape(means=means, stds=stds)
    return uncertainty.lower_bound(stacked(means).mean(0), measure(means, stds), coef=coef)
