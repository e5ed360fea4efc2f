"""Methods with rewards of one trajectory at several budgets: exits of a chain of thought, or of a sampler."""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.advantages import group_advantage, no_scale
from diffalign.losses.budgets import budget_baseline, budget_returns, decay_by_hits, subgroup_offset
from diffalign.losses.recipes.registry import recipe


@recipe("s-grpo-early-exit", "advantage")
def s_grpo(correct: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """S-GRPO (arXiv:2505.07686): the exits of one trajectory are the group, ``(B, S)``. Centred, without a std
    (unsure). On images exits are sampling steps.

    Formula: r - mean r over the exits, r = 2**-(n - 1) for the n-th correct exit, 0 for wrong ones

    Args:
        correct: ``(B, S)`` bool, exits in order.
        mask: ``(B, S)``, 1 where there is an exit.
    """
    return group_advantage(decay_by_hits(correct, mask=mask), scale=no_scale, mask=mask)


@recipe("hbpo", "advantage", longest=4096.0)
def hbpo(rewards: Tensor, budget: Tensor, *, longest: float, mask: Tensor | None = None) -> Tensor:
    """HBPO (arXiv:2507.15844): GRPO over all samples of a prompt plus the mean reward of each budget's samples minus
    the budget's target, ``(B, G)``.

    Formula: (R - mean R) / std R + mean of R at the sample's budget b - 4 cos(pi b / (2 longest))

    The released code adds the second term twice. Budgets there: 512, 1024, 2048, 2560 of 4096; on images a budget is a
    number of sampling steps.

    Args:
        rewards: ``(B, G)``.
        budget: ``(B, G)``.
        longest: largest cost.
        mask: ``(B, G)``.
    """
    return group_advantage(rewards, mask=mask) + subgroup_offset(rewards, budget, longest=longest, mask=mask)


@recipe("brpo", "advantage")
def brpo(rewards: Tensor, prob: Tensor) -> Tensor:
    """BRPO (arXiv:2505.13438): the return to go from each budget minus a baseline from the sample's earlier rewards and
    the group's mean, ``(B, G, S)``. One budget is GRPO without a std. 4 budgets in the paper.

    Formula: g_s - (s / S) v_own - ((S - s) / S) v_group, g_s = sum_{k >= s} P_k R_k

    Args:
        rewards: ``(B, G, S)``, reward if stopped at budget s: of the clean image predicted there.
        prob: ``(S,)``, probability of each budget (linear or uniform).
    """
    return budget_returns(rewards, prob) - budget_baseline(rewards, prob)
