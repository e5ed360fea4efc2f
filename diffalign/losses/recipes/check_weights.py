"""Rewards from checklists. ``passed (..., N, U)``: U checks of N samples of one prompt; 1, 0, or NaN."""

from __future__ import annotations

import math

from torch import Tensor

from diffalign.losses.advantages import group_advantage, no_scale
from diffalign.losses.check_weights import check_weights, global_reward, local_reward
from diffalign.losses.recipes.registry import recipe


@recipe("verpo", "advantage", alpha=1.0, sigma=0.1, delta=1e-6)
def verpo(passed: Tensor, turns: Tensor, *, beta: float, gamma: float, **weight: float) -> Tensor:
    """VeRPO (arXiv:2601.03525) [second-hand]: advantage of passing all checks plus ``beta`` times that of
    the weighted checks, ``(B, N)``; both centred per group, without a std.

    Formula: A(1[all passed] gamma**turns) + beta A(sum_j w_j passed_j), w_j = exp(-alpha rate_j) / density of rates
    near rate_j

    The paper's constants are unknown: alpha, sigma and delta are ours, beta and gamma have no default.

    Args:
        passed: ``(B, N, U)``.
        turns: ``(B, N)``, attempts or denoising steps of each sample.
        beta: weight of the checks.
        gamma: discount per turn of the reward for passing all checks.
        weight: settings of :func:`~diffalign.losses.check_weights.check_weights`.
    """
    weights = check_weights(passed, **weight)
    whole = group_advantage(global_reward(passed, turns, gamma=gamma), scale=no_scale)
    return whole + beta * group_advantage(local_reward(passed, weights), scale=no_scale)


@recipe("ace-rl", "reward", alpha=0.0, sigma=math.inf, delta=0.0)
def ace_rl(passed: Tensor, *, alpha: float, sigma: float, delta: float) -> Tensor:
    """ACE-RL (arXiv:2509.04903) [derived]: the satisfied share of a prompt's checklist, ``(..., N)``.

    Formula: mean_j passed_j

    Equal weights. The checklist and its judge belong to a reward plugin; the length term is unconfirmed and left out.
    """
    return local_reward(passed, check_weights(passed, alpha=alpha, sigma=sigma, delta=delta))
