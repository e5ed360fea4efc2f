"""Surrogate log-ratios of diffusion, flow and masked models: inputs of all pair, listwise, unpaired and regression
losses.

A denoiser has no tractable log-prob; ``log p - log p_ref`` is replaced by a *surrogate*, larger where the policy fits a
sample better than the reference:

- :func:`epsilon`: ``-(m - m_ref) / 2``, m the squared error of the predicted noise, ``(B,)``;
- :func:`velocity`: ``-w(t) (m - m_ref) / 2``, m that of the predicted velocity, ``(B,)``;
- :func:`gaussian_step`: ``log N(x'; mean, c**2) - log N(x'; mean_ref, c**2)`` of each step, ``(B, T)``;
- :func:`masked`: ``w(a) sum over masked tokens of (log p - log p_ref)``, ``(B,)``.

The policy's prediction is the only input with a gradient. Errors are *means* over latent elements, as the published
betas (Diffusion-DPO 2000 to 5000, flows 100 to 500) suppose; ``reduce=latent_sum`` needs ``beta / (C H W)``.

Compared samples share one t, and by default the noise (:mod:`diffalign.losses.draws`). A "reference-free" method
becomes a margin on :func:`denoising_error`, which is not comparable between images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import (
    as_float,
    check_any_valid,
    check_floating,
    check_probability,
    check_same_shape,
    keep,
)
from diffalign.losses.diffusion import Reduce, latent_mean, plain_log_ratio
from diffalign.losses.time_weights import Weight, constant_weight, elbo_weight


def region_mean(region: Tensor) -> Reduce:
    """Return a ``reduce`` that averages over a region only; a sample without such an entry has the error 0.

    Args:
        region: ``(B, 1, H, W)``, or any shape that broadcasts to the latents; 1 inside.
    """
    check_any_valid(region)

    def reduce(x: Tensor) -> Tensor:
        inside = region.bool().expand_as(x)
        return keep(x, inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)

    return reduce


def _latents(prediction: Tensor, **others: Tensor) -> tuple[Tensor, ...]:
    """Widen latents of one shape ``(B, ...)``; all but the prediction are detached."""
    check_floating(prediction=prediction, **others)
    check_same_shape(prediction=prediction, **others)
    if prediction.ndim < 2:
        raise ValueError(f"latents must have shape (B, ...) with at least two axes, got {tuple(prediction.shape)}")
    return as_float(prediction), *(as_float(x.detach()) for x in others.values())


def denoising_error(prediction: Tensor, target: Tensor, *, reduce: Reduce = latent_mean) -> Tensor:
    """Return ``m = (prediction - target)**2`` reduced, ``(B,)``: for methods without a reference (MaPO, DSO's DRO), and
    for logging, since both errors of a pair may rise while their margin grows.
    """
    prediction, target = _latents(prediction, target=target)
    return reduce((prediction - target) ** 2)


def epsilon(prediction: Tensor, reference: Tensor, target: Tensor, *, reduce: Reduce = latent_mean) -> Tensor:
    """Return ``-(m - m_ref) / 2``, ``(B,)``, at one sampled (t, noise) (Diffusion-DPO, arXiv:2311.12908).

    Computed as ``(p - ref) (p + ref - 2 target)``, in which no large terms cancel: exactly 0 at the reference.

    Args:
        prediction: ``(B, ...)`` the policy's noise, with gradient.
        reference: ``(B, ...)`` the reference's noise for the same input.
        target: ``(B, ...)`` the noise that was added; the noise found by inversion (InPO, SmPO); or the prediction
            stored at rollout (Diffusion-DRO).
        reduce: :func:`~diffalign.losses.diffusion.latent_mean`, ``latent_sum``, or :func:`region_mean`.

    Raises:
        ValueError: shapes differ, or latents are integers.
    """
    prediction, reference, target = _latents(prediction, reference=reference, target=target)
    return -reduce((prediction - reference) * (prediction + reference - 2 * target)) / 2


def velocity(
    prediction: Tensor,
    reference: Tensor,
    target: Tensor,
    t: Tensor,
    *,
    weight: Weight = constant_weight,
    reduce: Reduce = latent_mean,
) -> Tensor:
    """Return ``-w(t) (m - m_ref) / 2``, ``(B,)``, of velocities ``noise - x_0`` (flows) or of v-predictions.

    With ``weight=epsilon_weight`` it is :func:`epsilon` of the same model; released flow code keeps w = 1.

    Args:
        prediction: as in :func:`epsilon`.
        reference: as in :func:`epsilon`.
        target: ``(B, ...)``, ``noise - x_0``.
        t: ``(B,)`` in [0, 1], 0 = data; with ``alpha_bar_weight`` the cumulative alpha.
        weight: a function of :mod:`diffalign.losses.time_weights`, ``(B,) -> (B,)``.
        reduce: as in :func:`epsilon`.

    Raises:
        ValueError: shapes do not fit, or t is outside [0, 1] (a step of 0 to 1000, for example).
    """
    check_probability(t=t)
    delta = epsilon(prediction, reference, target, reduce=reduce)
    check_same_shape(t=t, delta=delta)
    return weight(as_float(t.detach())) * delta


def gaussian_step(
    next_x: Tensor, mean: Tensor, mean_ref: Tensor, std: float | Tensor, *, reduce: Reduce = latent_mean
) -> Tensor:
    """Return the log-ratio of each stored step, ``(B, T)`` (D3PO, step-wise DPO; for per-step losses).

    Args:
        next_x: ``(B, T, ...)`` the stored samples.
        mean: ``(B, T, ...)`` the policy's means, with gradient.
        mean_ref: ``(B, T, ...)`` the reference's means.
        std: noise of each step: a number, ``(T,)`` or ``(B, T)``; steps of noise 0 give 0.
        reduce: :func:`~diffalign.losses.diffusion.latent_mean` or ``latent_sum``.

    Raises:
        ValueError: shapes do not fit.
    """
    _latents(next_x, mean=mean, mean_ref=mean_ref)
    steps = next_x.shape[:2]
    std = torch.as_tensor(std, device=next_x.device)
    if next_x.ndim < 3 or std.shape not in ((), steps[1:], steps):
        raise ValueError(
            f"latents must have shape (B, T, ...) and std (), (T,) or (B, T), "
            f"got {tuple(next_x.shape)} and {tuple(std.shape)}"
        )
    samples, means, references = (x.flatten(0, 1) for x in (next_x, mean, mean_ref))
    flat = plain_log_ratio(samples, means, references, std.expand(steps).flatten(), reduce=reduce)
    return flat.unflatten(0, steps)


def masked(
    log_prob: Tensor, reference: Tensor, hidden: Tensor, mask_prob: Tensor, *, weight: Weight = elbo_weight
) -> Tensor:
    """Return ``w(a) sum over hidden tokens of (log p - log p_ref)``, ``(B,)`` (D2-DPO, arXiv:2503.08295).

    Args:
        log_prob: ``(B, L)`` log-probs of the true tokens under the policy, given the partly masked sequence.
        reference: ``(B, L)`` those of the reference.
        hidden: ``(B, L)``, 1 where a token was masked; with none hidden the surrogate is 0.
        mask_prob: ``(B,)`` the probability a in [0, 1] with which tokens were masked.
        weight: ``elbo_weight`` or ``constant_weight``.

    Raises:
        ValueError: shapes do not fit, log-probs are integers, or a probability is outside [0, 1].
    """
    log_prob, reference = _latents(log_prob, reference=reference)
    check_probability(mask_prob=mask_prob)
    if log_prob.ndim != 2 or mask_prob.shape != log_prob.shape[:1]:
        raise ValueError(
            f"log-probs must have shape (B, L) and mask_prob (B,), "
            f"got {tuple(log_prob.shape)} and {tuple(mask_prob.shape)}"
        )
    total = (keep(log_prob, hidden) - keep(reference, hidden)).sum(1)
    return weight(as_float(mask_prob.detach())) * total
