"""Likelihood-free objectives: the network is regressed on its own re-noised samples, weighted by reward.

A clean latent x0 is noised, ``x_t = (1 - t) x0 + t noise``, and the velocity there is compared with ``noise - x0``.
Latents are ``(B, ...)``, t and rewards ``(B,)``; all losses are ``(B,)``, unreduced fp32 (fp64 kept). Only ``value``
has a gradient.

:func:`nft` moves an implicit positive velocity towards the sample and an implicit negative one away from it; at the old
policy its gradient is AWM's up to a positive factor. :func:`matching_error` and a *matching* function, ``(error, t) ->
(B,)``, form AWM's surrogate of a log-prob, whose ratio the objectives of :mod:`diffalign.losses.policy` take.
"""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import as_float, check_floating, check_positive, check_probability, check_same_shape
from diffalign.losses.diffusion import latent_mean

SMALLEST_ERROR = 1e-5
"""Floor of NFT's detached weight."""

HUBER_FLOOR = 1e-10
"""Added to squared errors under a root (AWM's code)."""


def _latents(value: Tensor, **others: Tensor) -> tuple[Tensor, ...]:
    check_floating(value=value, **others)
    check_same_shape(value=value, **others)
    if value.ndim < 2:
        raise ValueError(f"latents must have shape (B, ...) with at least two axes, got {tuple(value.shape)}")
    return as_float(value), *(as_float(x.detach()) for x in others.values())


def _per_sample(t: Tensor, like: Tensor, name: str) -> Tensor:
    if t.shape != like.shape[:1]:
        raise ValueError(f"{name} must have shape ({like.shape[0]},), got {tuple(t.shape)}")
    return t.detach().to(like)


def optimality(adv: Tensor, *, clip: float = 5.0) -> Tensor:
    """Return DiffusionNFT's label, ``clamp(A / clip, -1, 1) / 2 + 1/2`` in [0, 1]; 1/2 where the advantage is 0.

    Raises:
        ValueError: ``clip`` is not positive.
    """
    check_positive(clip=clip)
    return (as_float(adv.detach()) / clip).clamp(-1, 1) / 2 + 0.5


def _weighted_error(shift: Tensor) -> Tensor:
    """Squared error of x0 over its own mean size, which is detached; (B, ...) -> (B,)."""
    size = latent_mean(shift.detach().abs()).clamp(min=SMALLEST_ERROR)
    return latent_mean(shift**2) / size


def nft(
    value: Tensor, value_old: Tensor, x0: Tensor, noise: Tensor, t: Tensor, label: Tensor, *, beta: float = 1.0
) -> Tensor:
    """Return DiffusionNFT's loss (arXiv:2509.16117, the released form), ``(B,)``.

    ``(r l+ + (1 - r) l-) / beta``, l the self-normalised squared error of x0 under the velocities ``v+ = v_old + beta
    (v - v_old)`` and ``v- = v_old - beta (v - v_old)``. Its unweighted optimum is ``v_old + (2 / beta) p+ (v+* -
    v_old)``; at ``v = v_old`` the gradient does not depend on beta. Released code multiplies by the clip of the
    advantages (5).

    Args:
        value: ``(B, ...)`` the policy's velocity at x_t, with gradient.
        value_old: ``(B, ...)`` that of the sampling policy.
        x0: ``(B, ...)`` the sample.
        noise: ``(B, ...)`` the noise in x_t.
        t: ``(B,)`` in (0, 1].
        label: ``(B,)`` in [0, 1], from :func:`optimality`.
        beta: guidance strength, 1 for GenEval, .1 for OCR and several rewards.

    Raises:
        ValueError: shapes do not fit, beta is not positive, t or the label is outside [0, 1].
    """
    check_positive(beta=beta)
    check_probability(t=t, label=label)
    value, value_old, x0, noise = _latents(value, value_old=value_old, x0=x0, noise=noise)
    t = _per_sample(t, value, "t").reshape(-1, *[1] * (value.ndim - 1))
    r = _per_sample(label, value, "label")
    step, start = beta * (value - value_old), (noise - x0) - value_old  # x_t - t v - x0 = t (noise - x0 - v)
    good, bad = _weighted_error(t * (start - step)), _weighted_error(t * (start + step))
    return (r * good + (1 - r) * bad) / beta


def matching_error(value: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
    """Return ``(v - (noise - x0))**2`` averaged over the latent, ``(B,)``.

    Raises:
        ValueError: shapes differ.
    """
    value, x0, noise = _latents(value, x0=x0, noise=noise)
    return latent_mean((value - (noise - x0)) ** 2)


def uniform_matching(error: Tensor, t: Tensor) -> Tensor:
    """Return ``-error``: plain flow matching."""
    return -as_float(error)


def linear_matching(error: Tensor, t: Tensor) -> Tensor:
    """Return ``-t error``."""
    return -_per_sample(t, error, "t") * as_float(error)


def squared_matching(error: Tensor, t: Tensor) -> Tensor:
    """Return ``-t**2 error``: the error of x0."""
    return -(_per_sample(t, error, "t") ** 2) * as_float(error)


def huber_matching(error: Tensor, t: Tensor) -> Tensor:
    """Return ``-t (sqrt(error + 1e-10) - 1e-5)``, the root of the error, robust to outliers."""
    root = (as_float(error) + HUBER_FLOOR).sqrt() - HUBER_FLOOR**0.5
    return -_per_sample(t, error, "t") * root


def generalised_huber_matching(error: Tensor, t: Tensor, *, power: float = 0.25) -> Tensor:
    """Return ``-t (( error + 1e-10)**p - 1e-10**p) / p``, AWM's setting for SD3.5 (arXiv:2509.25050, p = .25).

    Raises:
        ValueError: ``power`` is not positive.
    """
    check_positive(power=power)
    grown = (as_float(error) + HUBER_FLOOR) ** power - HUBER_FLOOR**power
    return -_per_sample(t, error, "t") * grown / power
