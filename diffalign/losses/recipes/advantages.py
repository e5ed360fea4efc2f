"""Methods that differ from GRPO in the advantage of a group, ``rewards (B, G) -> (B, G)`` unless stated otherwise.

Rewards may be NaN where a sample could not be scored. Results have no gradient; flatten them for a policy objective.
Methods that define their objective too return the loss.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from diffalign.losses.advantages import group_advantage, no_scale, usable
from diffalign.losses.baselines import given_center, max_center, virtual_center
from diffalign.losses.common import as_float, check_mask, check_not_negative, check_positive, row_mean
from diffalign.losses.policy import clip
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.scales import beta_density, mean_abs, virtual_scale


@recipe("dr-irl", "advantage")
def dr_irl(rewards: Tensor, hardness: Tensor, responsiveness: Tensor) -> Tensor:
    """DR-IRL (GRPO-S) [derived]: GRPO's advantage times a difficulty factor per prompt.

    Formula: hardness responsiveness (R - mean R) / (std R + 1e-6) in each group

    The factor multiplies the normalised advantage; before the normalisation the std would cancel it. How the paper
    measures both is not confirmed; pass them, ``(B,)`` each, not negative.
    """
    check_not_negative(hardness=hardness, responsiveness=responsiveness)
    return group_advantage(rewards) * (as_float(hardness) * as_float(responsiveness)).detach()[:, None]


@recipe("ngrpo", "policy_group", n=1, r_max=1.0, eps_low=0.16, eps_high=0.24)
def ngrpo(log_ratio: Tensor, rewards: Tensor, *, n: int, r_max: float, eps_low: float, eps_high: float) -> Tensor:
    """NGRPO (arXiv:2509.18851, its code): GRPO with a virtual sample of the best reward in the statistics and an
    asymmetric clip, ``(B G, ...)``.

    Formula: max(-A rho, -A clip(rho, 1 - eps_low, 1 + eps_high)), A = (R - m) / s with m, s over R and n samples of
    r_max

    A group of failures has advantages ``-1/sqrt(G + 1)``, a group of successes 0. No KL; 8 samples.

    Args:
        log_ratio: ``(B G,)`` or ``(B G, T)``.
        rewards: ``(B, G)``.
        n: number of virtual samples.
        r_max: their reward.
        eps_low: clip range below.
        eps_high: clip range above.
    """
    center = partial(virtual_center, n=n, r_max=r_max)
    adv = group_advantage(rewards, center=center, scale=partial(virtual_scale, n=n, r_max=r_max))
    return clip(log_ratio, adv.flatten(), eps_low=eps_low, eps_high=eps_high)


@recipe("bnpo", "advantage", floor=1e-6)
def bnpo(rewards: Tensor, *, floor: float) -> Tensor:
    """BNPO (arXiv:2506.02864, its code): centred rewards over a fitted Beta density of the success rate.

    Formula: (R - p) / f(p), p = mean R of the group, f a Beta density fitted to the p of the batch by moments

    Rewards in [0, 1]; several rewards: the mean of their advantages. Weights are bounded by ``1 / floor``. Clip ranges
    .2 and .28, 16 samples. Not TRL's ``loss_type="bnpo"``, which is ``trl-bnpo``.
    """
    return group_advantage(rewards, scale=beta_density, eps=floor)


@recipe("optimal-advantage", "advantage")
def optimal_advantage(rewards: Tensor) -> Tensor:
    """Optimal advantage (arXiv:2310.02456): Bradley-Terry on segments fits A*, which is at most 0, so the best sample
    of a group is the baseline, without discount or bootstrap. The group maximum as best action is our reading
    (derived).

    Formula: R - max R in each group
    """
    return group_advantage(rewards, center=max_center, scale=no_scale)


@recipe("contrastive-rewards", "advantage")
def contrastive_rewards(rewards: Tensor, reference: Tensor) -> Tensor:
    """Contrastive rewards (arXiv:2403.07708): reward minus the mean reward of reference samples of the prompt,
    ``reference (B, K)``; 5 of them (unsure), scored once. Without effect under group-centred advantages.

    Formula: R - mean_k R_ref,k
    """
    baseline = as_float(reference)
    baseline = baseline.masked_fill(~torch.isfinite(baseline), torch.nan).nanmean(1)
    known = torch.isfinite(baseline)[:, None].expand_as(rewards)
    return group_advantage(rewards, center=partial(given_center, baseline=baseline), scale=no_scale, mask=known)


@recipe("pipo", "advantage", lam=0.1)
def pipo(rewards: Tensor, mean: float | Tensor, history: Tensor, *, lam: float) -> Tensor:
    """PIPO (arXiv:2604.00860): a second update on the *previous* batch, scaled by the improvement after the first.

    Formula: xi G A / sum_j |A_j|, xi = (mean - mean of history) / std of history, times lam where xi < 0, A = R - mean
    R

    ``a_i = G A_i / sum |A_j|`` of that batch, times the standardised improvement ``xi = (mean - mean of history) / std
    of history``, or ``lam xi`` for a decline. The paper has lam .1, the code 0. Unbiased std (unsure).

    Args:
        rewards: ``(B, G)``, of the previous batch.
        mean: mean reward after the first update.
        history: ``(K,)``, mean rewards of the last K batches (8), at least 2.
        lam: factor of a decline.
    """
    check_not_negative(lam=lam)
    if history.ndim != 1 or len(history) < 2:
        raise ValueError(f"history must hold at least two mean rewards, shape (K,), got {tuple(history.shape)}")
    past = as_float(history.detach())
    xi = (torch.as_tensor(mean, dtype=past.dtype, device=past.device).detach() - past.mean()) / (past.std() + 1e-6)
    return group_advantage(rewards, scale=mean_abs) * torch.where(xi < 0, lam * xi, xi)


@recipe("adora", "advantage", amplify=2.0, threshold=0.5)
def adora(rewards: Tensor, success: Tensor, *, amplify: float, threshold: float) -> Tensor:
    """ADORA: doubled advantages for prompts with a success rate of at most 1/2. Constants are second-hand.

    Formula: c (R - mean R) / (std R + 1e-6), c = amplify where the success rate <= threshold, else 1

    The criteria on answer length (longer successes than failures; attenuation by .1 in the VLM setting) are left out.

    Args:
        rewards: ``(B, G)``.
        success: ``(B, G)`` bool.
        amplify: factor of hard prompts.
        threshold: success rate up to which a prompt is hard.
    """
    check_positive(amplify=amplify)
    valid = usable(rewards)
    check_mask(rewards, success)
    rate = row_mean(success, valid)
    return group_advantage(rewards) * torch.where(rate <= threshold, amplify, 1.0)[:, None]


@recipe("poise", "advantage")
def poise(rewards: Tensor, probe: Tensor) -> Tensor:
    """POISE (arXiv:2605.07579): two samples of a prompt; the baseline of each is a probe's prediction for the *other*.

    Formula: R_i - probe_{1 - i}

    ``probe (B, 2)``: prediction of the reward from the hidden features of sample i. It is the baseline of sample 1 - i
    and independent of it, hence unbiased. With the rewards themselves as probe this is leave-one-out. The probe (PCA
    and ridge, refitted on a sliding buffer) is not included.
    """
    if rewards.shape[1:] != (2,) or probe.shape != rewards.shape:
        raise ValueError(f"expected rewards and probe (B, 2), got {tuple(rewards.shape)} and {tuple(probe.shape)}")
    return group_advantage(rewards, center=partial(given_center, baseline=probe.flip(1)), scale=no_scale)


@recipe("remax", "advantage", bound=5.0)
def remax(rewards: Tensor, greedy: Tensor, *, bound: float) -> Tensor:
    """ReMax (arXiv:2310.10505, its code): reward minus that of the greedy sample, clipped.

    Formula: clip(R - R_greedy, -bound, bound)

    ``greedy`` ``(B,)`` or ``(B, G)``: on images the reward of the deterministic sample from the same initial noise. The
    code adds a KL per token to the reward.
    """
    return group_advantage(rewards, center=partial(given_center, baseline=greedy), scale=no_scale, clip=bound)
