"""Preference objectives: one margin, then one link function.

:func:`pair_margin` forms ``z = beta (score_w - loser_scale score_l) - margin``, and every link has one shape,
``(z, *, ...) -> like z``, unreduced fp32 (fp64 kept), to be minimised:

=========================  ==========================================================
:func:`logistic`           ``-log sigmoid(z)`` (DPO, Bradley-Terry)
:func:`focal`              ``-(1 - sigmoid(z))**gamma log sigmoid(z)``
:func:`hinge`              ``relu(target - z)`` (SLiC, RSO, the triplet loss on distances)
:func:`smooth_hinge`       the hinge with a quadratic joint
:func:`square`             ``(z - target)**2`` (IPO)
:func:`linear`             ``-z``
:func:`probit`             ``-log Phi(z)``
=========================  ==========================================================

Scores are summed or mean log-ratios, surrogate log-ratios of a diffusion model, reward-model outputs or negative
distances, ``(B,)`` or ``(B, T)``. Gradients flow to the scores and to ``margin`` (TDPO needs the gradient of its loser
part); beta and targets are detached. Soft and noisy labels: :mod:`diffalign.losses.label_noise`.

When scores change scale (sum to mean over tokens or latent elements), logistic forms only need a rescaled beta. The
square has a target in nats: on a surrogate, tune beta or tau again.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from diffalign.losses.common import (
    as_float,
    check_floating,
    check_not_negative,
    check_positive,
    check_same_shape,
    per_row,
)

Number = float | Tensor


def pair_margin(
    score_w: Tensor,
    score_l: Number = 0.0,
    *,
    beta: Number = 1.0,
    loser_scale: Number = 1.0,
    margin: Number = 0.0,
) -> Tensor:
    """Return ``z = beta (score_w - loser_scale score_l) - margin``, like ``score_w``.

    Args:
        score_w: ``(B,)`` or ``(B, T)`` scores of the winners.
        score_l: same shape, scores of the losers; 0 for an anchor instead of a second item.
        beta: inverse temperature, > 0: a number, ``(B,)`` or ``(B, T)``; a tensor may contain zeros (pairs without
            weight). Typical: 0.01 to 0.5 on summed log-probs, thousands on means over latents.
        loser_scale: weight of the loser's score (below 1: conservative, CPL; then not invariant to a shift of both).
        margin: subtracted after beta; with gradient.

    Raises:
        ValueError: scores are integers, shapes do not fit, or beta is not positive.
    """
    loser = score_l if isinstance(score_l, Tensor) else torch.full_like(score_w, score_l)
    check_floating(score_w=score_w, score_l=loser)
    check_same_shape(score_w=score_w, score_l=loser)
    (check_not_negative if isinstance(beta, Tensor) and beta.ndim else check_positive)(beta=beta)
    check_not_negative(loser_scale=loser_scale)
    winner, loser = as_float(score_w), as_float(loser)
    beta, loser_scale = per_row(beta, winner).detach(), per_row(loser_scale, winner).detach()
    return beta * (winner - loser_scale * loser) - per_row(margin, winner)


def logistic(z: Tensor) -> Tensor:
    """Return ``-log sigmoid(z)``: log 2 at z = 0, slope ``-sigmoid(-z)``."""
    return -F.logsigmoid(as_float(z))


def focal(z: Tensor, *, gamma: float) -> Tensor:
    """Return ``-(1 - sigmoid(z))**gamma log sigmoid(z)``, smaller weight on well-separated pairs; gamma = 0 is
    :func:`logistic`.

    Raises:
        ValueError: gamma is negative.
    """
    check_not_negative(gamma=gamma)
    return logistic(z) * (gamma * F.logsigmoid(-as_float(z))).exp()


def hinge(z: Tensor, *, target: float = 1.0) -> Tensor:
    """Return ``relu(target - z)``; no gradient once z reaches the target."""
    return torch.relu(target - as_float(z))


def smooth_hinge(z: Tensor, *, target: float = 1.0, width: float = 5.0) -> Tensor:
    """Return the hinge with a parabola over the last ``width`` before the target: with ``g = relu(target - z)``,
    ``g**2 / (2 width)`` up to ``g = width``, ``g - width / 2`` beyond (PAL).

    Raises:
        ValueError: width is not positive.
    """
    check_positive(width=width)
    g = hinge(z, target=target)
    return torch.where(g <= width, g**2 / (2 * width), g - width / 2)


def square(z: Tensor, *, target: Number = 0.0) -> Tensor:
    """Return ``(z - target)**2``. It acts on z with beta inside: IPO and INPO pass beta = 1.

    On a surrogate log-ratio the target has no absolute meaning: tune beta or tau.

    Args:
        z: the margin.
        target: a number, ``(B,)`` or the shape of ``z``; detached.
    """
    z = as_float(z)
    return (z - per_row(target, z).detach()) ** 2


def linear(z: Tensor) -> Tensor:
    """Return ``-z``, the small-beta limit of :func:`logistic`. Unbounded below: use few steps, a low rank, early
    stopping.
    """
    return -as_float(z)


def probit(z: Tensor) -> Tensor:
    """Return ``-log Phi(z)``, Phi the normal distribution function: preferences between Gaussian scores (Thurstone)."""
    return -torch.special.log_ndtr(as_float(z))
