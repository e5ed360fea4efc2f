"""Objectives on ranked groups.

Groups are ``(B, G)``, tokens or denoising steps ``(B, G, T)``; ``log_ratio`` is a log-ratio to the reference, of tokens
or a surrogate (:mod:`diffalign.losses.surrogates`). One value per group, unreduced.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from diffalign.losses.common import (
    check_not_negative,
    check_positive,
    check_same_shape,
    keep,
    scored,
)
from diffalign.losses.listwise import best_first, gap_temperature, group_softmax, plackett_luce, target_kl
from diffalign.losses.log_ratio import log_ratio as summed
from diffalign.losses.log_ratio import mean_log_ratio, token_log_ratio
from diffalign.losses.rank_pairs import dcg_weight, ordered_pairs, pairwise_sum, rank
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.regularizers import k3


@recipe("lipo", "listwise", beta=0.05)
def lipo(log_ratio: Tensor, labels: Tensor, *, beta: float, mask: Tensor | None = None) -> Tensor:
    """LiPO-lambda (arXiv:2402.01878): all ordered pairs, weighted by the change of discounted gain on exchange, with
    ranks by *current scores*, ``(B,)``.

    Formula: sum_{y_i > y_j} |2**y_i - 2**y_j| |1 / ln(1 + rank_i) - 1 / ln(1 + rank_j)| softplus(-beta (r_i - r_j))

    Natural logarithm; ties of scores (all of them, at the start) are ordered by the labels [ours].

    Args:
        log_ratio: ``(B, G)`` summed log-ratios to the reference.
        labels: ``(B, G)`` in [0, 1], larger is better (win rates by a reward model there).
        beta: scale of the scores.
        mask: ``(B, G)``.
    """
    check_positive(beta=beta)
    scores = beta * log_ratio
    weight = dcg_weight(labels, rank(keep(scores, scored(labels, mask)), labels, mask))
    return pairwise_sum(scores, labels, weight=weight, mask=mask)


@recipe("rankdpo", "listwise", beta=5000.0)
def rankdpo(log_ratio: Tensor, labels: Tensor, *, beta: float, mask: Tensor | None = None) -> Tensor:
    """RankDPO (arXiv:2410.18013, algorithm 2): LiPO's weights with ranks by *labels*, on surrogates, ``(B,)``.

    Formula: sum_{y_i > y_j} |2**y_i - 2**y_j| |1 / ln(1 + rank_i) - 1 / ln(1 + rank_j)| softplus(-beta (r_i - r_j))

    Each image of a group has its own noise at the shared t (``draws.own_noise``). In the paper's ablation most of the
    gain is from the data (DPG 78.84 of 79.26). beta here is twice the paper's, which has no 1/2 in its error
    difference; its value is not published, 5000 is Diffusion-DPO's [unsure].

    Args:
        log_ratio: ``(B, G)`` surrogates, mean over latent elements.
        labels: ``(B, G)`` in [0, 1]: share of comparisons won, over scorers and other images of the prompt.
        beta: scale of the scores.
        mask: ``(B, G)``.
    """
    check_positive(beta=beta)
    weight = dcg_weight(labels, rank(labels, mask=mask))
    return pairwise_sum(beta * log_ratio, labels, weight=weight, mask=mask)


def _one_sided(ratio: Tensor, best: Tensor, valid: Tensor) -> Tensor:
    """TRPA without a pair: ``-log sigmoid`` of the best log-ratios and of minus the others, mean per group."""
    loss = keep(F.softplus(torch.where(best, -ratio, ratio)), valid)
    return loss.sum(1) / valid.sum(1).clamp(min=1)


@recipe("trpa", "listwise", beta=0.1, top_scale=2.5, kl_coef=0.001)
def trpa(
    logp: Tensor,
    ref: Tensor,
    old: Tensor,
    levels: Tensor,
    *,
    beta: float,
    top_scale: float,
    kl_coef: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Trust region preference approximation (arXiv:2504.04524, the form of the code): every pair of two levels of a
    group, on *mean* log-ratios, plus a KL to the sampling policy.

    Formula: mean over cross-level pairs of softplus(-beta k (r_i - r_j)) + kl_coef k3, k = top_scale if i has level 1,
    else 1

    Pairs won by level 1 have the factor ``top_scale`` inside the link. Losses are scaled so that the mean over groups
    is the mean over all pairs of the batch. Without a pair in the batch, level 1 is raised and the others lowered,
    without beta (the code's fallback). The KL is k3 to the sampling policy; the code's root form is left out.

    Args:
        logp: ``(B, G, T)`` log-probs of the policy, with gradient.
        ref: same shape, the reference's.
        old: same shape, those at sampling.
        levels: ``(B, G)``, 1 = best.
        beta: scale of the log-ratios.
        top_scale: factor of the best level.
        kl_coef: weight of the KL.
        mask: ``(B, G, T)``.
    """
    check_positive(beta=beta, top_scale=top_scale)
    check_not_negative(kl_coef=kl_coef)
    shape, flat_mask = logp.shape, None if mask is None else mask.flatten(0, 1)
    ratio = mean_log_ratio(logp.flatten(0, 1), ref.flatten(0, 1), mask=flat_mask).unflatten(0, shape[:2])
    drift = keep(k3(token_log_ratio(logp.flatten(0, 1), old.flatten(0, 1), mask=flat_mask)), flat_mask)
    drift = drift.reshape(shape[0], -1)
    tokens = torch.ones_like(drift) if mask is None else mask.reshape(shape[0], -1).to(drift.dtype)
    valid = scored(levels) if mask is None else scored(levels) & mask.bool().any(2)
    best = levels == 1
    scale = torch.where(best, top_scale, 1.0)
    pairs = ordered_pairs(levels, valid).sum()
    paired = pairwise_sum(beta * ratio, -levels, scale=scale, mask=valid) * shape[0] / pairs.clamp(min=1)
    loss = torch.where(pairs > 0, paired, _one_sided(ratio, best, valid))
    return loss + kl_coef * drift.sum(1) / tokens.sum(1).clamp(min=1)


