"""Objectives as pure functions of tensors, for language models and diffusion alike; see docs/losses.md.

Functions of short names (``clip``, ``logistic``, ``epsilon``) are called through their module: ``losses.policy.clip``,
``losses.preference.logistic``, ``losses.surrogates.epsilon``.
"""

from __future__ import annotations

from diffalign.losses import listwise, policy, preference, rank_pairs, surrogates, time_weights, unpaired
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
    row_mean,
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
from diffalign.losses.label_noise import noise_mixture, robust_noise, soft_label, symmetric_noise
from diffalign.losses.listwise import plackett_luce, target_kl
from diffalign.losses.log_ratio import log_ratio, mean_log_ratio, token_log_ratio
from diffalign.losses.margin_weights import margin_adaptive_weight
from diffalign.losses.metrics import policy_metrics, preference_metrics
from diffalign.losses.multi_reward import advantage_of_sum, sum_of_advantages
from diffalign.losses.preference import pair_margin
from diffalign.losses.rank_pairs import dcg_weight, pairwise_mean, pairwise_sum
from diffalign.losses.ratio_links import clip_link, js_link, power_link
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
    "clip_link",
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
    "js_link",
    "k1",
    "k2",
    "k3",
    "keep",
    "latent_mean",
    "latent_sum",
    "listwise",
    "log_prob_difference",
    "log_ratio",
    "loo_center",
    "margin_adaptive_weight",
    "masked_const",
    "masked_mean",
    "masked_seq_mean",
    "masked_seq_sum",
    "mean_center",
    "mean_log_ratio",
    "no_center",
    "no_scale",
    "noise_mixture",
    "own_noise",
    "pair_margin",
    "pairwise_mean",
    "pairwise_sum",
    "plackett_luce",
    "plain_log_ratio",
    "policy",
    "policy_metrics",
    "power_link",
    "preference",
    "preference_metrics",
    "rank_pairs",
    "regression_loss",
    "robust_noise",
    "row_mean",
    "running_advantage",
    "shared_noise",
    "soft_label",
    "sum_of_advantages",
    "surrogates",
    "symmetric_noise",
    "target_kl",
    "tempflow_weights",
    "time_weights",
    "token_log_ratio",
    "uniform_weights",
    "unpaired",
    "update_moments",
    "usable",
    "velocity_kl",
    "winner_loser",
    "zero_variance_share",
]
