"""Pair losses of diffusion and flow models on surrogate log-ratios.

``delta_w``, ``delta_l`` ``(B,)`` are ``-(m - m_ref) / 2`` with m the *mean* squared error of noise or velocity over
latent elements (:mod:`diffalign.losses.surrogates`), at one time step for both images. So beta is in thousands: 5000 on
means over 16 384 elements is 0.305 on sums. All return ``(B,)`` unless stated otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_floating, check_not_negative, check_probability, check_same_shape
from diffalign.losses.diffusion import latent_mean
from diffalign.losses.preference import hinge, linear, logistic, pair_margin
from diffalign.losses.ratio_links import clip_link
from diffalign.losses.recipes.preference import dpo
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.unpaired import kto, kto_shift, risk_seeking
from diffalign.losses.unpaired import logistic as logistic_unpaired


@recipe("diffusion-dpo", "pair", beta=5000.0)
@recipe("flow-dpo", "pair", beta=100.0)
@recipe("d2dpo", "pair", beta=1.0)
def diffusion_dpo(r_w: Tensor, r_l: Tensor, *, beta: float) -> Tensor:
    """Diffusion-DPO (arXiv:2311.12908); noise and time step are shared by the pair.

    Formula: -log sigmoid(beta (r_w - r_l)), r = -(|eps_theta - eps|**2 - |eps_ref - eps|**2) / 2, mean over latent
    elements

    beta 5000 on noise errors (2000 is usual for SD 1.5), 100 to 500 on velocities (Flow-DPO, arXiv:2501.13918). D2-DPO
    (arXiv:2503.08295) is the same on masked tokens, ``delta = w(t) sum_masked(log p - log p_ref)`` with ``w = 1 / (1 -
    t)``; its beta is unsure.
    """
    return dpo(r_w, r_l, beta=beta)


@recipe("dso", "pair")
def dso(error_w: Tensor, error_l: Tensor) -> Tensor:
    """DSO's direct reward optimisation (arXiv:2503.22677), released form: no reference, no beta.

    Formula: m_w - m_l, m = mean squared velocity error

    ``error`` ``(B,)``: mean squared velocity errors, each with its own noise. Unbounded below: a small adapter, few
    steps, early stop. In the paper it is for unpaired samples with a sign; its DPO is :func:`diffusion_dpo` on
    velocities with ``beta=500``.
    """
    return linear(pair_margin(-error_w, -error_l))


def smoothed_preference(score_w: Tensor, score_l: Tensor) -> Tensor:
    """Return SmPO's probability that the first image is preferred, from PickScore cosines ``(B,)``, detached.

    Scores are mapped from [0.115435, 0.282016] to [0, 1] (the released constants); the probability is that of
    Bradley-Terry, 0.731 at most within that range. The first image must have the higher score.
    """
    gap = as_float(score_w.detach()) - as_float(score_l.detach())
    return (gap / (0.282016 - 0.115435)).sigmoid()


@recipe("smpo", "pair", beta=2000.0, gamma=10.0)
def smpo(r_w: Tensor, r_l: Tensor, p: Tensor, *, beta: float, gamma: float) -> Tensor:
    """SmPO-Diffusion (arXiv:2506.02698): Diffusion-DPO with a strength per pair.

    Formula: -log sigmoid(beta gamma (2 p - 1) (r_w - r_l))

    ``p`` ``(B,)`` in [1/2, 1] from :func:`smoothed_preference`; pairs are re-labelled by it. p = 0.55 is plain DPO, p =
    1/2 has no gradient. beta 2000 for SD 1.5, 5000 for SDXL. The inversion of images is left to the trainer.

    Raises:
        ValueError: a probability is outside [1/2, 1].
    """
    check_probability(p=p)
    strength = gamma * (2 * as_float(p) - 1)
    check_not_negative(**{"gamma (2 p - 1)": strength})
    return logistic(pair_margin(r_w, r_l, beta=beta * strength))


@recipe("d3po", "pair", beta=0.1, eps=0.1)
@recipe("spo-diffusion", "pair", aliases=("step-dpo", "step-aware-po"), beta=10.0, eps=0.1)
def d3po(r_w: Tensor, r_l: Tensor, *, beta: float | Tensor, eps: float) -> Tensor:
    """D3PO (arXiv:2311.13231): DPO on each denoising step, with clipped log-ratios.

    Formula: -log sigmoid(beta (clip(r_w) - clip(r_l))), clip to [log(1 - eps), log(1 + eps)]

    Step-aware preference optimisation (SPO, arXiv:2406.04314) is the same on two samples of one latent, with beta 10.

    Args:
        r_w: ``(B, T)`` or ``(B,)``, mean over latent elements of the Gaussian step's log-ratio.
        r_l: those of the other trajectory of the prompt.
        beta: inverse temperature; a tensor may be 0 for ties, which gives log 2 without a gradient.
        eps: clip range. Outside it that side has no gradient, also if it moved in the wrong direction.

    Returns:
        Like ``r_w``, one loss for each step.
    """
    return logistic(pair_margin(clip_link(r_w, eps=eps), clip_link(r_l, eps=eps), beta=beta))


@recipe("diffusion-dro", "pair", margin=1e-3)
def diffusion_dro(r_w: Tensor, r_l: Tensor, *, margin: float) -> Tensor:
    """Diffusion-DRO (arXiv:2510.18353): expert images against samples of a snapshot of the policy.

    Formula: relu(margin - 2 (r_w - r_l))

    At a loss of exactly 0 all pairs are past the margin: take new samples.
    """
    return hinge(pair_margin(r_w, r_l, beta=2.0), target=margin)


@recipe("diffusion-kto", "unpaired", beta=2000.0)
def diffusion_kto(
    log_ratio: Tensor, desirable: Tensor, *, beta: float, weight_d: float = 1.0, weight_u: float = 1.0
) -> Tensor:
    """Diffusion-KTO (arXiv:2404.04465; ``--halo sigmoid``): single desirable and undesirable images.

    Formula: w (1 - sigmoid(+-(u - max(0, mean u)))), u = beta log_ratio

    The code's beta, 1000, multiplies ``2 log_ratio``: 2000 here. ``desirable`` ``(B,)`` bool. The mean is over the
    batch; with several processes average it and call :func:`diffalign.losses.unpaired.kto` with that shift. Each image
    has its own time and noise.
    """
    u = pair_margin(log_ratio, beta=beta)
    return kto(u, desirable, shift=kto_shift(u), weight_d=weight_d, weight_u=weight_u)


@recipe("diffusion-kto-loss-averse", "unpaired", beta=2000.0)
def diffusion_kto_loss_averse(
    log_ratio: Tensor, desirable: Tensor, *, beta: float, weight_d: float = 1.0, weight_u: float = 1.0
) -> Tensor:
    """Diffusion-KTO with the loss-averse utility ``log sigmoid`` (arXiv:2404.04465; ``--halo loss_averse``).

    Formula: -w log sigmoid(+-(u - max(0, mean u))), u = beta log_ratio

    The code adds the constant w. With a pair this approaches Diffusion-DPO.
    """
    u = pair_margin(log_ratio, beta=beta)
    return logistic_unpaired(u, desirable, shift=kto_shift(u), weight_d=weight_d, weight_u=weight_u)


@recipe("diffusion-kto-risk-seeking", "unpaired", beta=2000.0)
def diffusion_kto_risk_seeking(
    log_ratio: Tensor, desirable: Tensor, *, beta: float, weight_d: float = 1.0, weight_u: float = 1.0
) -> Tensor:
    """Diffusion-KTO with the risk-seeking utility ``-log sigmoid(-s)`` (arXiv:2404.04465; ``--halo risk_seeking_3``).

    Formula: w log sigmoid(-s), s = +-(u - max(0, mean u)), u = beta log_ratio

    Convex utility: correctly ranked samples have the largest weight, and the loss is unbounded below. The code adds the
    constant w; its two other variants (``risk_seeking_1``, ``_2``) treat undesirable samples differently and are not
    in the paper.
    """
    u = pair_margin(log_ratio, beta=beta)
    return risk_seeking(u, desirable, shift=kto_shift(u), weight_d=weight_d, weight_u=weight_u)


def odds(error: Tensor, *, scale: float = 0.5) -> Tensor:
    """Return MaPO's ``f(m) = s m / (exp(s m) - 1)`` of an error m >= 0, like ``error``: 1 at 0, falling.

    The released form is 0 / 0 at m = 0; this one uses the series there, slope ``-s / 2``.
    """
    x = scale * as_float(error)
    small = x.abs() < 1e-3
    safe = torch.where(small, 1.0, x)
    return torch.where(small, 1 - x / 2 + x**2 / 12, -safe * (-safe).exp() / (-safe).expm1())


@recipe("mapo", "pair", beta=0.1, scale=0.5, steps=1000)
def mapo(error_w: Tensor, error_l: Tensor, *, beta: float, scale: float, steps: int) -> Tensor:
    """MaPO (arXiv:2406.06424), without a reference; f is :func:`odds`.

    Formula: m_w - beta log sigmoid(steps (f(m_w) - f(m_l))), f(m) = s m / (exp(s m) - 1), m = mean squared noise error

    ``error`` ``(B,)`` are mean squared noise errors, ``steps`` the number of training time steps.
    """
    check_floating(error_w=error_w, error_l=error_l)
    check_same_shape(error_w=error_w, error_l=error_l)
    z = pair_margin(odds(error_w, scale=scale), odds(error_l, scale=scale), beta=steps)
    return as_float(error_w) + beta * logistic(z)


def _dspo_weight(r_w: Tensor, r_l: Tensor, beta: float, like: Tensor) -> Tensor:
    """``1 - sigmoid(beta (r_w - r_l))`` with its gradient, shaped to multiply latents."""
    return (-pair_margin(r_w, r_l, beta=beta)).sigmoid().reshape(-1, *[1] * (like.ndim - 1))


@recipe("dspo", "pair", beta=1e-3)
def dspo(r_w: Tensor, r_l: Tensor, value_w: Tensor, value_ref_w: Tensor, noise_w: Tensor, *, beta: float) -> Tensor:
    """DSPO (ICLR 2025; the form for SD 1.5 in AIDC-AI/Diffusion-SDPO ``train.py``): score matching on the preferred
    image, shifted along the policy's own change.

    Formula: mean((v - noise - beta (1 - sigmoid(z)) (v - v_ref))**2) on the preferred image, z = beta (r_w - r_l)

    The gradient goes through the sigmoid too. :func:`dspo_sdxl` is the rule of the same code for SDXL.

    Args:
        r_w: ``(B,)`` surrogate of the preferred image, of the mean noise error, with its gradient.
        r_l: ``(B,)`` that of the other one.
        value_w: ``(B, ...)`` predicted noise of the preferred image, with its gradient.
        value_ref_w: ``(B, ...)`` that of the reference; detached.
        noise_w: ``(B, ...)`` the noise; detached.
        beta: inverse temperature, and weight of the shift.
    """
    check_floating(value_w=value_w)
    check_same_shape(value_w=value_w, value_ref_w=value_ref_w, noise_w=noise_w)
    value, ref, noise = as_float(value_w), as_float(value_ref_w.detach()), as_float(noise_w.detach())
    weight = _dspo_weight(r_w, r_l, beta, value)
    return latent_mean((value - noise - beta * weight * (value - ref)) ** 2)


@recipe("dspo-sdxl", "pair", beta=1e-3, threshold=0.1)
def dspo_sdxl(
    r_w: Tensor, r_l: Tensor, value_w: Tensor, value_ref_w: Tensor, *, beta: float, threshold: float
) -> Tensor:
    """DSPO's rule for SDXL (AIDC-AI/Diffusion-SDPO ``train.py``): the shift alone, dropped while it is small.

    Formula: mean((1 - sigmoid(z))**2 (v - v_ref)**2) if the batch mean of (v - v_ref)**2 >= threshold,
    else (1 - sigmoid(z))**2

    Arguments as in :func:`dspo`.
    """
    check_same_shape(value_w=value_w, value_ref_w=value_ref_w)
    moved = as_float(value_w) - as_float(value_ref_w.detach())
    weight = _dspo_weight(r_w, r_l, beta, moved)
    large = (moved**2).mean() >= threshold
    return latent_mean(torch.where(large, (weight * moved) ** 2, (weight**2).expand_as(moved)))
