"""Sample estimates of a KL divergence from log-ratios.

``r = log p - log ref`` on samples of the policy ``p``. As values, k1 and k3 estimate KL(p || ref) without bias and k2
does not. As *losses* they differ, because the gradient is taken through the log-probs of fixed samples only: on samples
of ``p`` itself the expected gradient of k1 is zero, of k2 that of KL(p || ref), of k3 that of KL(ref || p). So k1
belongs in a reward, k2 (or :func:`straight_through`) in a loss for the reverse KL, and k3 in a loss acts as a forward
KL [derived].
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_floating, check_same_shape
from diffalign.losses.diffusion import Reduce


def k1(log_ratio: Tensor) -> Tensor:
    """Return ``r``: unbiased value, high variance, zero expected gradient. Any shape, unreduced fp32."""
    return as_float(log_ratio)


def k2(log_ratio: Tensor) -> Tensor:
    """Return ``r**2 / 2``: biased value, but its on-policy gradient is that of KL(p || ref). Any shape, unreduced
    fp32.
    """
    return as_float(log_ratio) ** 2 / 2


def k3(log_ratio: Tensor, *, max_log_ratio: float = 20.0) -> Tensor:
    """Return ``exp(-r) + r - 1``: never negative, unbiased value, gradient of KL(ref || p). Any shape, unreduced fp32.

    Args:
        log_ratio: ``r = log p - log ref``.
        max_log_ratio: ``r`` is clamped to at least ``-max_log_ratio``, without a gradient beyond.
    """
    r = as_float(log_ratio).clamp(min=-max_log_ratio)
    return (-r).expm1() + r


def k_abs(log_ratio: Tensor) -> Tensor:
    """Return ``|r|`` (verl's ``abs``): biased value, gradient ``sign(r)``. Any shape, unreduced fp32."""
    return as_float(log_ratio).abs()


def straight_through(value: Tensor, log_ratio: Tensor) -> Tensor:
    """Return ``k2 - sg(k2) + sg(value)``: the value of any estimate with the gradient of :func:`k2` (verl's ``k1+``,
    ``k3+``). ``value`` has the shape of ``log_ratio``.
    """
    check_same_shape(value=value, log_ratio=log_ratio)
    pull = k2(log_ratio)
    return pull - pull.detach() + as_float(value.detach())


def score_function_kl(log_ratio: Tensor, *, baseline: float | Tensor = 0.0) -> Tensor:
    """Return ``sg(r - baseline) r``, whose on-policy gradient is that of KL(p || ref); its value is not a loss. Any
    shape, unreduced fp32.

    The form of HyPO's code. ``baseline``: a number or a tensor that broadcasts to ``r``, e.g. the batch
    mean of ``r``; it reduces the variance and keeps the expected gradient. 0 gives the gradient of :func:`k2`.
    """
    r = as_float(log_ratio)
    return (r - baseline).detach() * r


def _std_like(std: float | Tensor, like: Tensor, name: str) -> Tensor:
    std = torch.as_tensor(std, dtype=like.dtype, device=like.device)
    if std.ndim == 1 and std.shape == like.shape[:1]:
        return std.reshape(-1, *[1] * (like.ndim - 1)).expand_as(like)
    if std.ndim and std.shape != like.shape:
        raise ValueError(f"{name} must be a number, ({like.shape[0]},) or {tuple(like.shape)}, got {tuple(std.shape)}")
    return std.expand_as(like)


def unequal_gaussian_kl(
    mean: Tensor, mean_ref: Tensor, std: float | Tensor, std_ref: float | Tensor, *, reduce: Reduce
) -> Tensor:
    """Return KL(N(mean, std**2) || N(mean_ref, std_ref**2)), reduced over latent axes, ``(B,)``.

    ``log(std_ref / std) + (std**2 + (mean - mean_ref)**2) / (2 std_ref**2) - 1/2`` per element. With one ``std`` for
    both it is :func:`~diffalign.losses.diffusion.gaussian_kl`; with two the directions differ.

    Args:
        mean: ``(B, ...)``; ``mean_ref`` likewise, detached.
        mean_ref: see ``mean``.
        std: a number, ``(B,)`` or the shape of ``mean``, > 0; with gradient (learned variance).
        std_ref: likewise, detached.
        reduce: ``latent_mean`` or ``latent_sum``; no default, the coefficient depends on it.

    Raises:
        ValueError: shapes differ, or a type is integer.
    """
    check_floating(mean=mean, mean_ref=mean_ref)
    check_same_shape(mean=mean, mean_ref=mean_ref)
    mean, mean_ref = as_float(mean), as_float(mean_ref.detach())
    std, std_ref = _std_like(std, mean, "std"), _std_like(std_ref, mean, "std_ref").detach()
    return reduce((std_ref / std).log() + (std**2 + (mean - mean_ref) ** 2) / (2 * std_ref**2) - 0.5)
