"""Policy-gradient methods for off-policy samples, and imitation.

Conventions as in :mod:`diffalign.losses.recipes.policy`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.advantages import group_advantage, no_scale
from diffalign.losses.common import as_float, check_not_negative, check_same_shape, expand_rows, keep
from diffalign.losses.policy import ratio, reinforce
from diffalign.losses.policy_off import awr, focal_factor, halfway_gap, mixture, shaped
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.regularizers import k3


@recipe("rl-plus", "off_policy", gamma=0.5)
def rl_plus(
    logp: Tensor, old: Tensor, adv: Tensor, external: Tensor, *, gamma: float, mask: Tensor | None = None
) -> Tensor:
    """RL-PLUS (arXiv:2508.00222): the plain ratio on own samples, a mixture ratio and a focal factor on external ones.

    Formula: own samples: -A rho; external: -A (1 - p)**gamma 2 p / (p_old + (p_old + 1) / 2)

    In the released code the behaviour probability of external data is the policy's own ``old``. No clip, no std in the
    advantage; 7 own and 1 external sample in a group. For token probabilities; densities need ``gamma=0``.

    Args:
        logp: ``(B, T)``, log-prob under the policy.
        old: ``(B, T)``, at rollout.
        adv: ``(B,)`` or ``(B, T)``.
        external: ``(B,)`` bool.
        gamma: exponent of the focal factor.
        mask: ``(B, T)``.
    """
    old, adv = keep(old.detach(), mask), keep(expand_rows(adv, logp), mask)
    x = keep(logp, mask) - old
    focal = focal_factor(keep(logp, mask), gamma=gamma) if gamma else 1.0
    foreign = mixture(x, adv * focal, gap=halfway_gap(old), mask=mask)
    return torch.where(expand_rows(external.bool(), x), foreign, ratio(x, adv, mask=mask))


@recipe("omniopd", "policy_group", prior=1.0, prior_mean=0.5, kl_coef=0.01)
def omniopd(
    log_ratio: Tensor,
    kl_log_ratio: Tensor,
    similarity: Tensor,
    audited: Tensor,
    *,
    prior: float,
    prior_mean: float,
    kl_coef: float,
    mask: Tensor | None = None,
) -> Tensor:
    """OmniOPD (arXiv:2606.01476), derived from the abstract; all settings are ours (unsure).

    Formula: audited: -R log_ratio, R = (prior prior_mean + sum_k similarity_k) / (prior + K); elsewhere kl_coef k3

    The reward of a student chunk at an audited position is its mean similarity to the teacher's chunks, shrunk to a
    prior; the other tokens have a k3 penalty to the base model. One teacher chunk, exact match and ``prior = 0`` is an
    exact-match reward.

    Args:
        log_ratio: ``(B, T)``, to the policy at rollout.
        kl_log_ratio: ``(B, T)``, to the base model, with gradient.
        similarity: ``(B, K)`` in [0, 1], of the student's chunk to K teacher samples.
        audited: ``(B, T)`` bool, tokens of the audited chunk.
        prior: weight of the prior in samples.
        prior_mean: its mean.
        kl_coef: weight of the KL elsewhere.
        mask: ``(B, T)``.
    """
    check_not_negative(prior=prior, kl_coef=kl_coef)
    similarity = as_float(similarity)
    reward = (prior * prior_mean + similarity.sum(1)) / (prior + similarity.shape[1])
    pull = reinforce(log_ratio, reward, mask=mask)
    return torch.where(audited.bool(), pull, keep(kl_coef * k3(keep(kl_log_ratio, mask)), mask))


@recipe("critique-grpo", "policy_group", gamma=0.1)
def critique_grpo(
    log_ratio: Tensor, logp: Tensor, rewards: Tensor, refined: Tensor, *, gamma: float, mask: Tensor | None = None
) -> Tensor:
    """Critique-GRPO (arXiv:2506.03106): refinements after a critique are added to the group, ``(B G, T)``.

    Formula: responses: -A rho; refinements: -A q / (q + gamma), q = exp(logp), A = R - mean R over both

    Advantages over responses and refinements together, without a std. Responses by their plain ratio (the released
    script removes the clip), refinements by ``q / (q + gamma)``. Reduce by a constant length (``masked_const``).

    Args:
        log_ratio: ``(B G, T)``, to the policy at rollout.
        logp: ``(B G, T)``, log q: the log-prob of a token, or for a density the log-ratio to the reference.
        rewards: ``(B, G)``, of responses and refinements.
        refined: ``(B, G)`` bool.
        gamma: q of the largest gradient of a refinement.
        mask: ``(B G, T)``.
    """
    check_same_shape(rewards=rewards, refined=refined)
    adv = group_advantage(rewards, scale=no_scale).flatten()
    own = ratio(log_ratio, adv, mask=mask)
    return torch.where(expand_rows(refined.bool().flatten(), own), shaped(logp, adv, gamma=gamma, mask=mask), own)


@recipe("famo2o", "off_policy", max_weight=100.0)
def famo2o(logp: Tensor, adv: Tensor, coefficient: Tensor, *, max_weight: float, mask: Tensor | None = None) -> Tensor:
    """FamO2O (arXiv:2310.17966): imitation weighted by the advantage, with an inverse temperature c as input of the
    network, set at inference. c = 0 is behaviour cloning. The learned choice of c per state is left out.

    Formula: -min(exp(A c), max_weight) logp

    Args:
        logp: ``(B,)`` or ``(B, T)``, log-prob, or minus a denoising error.
        adv: as in :mod:`diffalign.losses.policy`.
        coefficient: ``(B,)``, c >= 0, sampled per sample.
        max_weight: largest weight, that of IQL.
        mask: shape of ``logp``.
    """
    check_not_negative(coefficient=coefficient)
    tilted = expand_rows(adv, logp) * expand_rows(coefficient, logp)
    return awr(logp, tilted, max_weight=max_weight, mask=mask)