@recipe("brain", "listwise", gamma=1.0)
def brain(
    logp: Tensor, ref: Tensor, proposal: Tensor, rewards: Tensor, *, gamma: float, mask: Tensor | None = None
) -> Tensor:
    """BRAIn (arXiv:2402.02479): KL from a self-normalised posterior to the policy over the samples of a group. gamma 1
    and 32 samples [unsure].

    Formula: KL(softmax(ref + R / gamma - q) || softmax(logp - q)), q = log-prob of the proposal

    On diffusion models all four terms are surrogates at one (t, noise) per prompt.

    Args:
        logp: ``(B, G)`` summed log-probs of the policy, with gradient.
        ref: same shape, the reference's.
        proposal: same shape, those of the sampling policy, q.
        rewards: ``(B, G)``; NaN is left out.
        gamma: temperature of the reward.
        mask: ``(B, G)``.
    """
    check_positive(gamma=gamma)
    check_same_shape(logp=logp, ref=ref, proposal=proposal, rewards=rewards)
    valid = scored(rewards, mask)
    target = group_softmax(keep(ref, valid) + keep(rewards, valid) / gamma - keep(proposal, valid), valid)
    return target_kl(keep(logp, valid) - keep(proposal.detach(), valid), target, mask=valid)


@recipe("pro", "listwise", sft_coef=0.05)
def pro(logp: Tensor, rewards: Tensor, *, sft_coef: float, mask: Tensor | None = None) -> Tensor:
    """Preference ranking optimisation (arXiv:2306.17492, the form of the code): staged softmax on *mean* log-probs
    without a reference, temperatures from reward gaps, plus the *summed* NLL of the best sample. c = .05 [known].

    Formula: sum_k (logsumexp_{i >= k} tau_ki s_i - tau_kk s_k) - c (n - 1)**2 sum_t logp_best, tau_ki = R_k - R_i,
    tau_kk = max_i tau_ki, s = mean_t logp

    Denoising errors are not comparable between images: pass per-step log-ratios for ``logp`` there.

    Args:
        logp: ``(B, G, T)`` log-probs of the policy, with gradient.
        rewards: ``(B, G)``; NaN is left out. n is the number of valid samples of the group.
        sft_coef: c.
        mask: ``(B, G, T)``.
    """
    check_not_negative(sft_coef=sft_coef)
    shape, flat, flat_mask = logp.shape[:2], logp.flatten(0, 1), None if mask is None else mask.flatten(0, 1)
    valid = scored(rewards, None if mask is None else mask.bool().any(2))
    order = best_first(rewards, valid)
    mean, total = (f(flat, mask=flat_mask).unflatten(0, shape).gather(1, order) for f in (mean_log_ratio, summed))
    ranked = valid.gather(1, order)
    temperature = gap_temperature(rewards.gather(1, order), ranked)
    nll = -keep(total, ranked)[:, 0]
    rounds = (ranked.sum(1) - 1).clamp(min=0) ** 2
    return plackett_luce(mean, temperature=temperature, mask=ranked) + sft_coef * (rounds * nll)
