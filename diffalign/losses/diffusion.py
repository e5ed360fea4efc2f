"""Log-ratios and KL terms of Gaussian denoising steps.

A denoising step draws ``x' ~ N(mean, c**2)`` with ``c = std`` one number per sample. Latents are ``(B, ...)`` with any
number of further axes, ``std`` and ``dt`` a float or ``(B,)``. A deterministic step (``std = 0``) has no density: its
log-ratio and KL are 0 without a gradient, so that a mask can still remove it. The log-prob itself is computed by the
sampler (:mod:`diffalign.sampling`), log-ratios here.

``reduce`` is a function, :func:`latent_mean` or :func:`latent_sum`. The mean is the field's convention (DDPO,
Flow-GRPO, DanceGRPO), the sum the true density; they differ by the factor D, the number of elements: 1e-4 on a mean
is 6.55 on the sum at 65 536 elements, so clip ranges and coefficients depend on the convention.

Gradients flow to ``mean`` (``value``) only: samples, old and reference predictions, ``std`` and ``dt`` are detached.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffalign.losses.common import as_float

Reduce = Callable[[Tensor], Tensor]


def latent_mean(x: Tensor) -> Tensor:
    """Mean over all axes but the first: ``(B, ...) -> (B,)``."""
    return x.flatten(1).mean(1)


def latent_sum(x: Tensor) -> Tensor:
    """Sum over all axes but the first: ``(B, ...) -> (B,)``; D times :func:`latent_mean`."""
    return x.flatten(1).sum(1)


def _per_sample(value: float | Tensor, like: Tensor, name: str) -> Tensor:
    """Shape a float, ``()`` or ``(B,)`` so that it multiplies ``like (B, ...)``; detached, in the precision of
    ``like``.
    """
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device).detach()
    if value.ndim == 0:
        return value
    if value.shape != like.shape[:1]:
        raise ValueError(f"{name} must be a number or have shape ({like.shape[0]},), got {tuple(value.shape)}")
    return value.reshape(-1, *[1] * (like.ndim - 1))


def _noise(std: float | Tensor, like: Tensor) -> Tensor:
    """Shape ``std`` like :func:`_per_sample`; 0 becomes infinite, since the NaN of a division by 0 would pass every
    mask.
    """
    std = _per_sample(std, like, "std")
    return torch.where(std == 0, torch.inf, std)


def _latents(**tensors: Tensor) -> tuple[Tensor, ...]:
    """Widen tensors of one shape ``(B, ...)``; detach all but the one called ``mean`` or ``value``."""
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    if len(set(shapes.values())) > 1 or min(len(s) for s in shapes.values()) < 2:
        raise ValueError(f"latents must share one shape (B, ...) with at least two axes, got {shapes}")
    return tuple(as_float(x if name in ("mean", "value") else x.detach()) for name, x in tensors.items())


def log_prob_difference(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """Return ``log_prob - old_log_prob`` (old detached): the plain log-ratio of stored log-probs, in their shape.

    Raises:
        ValueError: the shapes differ.
    """
    if log_prob.shape != old_log_prob.shape:
        raise ValueError(f"log-probs must share one shape, got {tuple(log_prob.shape)} and {tuple(old_log_prob.shape)}")
    return as_float(log_prob) - as_float(old_log_prob.detach())


def plain_log_ratio(
    next_x: Tensor, mean: Tensor, mean_old: Tensor, std: float | Tensor, *, reduce: Reduce = latent_mean
) -> Tensor:
    """Return ``log N(x'; mean, c**2) - log N(x'; mean_old, c**2)`` as ``(e d - d**2 / 2) / c**2``, reduced, ``(B,)``.

    ``e = x' - mean_old`` and ``d = mean - mean_old``. No large terms cancel, so it is exactly 0 at ``mean = mean_old``
    and keeps its digits near it, which the difference of two log-probs does not. Its expectation under rollout noise is
    ``-d**2 / (2 c**2)`` < 0: the ratio drifts below 1.

    Args:
        next_x: ``(B, ...)`` the stored sample, not rounded after sampling: that moves the mean by up to 7e-4 at c =
            .05.
        mean: ``(B, ...)`` mean of the step, with gradient.
        mean_old: ``(B, ...)`` that of the policy at rollout, or of the reference.
        std: standard deviation c of both, a float or ``(B,)``.
        reduce: :func:`latent_mean` or :func:`latent_sum`.

    Returns:
        ``(B,)`` in nats (per element, under the mean), fp32 (fp64 kept).

    Raises:
        ValueError: shapes differ.
    """
    next_x, mean, mean_old = _latents(next_x=next_x, mean=mean, mean_old=mean_old)
    delta = mean - mean_old
    return reduce(((next_x - mean_old) * delta - delta**2 / 2) / _noise(std, mean) ** 2)


def cps_scaled(log_ratio: Tensor, std: Tensor) -> Tensor:
    """Return ``2 c**2 log_ratio``: the plain log-ratio of stored log-probs on Flow-CPS's scale.

    Flow-CPS's code (arXiv:2509.05952) defines the log-prob as ``-(x' - mean)**2``, without the variance.

    Args:
        log_ratio: ``(B,)`` or ``(B, T)``.
        std: same shape, or one that broadcasts to it; detached.
    """
    return 2 * as_float(std.detach()) ** 2 * as_float(log_ratio)


def cps_log_ratio(
    next_x: Tensor, mean: Tensor, mean_old: Tensor, std: float | Tensor, *, reduce: Reduce = latent_mean
) -> Tensor:
    """Return Flow-CPS's log-ratio, ``2 c**2`` times :func:`plain_log_ratio` (the form of the code), ``(B,)``."""
    log_ratio = plain_log_ratio(next_x, mean, mean_old, std, reduce=reduce)
    return cps_scaled(log_ratio, torch.as_tensor(std, dtype=log_ratio.dtype, device=log_ratio.device))


