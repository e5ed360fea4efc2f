"""Ensemble uncertainty per sample, never negative: subtracted from a reward (pessimism) or added (exploration).

The measures compared for offline model-based RL (arXiv:2110.04135) have one shape, ``(means (K, ...), stds (K, ...)) ->
(...)``: member k predicts a normal reward with ``means[k]`` and ``stds[k] > 0``. All members must be finite. Tune
measure, coefficient and number of members together (same paper).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_not_negative, check_positive, check_same_shape
from diffalign.losses.reward_combination import stacked
from diffalign.losses.reward_ensembles import ensemble_variance


def _normals(means: Tensor, stds: Tensor) -> tuple[Tensor, Tensor]:
    check_same_shape(means=means, stds=stds)
    check_positive(stds=stds)
    means = stacked(means)
    return means, stds.to(means)


def max_aleatoric(means: Tensor, stds: Tensor) -> Tensor:
    """Return ``max_k std_k``: the largest predicted noise."""
    return _normals(means, stds)[1].amax(0)


def max_pairwise(means: Tensor, stds: Tensor) -> Tensor:
    """Return ``max_jk |mean_j - mean_k|``: the largest disagreement."""
    means, _ = _normals(means, stds)
    return means.amax(0) - means.amin(0)


def mixture_variance(means: Tensor, stds: Tensor) -> Tensor:
    """Return the variance of the mixture of the K normals: mean of the variances plus variance of the means."""
    means, stds = _normals(means, stds)
    return stds.square().mean(0) + ensemble_variance(means, unbiased=False)


def mixture_std(means: Tensor, stds: Tensor) -> Tensor:
    """Return the root of :func:`mixture_variance` ("ensemble std")."""
    return mixture_variance(means, stds).sqrt()


def likelihood_variance(means: Tensor, stds: Tensor, value: Tensor) -> Tensor:
    """Return the population variance over members of the log-likelihood of ``value`` ``(...)``, a sampled reward."""
    means, stds = _normals(means, stds)
    check_same_shape(value=value, member=means[0])
    log_prob = -(((value.to(means) - means) / stds) ** 2) / 2 - stds.log()
    return ensemble_variance(log_prob, unbiased=False)


def leave_one_out_kl(means: Tensor, stds: Tensor, *, member: int = 0) -> Tensor:
    """Return ``KL(N_k || N_rest)``, one member against the normal with the moments of the mixture of the others.

    Raises:
        ValueError: there is only one member.
    """
    means, stds = _normals(means, stds)
    if len(means) < 2:
        raise ValueError("leaving one member out needs at least two")
    rest = [k for k in range(len(means)) if k != range(len(means))[member]]
    var = mixture_variance(means[rest], stds[rest])
    own = stds[member].square()
    return ((own + (means[member] - means[rest].mean(0)) ** 2) / var - 1 - (own / var).log()) / 2


def information_gain(rewards: Tensor, *, noise: float = 1e-6) -> Tensor:
    """Return ``log(1 + variance / noise)`` of the members ``(K, ...)`` (MaxInfoRL, arXiv:2412.12098, its code).

    Information gained by observing the sample with observation variance ``noise``. Unbiased variance; NaN members are
    left out.

    Raises:
        ValueError: ``noise`` is not positive.
    """
    check_positive(noise=noise)
    return (ensemble_variance(rewards) / noise).log1p()


def elliptical(features: Tensor, seen: Tensor, *, ridge: float = 1.0) -> Tensor:
    """Return ``sqrt(phi' (ridge I + sum seen seen')^-1 phi)``: distance of a sample from the data of a linear reward.

    Args:
        features: ``(B, D)``, features ``phi`` of the samples; with gradient.
        seen: ``(N, D)``, features of the training data of the reward (differences, if fitted to pairs); detached.
        ridge: prior precision.

    Raises:
        ValueError: the shapes do not fit, or ``ridge`` is not positive.
    """
    check_positive(ridge=ridge)
    if features.ndim != 2 or seen.ndim != 2 or features.shape[1] != seen.shape[1]:
        raise ValueError(f"features must be (B, D) and (N, D), got {tuple(features.shape)} and {tuple(seen.shape)}")
    seen = seen.detach().double()
    precision = seen.T @ seen + ridge * torch.eye(seen.shape[1], dtype=seen.dtype, device=seen.device)
    phi = features.double()
    square = (phi * torch.cholesky_solve(phi.T, torch.linalg.cholesky(precision)).T).sum(1)
    return square.clamp(min=torch.finfo(square.dtype).tiny).sqrt().to(as_float(features).dtype)


def lower_bound(reward: Tensor, uncertainty: Tensor, *, coef: float) -> Tensor:
    """Return ``reward - coef * uncertainty``, coef >= 0 (pessimism).

    Raises:
        ValueError: ``coef`` is negative, or the shapes differ.
    """
    check_not_negative(coef=coef)
    check_same_shape(reward=reward, uncertainty=uncertainty)
    return as_float(reward) - coef * uncertainty
