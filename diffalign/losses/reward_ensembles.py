"""Members of an ensemble made one reward: ``(rewards (K, ...), *, ...) -> (...)``, unreduced fp32 (fp64 kept).

The K members estimate the same thing (reward models, heads, critics), so they stand in for each other: a member that
is NaN or infinite is left out of that sample, and the statistics are those of the rest. A sample that no member scored
gets NaN. Gradients flow to every member that counts. For different rewards see ``reward_combination``.

Equal members give the member, whatever the function and its coefficient (``z_mean`` excepted).
``worst_case <= soft_min <= mean``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import check_not_negative, check_positive, check_probability, check_same_shape, keep
from diffalign.losses.reward_combination import stacked


def members(rewards: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rewards with unusable ones made 0, where they are usable ``(K, ...)``, and their number ``(...)``; a
    number of 0 is NaN, so that what is divided by it is.
    """
    rewards = stacked(rewards)
    usable = rewards.isfinite()
    count = usable.sum(0).to(rewards.dtype)
    return keep(rewards, usable), usable, count.masked_fill(count == 0, torch.nan)


def ensemble_mean(rewards: Tensor) -> Tensor:
    """Return the mean of the usable members."""
    rewards, _, count = members(rewards)
    return rewards.sum(0) / count


def ensemble_variance(rewards: Tensor, *, unbiased: bool = True) -> Tensor:
    """Return the variance of the usable members, 0 for a single one: a measure of what the ensemble does not know."""
    rewards, usable, count = members(rewards)
    square = keep((rewards - rewards.sum(0) / count) ** 2, usable).sum(0)
    return square / (count - int(unbiased)).clamp(min=1)


def ensemble_std(rewards: Tensor, *, unbiased: bool = True) -> Tensor:
    """Return the root of :func:`ensemble_variance`, with gradient 0 where there is no spread."""
    var = ensemble_variance(rewards, unbiased=unbiased)
    return var.clamp(min=torch.finfo(var.dtype).tiny).sqrt()


def worst_case(rewards: Tensor) -> Tensor:
    """Return the smallest usable member (WCO, arXiv:2310.02743)."""
    rewards, usable, count = members(rewards)
    low = torch.where(usable, rewards, torch.inf).amin(0)
    return torch.where(count > 0, low, count)


def mean_var(rewards: Tensor, *, coef: float = 0.1, unbiased: bool = True) -> Tensor:
    """Return ``mean - coef * variance`` (UWO, arXiv:2310.02743; coef < 0 rewards what is unknown, as MaxInfoRL).

    The released code has an unbiased variance and .1 under PPO (the defaults here), a population variance and 1 (.5 in
    the launcher) for best-of-n. The variance has the unit of the squared reward: scale ``coef`` with it.
    """
    return ensemble_mean(rewards) - coef * ensemble_variance(rewards, unbiased=unbiased)


def mean_std(rewards: Tensor, *, coef: float, unbiased: bool = True) -> Tensor:
    """Return ``mean - coef * std``: a lower confidence bound in the unit of the reward (offline model-based RL)."""
    return ensemble_mean(rewards) - coef * ensemble_std(rewards, unbiased=unbiased)


def soft_min(rewards: Tensor, *, temperature: float = 0.3) -> Tensor:
    """Return ``-a log mean_k exp(-r_k / a)``, the entropic certainty equivalent of risk aversion ``1 / a``.

    ``a -> 0`` is the smallest member, ``a -> inf`` the mean; a negative ``a`` seeks risk, the soft maximum
    ``b log mean exp(r / b)`` with ``b = -a`` (SAFE's double critic, its code: a = .3).

    Raises:
        ValueError: ``temperature`` is 0 or not finite.
    """
    a = temperature
    check_positive(temperature=abs(a))
    rewards, usable, count = members(rewards)
    edge = torch.where(usable, rewards, torch.inf if a > 0 else -torch.inf)
    edge = edge.amin(0) if a > 0 else edge.amax(0)
    above = keep(rewards - edge, usable)  # before the exponential: inf of a member left out would reach the gradient
    return edge - a * ((-above / a).expm1().sum(0) / count).log1p()


def robust(rewards: Tensor, nominal: Tensor, *, weight: float) -> Tensor:
    """Return ``weight * nominal + (1 - weight) * worst_case`` (BRME, arXiv:2409.15360 [derived]; weight not known).

    Args:
        rewards: see the module.
        nominal: ``(...)``, the reward to trust, for example that of :func:`most_confident`; NaN gives NaN.
        weight: in [0, 1]; 1 trusts, 0 is the worst case alone.

    Raises:
        ValueError: ``weight`` is outside [0, 1], or the shapes do not fit.
    """
    check_probability(weight=weight)
    worst = worst_case(rewards)
    check_same_shape(nominal=nominal, member=worst)
    return weight * nominal.to(worst) + (1 - weight) * worst


def most_confident(rewards: Tensor, std: Tensor) -> Tensor:
    """Return, per sample, the usable member with the smallest ``std`` (BRME's nominal reward [derived]).

    Args:
        rewards: see the module.
        std: ``(K, ...)``, the deviation that each member states for its own value.

    Raises:
        ValueError: a deviation is negative, or the shapes differ.
    """
    check_same_shape(rewards=rewards, std=std)
    check_not_negative(std=std)
    rewards, usable, count = members(rewards)
    best = torch.where(usable, std.to(rewards), torch.inf).argmin(0, keepdim=True)
    return torch.where(count > 0, rewards.gather(0, best)[0], count)


def z_mean(rewards: Tensor) -> Tensor:
    """Return the mean of the members after each was standardised over all samples (DTR, arXiv:2412.09104, its code).

    Population deviation, no eps; a member without spread has z-scores of 0. Positive affine changes of a member change
    nothing. Means and deviations are those of the tensor given, detached: pass a whole data set, or a whole batch.
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