def guard_log_ratio(
    next_x: Tensor, mean: Tensor, mean_old: Tensor, std: float | Tensor, *, reduce: Reduce = latent_mean
) -> Tensor:
    """Return GRPO-Guard's log-ratio, ``e d / c`` reduced = mean of (noise x shift) (arXiv:2510.22319), ``(B,)``.

    It is ``c * plain + d**2 / (2 c)``: the drift of the plain one is removed (expectation 0 under rollout noise, so the
    clip is two-sided again) and the steps share one scale. Arguments as in :func:`plain_log_ratio`.
    """
    next_x, mean, mean_old = _latents(next_x=next_x, mean=mean, mean_old=mean_old)
    return reduce((next_x - mean_old) * (mean - mean_old) / _noise(std, mean))


def path_log_ratio(
    action: Tensor,
    end_old: Tensor,
    value: Tensor,
    value_old: Tensor,
    std: float | Tensor,
    std_old: float | Tensor | None = None,
    *,
    reduce: Reduce = latent_mean,
) -> Tensor:
    """Return PolicyFlow's log-ratio, ``log N(a - y; d, c**2) - log N(a - y; 0, c_old**2)``, ``(B,)``.

    A flow policy maps noise z to its end point y and acts with ``a = y + n``; no intermediate step is stored. The shift
    of the end point is approximated by that of the velocity, ``d = v - v_old``, at one point ``(1 - s) z + s y`` of the
    straight path (s = 0 noise). Experimental: published for control, not for images.

    Args:
        action: ``(B, ...)`` the stored action a.
        end_old: ``(B, ...)`` end point y of the old policy's flow.
        value: ``(B, ...)`` velocity of the policy on the path, data minus noise; with gradient.
        value_old: ``(B, ...)`` that of the old policy.
        std: standard deviation c of the action noise, a float or ``(B,)``.
        std_old: that at sampling; None for the same.
        reduce: :func:`latent_mean` or :func:`latent_sum`.
    """
    action, end_old, value, value_old = _latents(action=action, end_old=end_old, value=value, value_old=value_old)
    error = action - end_old
    log_ratio = plain_log_ratio(error, value - value_old, torch.zeros_like(action), std, reduce=reduce)
    if std_old is None:
        return log_ratio
    now, before = _noise(std, error), _noise(std_old, error)
    return log_ratio + reduce(error**2 * (before**-2 - now**-2) / 2 + (before / now).log())


def gaussian_kl(mean: Tensor, mean_ref: Tensor, std: float | Tensor, *, reduce: Reduce) -> Tensor:
    """Return the exact KL of two steps with one variance, ``(mean - mean_ref)**2 / (2 c**2)``, ``(B,)``; symmetric.

    ``reduce`` has no default: the sum is the KL in nats, the mean the KL per element; the coefficient depends on it.
    """
    mean, mean_ref = _latents(mean=mean, mean_ref=mean_ref)
    return reduce(((mean - mean_ref) / _noise(std, mean)) ** 2 / 2)


def dt_scaled_kl(mean: Tensor, mean_ref: Tensor, std: float | Tensor, dt: float | Tensor, *, reduce: Reduce) -> Tensor:
    """Return Flow-GRPO's KL term, ``(mean - mean_ref)**2 / (2 s**2)`` with ``s = c / sqrt(|dt|)``: ``|dt|`` times the
    exact one.

    This is the released code; its coefficients (.04 GenEval, .01 PickScore; with the mean) belong to this form. The
    paper's formula is :func:`gaussian_kl`. ``dt``: step in sigma, of either sign, a float or ``(B,)``. Returns
    ``(B,)``.
    """
    steps = _per_sample(dt, as_float(mean), "dt").abs().flatten()
    return steps * gaussian_kl(mean, mean_ref, std, reduce=reduce)


def velocity_kl(value: Tensor, value_ref: Tensor, *, reduce: Reduce) -> Tensor:
    """Return ``(v - v_ref)**2`` reduced, ``(B,)``: the v-space penalty of DiffusionNFT and AWM (coefficients 1e-3 to
    1e-4).

    For Flow-SDE of noise level ``a`` the exact step KL is ``|dt| (1 + a**2 / 2)**2 / (2 s**2)`` times this.
    """
    value, value_ref = _latents(value=value, value_ref=value_ref)
    return reduce((value - value_ref) ** 2)
