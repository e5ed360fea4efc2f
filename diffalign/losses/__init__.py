"""Objectives as pure functions of tensors, for language models and diffusion alike; see docs/losses.md.

Functions of short names (``clip``, ``logistic``, ``epsilon``) are called through their module: ``losses.policy.clip``,
``losses.preference.logistic``, ``losses.surrogates.epsilon``.
"""

from __future__ import annotations

from diffalign.losses import (
    bounded_bias,
    budgets,
    consistency,
    discriminative,
    entropy,
    gae,
    listwise,
    policy,
    policy_off,
    policy_pairs,
    preference,
    rank_pairs,
    set_advantages,
    surrogates,
    time_weights,
    unpaired,
)
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
from diffalign.losses.baselines import (
    counted_center,
    counted_std,
    given_center,
    max_center,
    median_center,
    virtual_center,
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
from diffalign.losses.nash import nash_advantage, opponent_mean
from diffalign.losses.preference import pair_margin
from diffalign.losses.rank_pairs import dcg_weight, pairwise_mean, pairwise_sum
from diffalign.losses.ratio_links import clip_link, js_link, power_link
from diffalign.losses.regression import regression_loss
from diffalign.losses.regularizers import k1, k2, k3
from diffalign.losses.risk import risk_advantage, share_by_merit
from diffalign.losses.running import History, running_advantage
from diffalign.losses.scales import beta_density, mean_abs, virtual_scale
from diffalign.losses.step_weights import guard_weights, tempflow_weights, uniform_weights
from diffalign.losses.subset import subset_log_prob
from diffalign.losses.tree import backed_up, chain_advantage, sibling_advantage, tree_advantage

__all__ = [
    "History",
    "Moments",
    "advantage_of_sum",
    "as_float",
    "average_inside",
    "average_outside",
    "backed_up",
    "batch_std",
    "beta_density",
    "bounded_bias",
    "budgets",
    "chain_advantage",
    "clip_link",
    "consistency",
    "counted_center",
    "counted_std",
    "cps_log_ratio",
    "cps_scaled",
    "dcg_weight",
    "discriminative",
    "dt_scaled_kl",
    "empty_moments",
    "entropy",
    "expand_rows",
    "gae",
    "gaussian_kl",
    "gaussian_log_prob",
    "given_center",
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
    "max_center",
    "mean_abs",
    "mean_center",
    "mean_log_ratio",
    "median_center",
    "nash_advantage",
    "no_center",
    "no_scale",
    "noise_mixture",
    "opponent_mean",
    "own_noise",
    "pair_margin",
    "pairwise_mean",
    "pairwise_sum",
    "plackett_luce",
    "plain_log_ratio",
    "policy",
    "policy_metrics",
    "policy_off",
    "policy_pairs",
    "power_link",
    "preference",
    "preference_metrics",
    "rank_pairs",
    "regression_loss",
    "risk_advantage",
    "robust_noise",
    "row_mean",
    "running_advantage",
    "set_advantages",
    "share_by_merit",
    "shared_noise",
    "sibling_advantage",
    "soft_label",
    "subset_log_prob",
    "sum_of_advantages",
    "surrogates",
    "symmetric_noise",
    "target_kl",
    "tempflow_weights",
    "time_weights",
    "token_log_ratio",
    "tree_advantage",
    "uniform_weights",
    "unpaired",
    "update_moments",
    "usable",
    "velocity_kl",
    "virtual_center",
    "virtual_scale",
    "winner_loser",
    "zero_variance_share",
]
