"""Curricula by rewards in a group: filters, routing, Pareto fronts, rank agreement."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses import group_filters, policy
from diffalign.losses.advantages import group_advantage
from diffalign.losses.common import as_float, check_groups, check_positive, check_probability, keep
from diffalign.losses.rank_pairs import pairwise_mean
from diffalign.losses.ranking import pareto_rank, rank_agreement
from diffalign.losses.recipes.registry import recipe


@recipe("urpo", "reward")
def urpo(judged: Tensor, labels: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """URPO [unsure; derived from the abstract]: reward of a judge on a labelled group, ``(B,)`` in [0, 1].

    Formula: (1 + Kendall's tau of judged and labels) / 2

    Args:
        judged: ``(B, G)`` scores of the judge.
        labels: ``(B, G)`` true preference levels, larger is better.
        mask: ``(B, G)``.
    """
    return rank_agreement(judged, labels, mask=mask)


@recipe("temporal-r1", "selection")
def temporal_r1(rewards: Tensor, *, above: float = 0.0, mask: Tensor | None = None) -> Tensor:
    """Temporal-R1 [derived from the abstract]: keep prompts with varying rewards, ``(B,)`` bool. The paper's threshold
    is unknown.

    Formula: keep where the rewards of the group differ by more than `above`
    """
    return group_filters.variance(rewards, above=above, mask=mask)


@recipe("ode-data", "selection")
def ode_data(passed: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """ODE's curriculum (arXiv:2605.10832) [derived]: prompts with a pass rate strictly between 0 and 1, ``(B,)`` bool;
    the others are rewritten. ``passed (B, G)``.

    Formula: keep where 0 < pass rate < 1
    """
    return group_filters.pass_rate(passed, mask=mask)


@recipe("uniworld-v2", "selection", mean_above=0.9, std_below=0.05)
def uniworld_v2(rewards: Tensor, *, mean_above: float, std_below: float, mask: Tensor | None = None) -> Tensor:
    """UniWorld-V2's filter (arXiv:2510.16888): drop groups of mean > 0.9 *and* std < 0.05, ``(B,)`` bool.

    Formula: drop where mean R > mean_above and std R < std_below

    Its training mask drops at either: :func:`~diffalign.losses.group_filters.unsolved_and_varied`. Rewards are in
    [0, 1], the expected digit of a judge over 5.
    """
    return group_filters.not_saturated(rewards, mean_above=mean_above, std_below=std_below, mask=mask)


@recipe("parrot", "selection")
def parrot(rewards: Tensor) -> Tensor:
    """Parrot (arXiv:2401.05675): trains on the non-dominated samples of a batch only, ``(N,)`` bool.

    Formula: keep where no other sample is at least as good in every reward and better in one

    Args:
        rewards: ``(K, N)``, one row for each reward.
    """
    return (pareto_rank(rewards.T).rank == 0) & torch.isfinite(rewards).all(0)


@recipe("dypo", "policy_group", mix=0.5, beta=1.0)
def dypo(
    passed: Tensor,
    log_ratio: Tensor,
    log_ratio_ref: Tensor,
    sft: Tensor,
    *,
    mix: float,
    beta: float,
    sft_weight: float = 1.0,
) -> Tensor:
    """DYPO (arXiv:2604.08926): the loss of a prompt depends on its number of successes, ``(B,)``.

    Formula: none: SFT; some: mix GRPO + (1 - mix) mean over (success, failure) of -log sigmoid(beta (r_s - r_f)); all:
    0

    None: fine-tuning on a teacher's sample. Some: ``mix`` GRPO + (1 - ``mix``) GAL, the mean pair loss of every success
    over every failure. All: 0. 8 rollouts; the weight of the fine-tuning term is ours.

    Args:
        passed: ``(B, G)`` bool or 0 and 1.
        log_ratio: ``(B, G)`` to the rollout policy.
        log_ratio_ref: ``(B, G)`` to the reference.
        sft: ``(B,)`` loss on a teacher's sample.
        mix: share of GRPO.
        beta: of the pair loss.
        sft_weight: of the fine-tuning term.
    """
    check_groups(passed=passed, log_ratio=log_ratio, log_ratio_ref=log_ratio_ref)
    check_probability(mix=mix)
    check_positive(beta=beta)
    passed = as_float(passed)
    grpo = policy.clip(log_ratio, group_advantage(passed)).mean(1)
    gal = pairwise_mean(beta * as_float(log_ratio_ref), passed)
    none, some = ~passed.any(1), group_filters.pass_rate(passed)
    return keep(sft_weight * as_float(sft), none) + keep(mix * grpo + (1 - mix) * gal, some)


@recipe("fate-pfpo", "advantage")
def fate_pfpo(rewards: Tensor) -> Tensor:
    """FATE (arXiv:2605.11882): advantage of the Pareto rank within a group, ``(B, G)``.

    Formula: (-rank + mean rank) / (std rank + 1e-6), rank = Pareto front of the sample in its group

    Our reading: the paper's objective is unknown, its filter keeps non-dominated repaired samples.

    Args:
        rewards: ``(K, B, G)``.
    """
    if rewards.ndim != 3:
        raise ValueError(f"rewards must have shape (K, B, G), got {tuple(rewards.shape)}")
    rank = torch.stack([pareto_rank(group).rank for group in rewards.permute(1, 2, 0)])
    scored = torch.isfinite(rewards).all(0)
    return group_advantage(torch.where(scored, -as_float(rank), torch.nan))
