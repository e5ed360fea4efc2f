"""Combination of the members of a reward ensemble: ``(rewards (K, ...), *, ...) -> (...)``, unreduced fp32 (fp64 kept).

The K members estimate one reward (reward models, heads, critics): a NaN or infinite member is left out for that sample,
and the statistics are those of the others. A sample without a valid member gets NaN. Gradients flow to all valid
members. For different rewards see ``reward_combination``.

Equal members give that value, for any function and coefficient except ``z_mean``.
``worst_case <= soft_min <= mean``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import check_not_negative, check_positive, check_probability, check_same_shape, keep
from diffalign.losses.reward_combination import stacked


def members(rewards: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rewards with invalid ones set to 0, where they are valid ``(K, ...)``, and the number of valid ones
    ``(...)``, NaN instead of 0.
    """
    rewards = stacked(rewards)
    usable = rewards.isfinite()
    count = usable.sum(0).to(rewards.dtype)
    return keep(rewards, usable), usable, count.masked_fill(count == 0, torch.nan)


def ensemble_mean(rewards: Tensor) -> Tensor:
    """Return the mean of the valid members."""
    rewards, _, count = members(rewards)
    return rewards.sum(0) / count


def ensemble_variance(rewards: Tensor, *, unbiased: bool = True) -> Tensor:
    """Return the variance of the valid members, 0 for a single one: ensemble uncertainty per sample."""
    rewards, usable, count = members(rewards)
    square = keep((rewards - rewards.sum(0) / count) ** 2, usable).sum(0)
    return square / (count - int(unbiased)).clamp(min=1)


def ensemble_std(rewards: Tensor, *, unbiased: bool = True) -> Tensor:
    """Return the root of :func:`ensemble_variance`, with gradient 0 where all members agree."""
    var = ensemble_variance(rewards, unbiased=unbiased)
    return var.clamp(min=torch.finfo(var.dtype).tiny).sqrt()


def worst_case(rewards: Tensor) -> Tensor:
    """Return the smallest valid member (WCO, arXiv:2310.02743)."""
    rewards, usable, count = members(rewards)
    low = torch.where(usable, rewards, torch.inf).amin(0)
    return torch.where(count > 0, low, count)


def mean_var(rewards: Tensor, *, coef: float = 0.1, unbiased: bool = True) -> Tensor:
    """Return ``mean - coef * variance`` (UWO, arXiv:2310.02743; coef < 0 rewards uncertainty, as MaxInfoRL).

    The released code has an unbiased variance and .1 under PPO (the defaults here), a population variance and 1 (.5 in
    the launcher) for best-of-n. The variance has the unit of the squared reward: scale ``coef`` with it.
    """
    return ensemble_mean(rewards) - coef * ensemble_variance(rewards, unbiased=unbiased)


def mean_std(rewards: Tensor, *, coef: float, unbiased: bool = True) -> Tensor:
    """Return ``mean - coef * std``: a lower confidence bound in the unit of the reward (offline model-based RL)."""
    return ensemble_mean(rewards) - coef * ensemble_std(rewards, unbiased=unbiased)


def soft_min(rewards: Tensor, *, temperature: float = 0.3) -> Tensor:
    """Return ``-a log mean_k exp(-r_k / a)``, the entropic certainty equivalent of risk aversion ``1 / a``.

    ``a -> 0`` is the smallest member, ``a -> inf`` the mean; a negative ``a`` is risk-seeking, the soft maximum ``b log
    mean exp(r / b)`` with ``b = -a`` (SAFE's double critic, its code: a = .3).

    Raises:
        ValueError: ``temperature`` is 0 or not finite.
    """
    a = temperature
    check_positive(temperature=abs(a))
    rewards, usable, count = members(rewards)
    edge = torch.where(usable, rewards, torch.inf if a > 0 else -torch.inf)
    edge = edge.amin(0) if a > 0 else edge.amax(0)
    above = keep(rewards - edge, usable)  # an invalid inf would reach the gradient
    return edge - a * ((-above / a).expm1().sum(0) / count).log1p()


def robust(rewards: Tensor, nominal: Tensor, *, weight: float) -> Tensor:
    """Return ``weight * nominal + (1 - weight) * worst_case`` (BRME, arXiv:2409.15360 [derived]; weight not known).

    Args:
        rewards: ``(K, ...)``.
        nominal: ``(...)``, the nominal reward, for example of :func:`most_confident`; NaN gives NaN.
        weight: in [0, 1]; 1 is the nominal reward, 0 the worst case.

    Raises:
        ValueError: ``weight`` is outside [0, 1], or the shapes do not fit.
    """
    check_probability(weight=weight)
    worst = worst_case(rewards)
    check_same_shape(nominal=nominal, member=worst)
    return weight * nominal.to(worst) + (1 - weight) * worst


def most_confident(rewards: Tensor, std: Tensor) -> Tensor:
    """Return, per sample, the valid member with the smallest ``std`` (BRME's nominal reward [derived]).

    Args:
        rewards: ``(K, ...)``.
        std: ``(K, ...)``, the predicted standard deviation of each member.

    Raises:
        ValueError: a deviation is negative, or the shapes differ.
    """
    check_same_shape(rewards=rewards, std=std)
    check_not_negative(std=std)
    rewards, usable, count = members(rewards)
    best = torch.where(usable, std.to(rewards), torch.inf).argmin(0, keepdim=True)
    return torch.where(count > 0, rewards.gather(0, best)[0], count)


def z_mean(rewards: Tensor) -> Tensor:
    """Return the mean of the members, each standardised over all samples (DTR, arXiv:2412.09104, its code).

    Population std, no eps; a constant member has z-scores of 0. Invariant under positive affine maps of a member. Means
    and deviations are those of the given tensor, detached: pass a whole data set or batch.
    """
    rewards, usable, _ = members(rewards)
    rows, valid = rewards.detach().flatten(1), usable.flatten(1)
    low = torch.where(valid, rows, torch.inf).amin(1)  # equal rewards then deviate by exactly 0
    count = valid.sum(1)
    above = keep(rows - low[:, None], valid)
    center = above.sum(1) / count
    std = (keep((above - center[:, None]) ** 2, valid).sum(1) / count).sqrt()
    shape = (-1, *[1] * (rewards.ndim - 1))
    z = (rewards - low.reshape(shape) - center.reshape(shape)) / std.masked_fill(std == 0, torch.inf).reshape(shape)
    return ensemble_mean(z.masked_fill(~usable, torch.nan))
