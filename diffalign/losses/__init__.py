"""Objectives as pure functions of tensors, for language models and diffusion alike; see docs/losses.md.

Functions of short names (``clip``, ``logistic``, ``epsilon``) are called through their module: ``losses.policy.clip``,
``losses.unpaired.logistic``, ``losses.surrogates.epsilon``.
"""

from __future__ import annotations

from diffalign.losses import listwise, policy, rank_pairs, surrogates, time_weights, unpaired
from diffalign.losses.advantages import (
    batch_std,
    group_advantage,
    group_std,
    has_spread,
    loo_center,
    mean_center,
    no_center,
    no_scale,
    usable,
    zero_variance_share,
)
from diffalign.losses.common import (
    Moments,
    as_float,
    empty_moments,
    expand_rows,
    keep,
    masked_const,
    masked_mean,
    masked_seq_mean,
    masked_seq_sum,
    update_moments,
)
from diffalign.losses.diffusion import (
    cps_log_ratio,
    cps_scaled,
    dt_scaled_kl,
    gaussian_kl,
    gaussian_log_prob,
    guard_log_ratio,
    latent_mean,
    latent_sum,
    log_prob_difference,
    plain_log_ratio,
    velocity_kl,
)
from diffalign.losses.draws import average_inside, average_outside, own_noise, shared_noise, winner_loser
from diffalign.losses.listwise import plackett_luce, target_kl
from diffalign.losses.metrics import policy_metrics
from diffalign.losses.multi_reward import advantage_of_sum, sum_of_advantages
from diffalign.losses.rank_pairs import dcg_weight, pairwise_mean, pairwise_sum
from diffalign.losses.regression import regression_loss
from diffalign.losses.regularizers import k1, k2, k3
from diffalign.losses.running import History, running_advantage
from diffalign.losses.step_weights import guard_weights, tempflow_weights, uniform_weights

__all__ = [
    "History",
    "Moments",
    "advantage_of_sum",
    "as_float",
    "average_inside",
    "average_outside",
    "batch_std",
    "cps_log_ratio",
    "cps_scaled",
    "dcg_weight",
    "dt_scaled_kl",
    "empty_moments",
    "expand_rows",
    "gaussian_kl",
    "gaussian_log_prob",
    "group_advantage",
    "group_std",
    "guard_log_ratio",
    "guard_weights",
    "has_spread",
    "k1",
    "k2",
    "k3",
    "keep",
    "latent_mean",
    "latent_sum",
    "listwise",
    "log_prob_difference",
    "loo_center",
    "masked_const",
    "masked_mean",
    "masked_seq_mean",
    "masked_seq_sum",
    "mean_center",
    "no_center",
    "no_scale",
    "own_noise",
    "pairwise_mean",
    "pairwise_sum",
    "plackett_luce",
    "plain_log_ratio",
    "policy",
    "policy_metrics",
    "rank_pairs",
    "regression_loss",
    "running_advantage",
    "shared_noise",
    "sum_of_advantages",
    "surrogates",
    "target_kl",
    "tempflow_weights",
    "time_weights",
    "uniform_weights",
    "unpaired",
    "update_moments",
    "usable",
    "velocity_kl",
    "winner_loser",
    "zero_variance_share",
]
