"""Advantage estimators of TRL, verl and the diffusion trainers, by name.

``rewards`` are ``(B, G)``, G samples of each of B prompts, NaN where one could not be scored; results are ``(B, G)``
unless stated otherwise and have no gradient. Flatten them for a policy loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from diffalign.losses.advantages import batch_std, group_advantage, group_std, loo_center, no_scale, usable
from diffalign.losses.baselines import counted_center
from diffalign.losses.common import as_float, keep
from diffalign.losses.multi_reward import gdpo_advantage
from diffalign.losses.recipes.registry import recipe


@recipe("grpo-advantage", "advantage", aliases=("grpo-outcome", "grpo-vectorized"), eps=1e-4, unbiased=True)
def grpo_advantage(
    rewards: Tensor, *, eps: float, unbiased: bool, clip: float | None = None, mask: Tensor | None = None
) -> Tensor:
    """GRPO (arXiv:2402.03300): rewards over the mean and std of their group.

    Formula: (R - mean R) / (std R + eps) in each group, clipped to +-clip

    TRL: unbiased std, eps 1e-4 (the default here). verl: unbiased, 1e-6. DanceGRPO: unbiased, 1e-8. flow_grpo with
    ``global_std: False``: population std (``unbiased=False``), 1e-4.
    """
    return group_advantage(rewards, scale=partial(group_std, unbiased=unbiased), eps=eps, clip=clip, mask=mask)


@recipe("flow-grpo-advantage", "advantage", eps=1e-4, unbiased=False, clip=5.0)
def batch_advantage(
    rewards: Tensor, *, eps: float, unbiased: bool, clip: float | None = None, mask: Tensor | None = None
) -> Tensor:
    """Flow-GRPO (arXiv:2505.05470, its code with ``global_std: True``): group means, one std for the whole batch.

    Formula: (R - mean R of the group) / (std of all rewards + eps), clipped to +-clip

    TRL's ``scale_rewards="batch"`` is the same with ``unbiased=True``.
    """
    return group_advantage(rewards, scale=partial(batch_std, unbiased=unbiased), eps=eps, clip=clip, mask=mask)


@recipe("dr-grpo-advantage", "advantage")
def centered_advantage(rewards: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Dr. GRPO (arXiv:2503.20783): rewards over the mean of their group, without a std.

    Formula: R - mean R in each group
    """
    return group_advantage(rewards, scale=no_scale, mask=mask)


@recipe("rloo-advantage", "advantage", aliases=("rloo-vectorized",))
def rloo_advantage(rewards: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """RLOO (arXiv:2402.14740): each sample against the mean of the others of its group.

    Formula: R_i - mean_{j != i} R_j

    TRL subtracts ``beta`` times the summed k1 KL from the reward first; with ``normalize_advantages`` it whitens the
    result over the batch (:func:`diffalign.losses.batch_whiten`).
    """
    return group_advantage(rewards, center=loo_center, scale=no_scale, mask=mask)


@recipe("gpg-advantage", "advantage")
def gpg_advantage(rewards: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """GPG (arXiv:2504.02546, verl's form): centred rewards, times the number of samples over that of non-zero rewards.

    Formula: (N / N_nonzero) (R - mean R in each group)
    """
    valid = usable(rewards, mask)
    share = valid.sum() / ((rewards != 0) & valid).sum().clamp(min=1)
    return centered_advantage(rewards, mask=mask) * share


@recipe("grpo-passk", "advantage", aliases=("pass-at-k", "grpo-pass-k"), eps=1e-6, unbiased=True)
def pass_k_advantage(rewards: Tensor, *, eps: float, unbiased: bool, mask: Tensor | None = None) -> Tensor:
    """Pass@k policy optimisation (arXiv:2503.19595, verl's form): only the best sample of a group has an advantage.

    Formula: (R_max - R_second) / (std R + eps) for the best sample of the group, 0 for the others

    0 for equal best samples. verl's ``norm_adv_by_std_in_grpo: False`` has no std.

    Raises:
        ValueError: groups of one.
    """
    valid = usable(rewards, mask)
    if rewards.shape[1] < 2:
        raise ValueError("pass@k compares the two best samples of a group, and the groups have one")
    values = torch.where(valid, as_float(rewards.detach()), -torch.inf)
    top, place = values.topk(2, dim=1)
    gap = keep(top[:, 0] - top[:, 1], torch.isfinite(top[:, 1]))
    scale = group_std(keep(rewards.detach(), valid), valid, eps, unbiased=unbiased)[:, 0]
    return torch.zeros_like(values).scatter(1, place[:, :1], (gap / scale)[:, None])


@recipe("opo", "advantage")
def opo_advantage(rewards: Tensor, length: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """OPO (arXiv:2505.23585, verl's form): a baseline weighted by length, a proxy of the squared score.

    Formula: R - sum_i L_i R_i / sum_i L_i in each group

    ``length (B, G)``: tokens or denoising steps of each sample.
    """
    return group_advantage(rewards, center=partial(counted_center, count=length), scale=no_scale, mask=mask)


@recipe("gdpo", "advantage", eps=1e-4, unbiased=True)
def gdpo(
    rewards: Tensor, weights: Sequence[float], *, eps: float, unbiased: bool, mask: Tensor | None = None
) -> Tensor:
    """GDPO (arXiv:2601.05242; TRL's ``normalize_then_sum``): each reward normalised in its groups, summed, and the sum
    whitened over the batch.

    Formula: (S - mean S) / (std S + eps), S = sum_k w_k (R_k - mean R_k) / (std R_k + eps), the inner ones per group

    ``rewards (K, B, G)``, ``weights`` K numbers. verl weights the outer statistics by response length. MixGRPO stops at
    S (:func:`diffalign.losses.sum_of_advantages`).
    """
    return gdpo_advantage(rewards, weights, mask=mask, unbiased=unbiased, eps=eps)
