"""Policy-gradient methods with their surrogate, advantage and mask.

``log_ratio`` is log-prob minus log-prob at rollout, ``(B,)`` or ``(B, T)``, per token or denoising step. Clip ranges
are those of tokens: with a mean over latent elements .2 becomes about 1e-4. Results are unreduced, like ``log_ratio``,
unless stated otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.advantages import group_advantage, group_std
from diffalign.losses.baselines import median_center
from diffalign.losses.common import as_float, check_not_negative, check_same_shape, keep
from diffalign.losses.constraints import squared_hinge
from diffalign.losses.discriminative import discriminative, positive_weights
from diffalign.losses.policy import clip
from diffalign.losses.policy_pairs import pair_joint, reward_gap
from diffalign.losses.policy_soft import target, target_ratio
from diffalign.losses.recipes.registry import recipe


@recipe("drpo-decoupled", "policy_group", tau=10.0, lam=0.1, kl_coef=1e3, kl_bound=1e-4)
def drpo_decoupled(
    scores: Tensor,
    old: Tensor,
    positive: Tensor,
    quality: Tensor,
    *,
    tau: float,
    lam: float,
    kl_coef: float,
    kl_bound: float,
) -> Tensor:
    """DRPO (arXiv:2510.04474): positives, weighted by their quality, against the log-sum-exp of the negatives,
    ``(B,)``.

    Formula: -sum_pos w_i (u_i - tau log sum_neg exp(u_j / tau)) + kl_coef relu(KL - kl_bound)**2 / 2, w_i ~
    exp(quality_i / lam)

    Every prompt's loss includes the batch's KL penalty, so the plain mean over *all* prompts, also those with one
    outcome, is the paper's loss. The KL is the k1 estimate of KL(old || policy), mean of ``old - scores``.

    Args:
        scores: ``(B, G)``, mean log-prob of each sample under the policy.
        old: ``(B, G)``, the same at rollout.
        positive: ``(B, G)`` bool.
        quality: ``(B, G)``, a second reward (1 - length / longest).
        tau: temperature of the negatives.
        lam: temperature of the qualities.
        kl_coef: weight of the squared hinge.
        kl_bound: KL without a penalty.
    """
    check_same_shape(scores=scores, old=old)
    kl = (as_float(old.detach()) - as_float(scores)).mean()
    weight = positive_weights(quality, positive, lam=lam)
    return discriminative(scores, positive, tau=tau, weight=weight) + squared_hinge(kl, kl_bound, coef=kl_coef)


@recipe("p3o", "policy_group", kl_coef=0.01, eps=0.2, cap=10.0)
def p3o(
    log_ratio: Tensor,
    rewards: Tensor,
    kl_log_ratio: Tensor,
    *,
    kl_coef: float,
    eps: float,
    cap: float,
    scale: float | Tensor | None = None,
) -> Tensor:
    """P3O (arXiv:2310.00212), second version with the joint clip, the form of the original trainer, ``(B,)``.

    Formula: max(-q c d, -q c clamp(d, -eps, eps)) / 2, d = x_0 - x_1, q = R_0 - R_1 - kl_coef (r_0 - r_1), c =
    clamp(exp(x_0 + x_1), 1/cap, cap)

    In the paper rewards are divided by their running std and clipped to +-10. Arguments: ``log_ratio (B, 2)``,
    ``rewards (B, 2)``, ``kl_log_ratio (B, 2)`` to the reference; the rest as in :mod:`diffalign.losses.policy_pairs`.
    """
    return pair_joint(
        log_ratio, reward_gap(rewards, kl_log_ratio=kl_log_ratio, kl_coef=kl_coef, scale=scale), eps=eps, cap=cap
    )


@recipe("retool", "policy", eps=0.2)
def retool(log_ratio: Tensor, adv: Tensor, *, mask: Tensor, eps: float) -> Tensor:
    """ReTool (arXiv:2504.11536): PPO with a mask on tool output; rewards +-1, no KL.

    Formula: max(-A rho, -A clip(rho, 1 - eps, 1 + eps)) on the policy's own tokens

    Args:
        log_ratio: ``(B, T)``.
        adv: ``(B,)`` or ``(B, T)``.
        mask: ``(B, T)`` bool, False for tool output and deterministic sampler steps.
        eps: clip range.
    """
    return clip(log_ratio, adv, eps_low=eps, mask=mask)


@recipe("props", "regularizer", eps=0.2, kl_coef=0.1)
def props(log_ratio: Tensor, kl: Tensor, *, eps: float, kl_coef: float, mask: Tensor | None = None) -> Tensor:
    """PROPS (arXiv:2311.08290): a proposal policy is trained to sample under-represented data. Settings are unsure.

    Formula: max(rho, clip(rho, 1 - eps, 1 + eps)) + kl_coef KL(policy || proposal)

    The clipped surrogate with advantage -1 on existing data lowers their probability; ``kl`` bounds the distance to the
    policy.

    Args:
        log_ratio: log-prob under the proposal minus that under the policy.
        kl: like ``log_ratio``, KL(policy || proposal), with gradient.
        eps: clip range.
        kl_coef: weight of the KL.
        mask: shape of ``log_ratio``.
    """
    check_same_shape(log_ratio=log_ratio, kl=kl)
    check_not_negative(kl_coef=kl_coef)
    away = clip(log_ratio, torch.full_like(log_ratio, -1.0), eps_low=eps, mask=mask)
    return away + kl_coef * keep(kl, mask)


@recipe("brrl", "policy_group", eps=0.3, tau=1e-4)
def brrl(
    log_ratio: Tensor, rewards: Tensor, *, eps: float, tau: float, std_eps: float = 1e-6, mask: Tensor | None = None
) -> Tensor:
    """Bounded-ratio RL (arXiv:2604.18578), its group form GBPO: the ratio is regressed onto a bounded target.

    Formula: |A| |rho - g|, g = 1 - eps + 2 eps sigmoid(((R - median R) / std R) / tau), A of GRPO

    The weight is GRPO's advantage; the target uses the reward minus the *median*, over the same std. tau is 1e-4 in the
    script, 1.0 in the yaml.

    Args:
        log_ratio: ``(B G,)`` or ``(B G, T)``.
        rewards: ``(B, G)``.
        eps: largest distance of the target from 1.
        tau: sharpness of the target.
        std_eps: added to the std.
        mask: shape of ``log_ratio``.
    """
    adv = group_advantage(rewards, scale=group_std, eps=std_eps)
    score = group_advantage(rewards, center=median_center, scale=group_std, eps=std_eps)
    goal = target_ratio(score.flatten(), eps_low=eps, tau=tau)
    return target(log_ratio, adv.flatten(), goal=goal, mask=mask)
