"""Preference objectives: one margin, then one link function.

:func:`pair_margin` forms ``z = beta (score_w - loser_scale score_l) - margin``, and every link has one shape,
``(z, *, ...) -> like z``, unreduced fp32 (fp64 kept), to be minimised:

=========================  ==========================================================
:func:`logistic`           ``-log sigmoid(z)`` (DPO, Bradley-Terry)
:func:`focal`              ``-(1 - sigmoid(z))**gamma log sigmoid(z)``
:func:`noise_mixture`      ``-log((1 - flip) sigmoid(z) + flip / 2)``
:func:`hinge`              ``relu(target - z)`` (SLiC, RSO, the triplet loss on distances)
:func:`smooth_hinge`       the hinge with a quadratic joint
:func:`square`             ``(z - target)**2`` (IPO and its kin)
:func:`linear`             ``-z``
:func:`probit`             ``-log Phi(z)``
=========================  ==========================================================

Scores are summed or mean log-ratios, surrogate log-ratios of a diffusion model, reward-model outputs or negative
distances, ``(B,)`` or ``(B, T)``. Gradients flow to the scores and to ``margin`` (TDPO needs its loser side); beta,
labels and targets are detached. An uncertain label is one link at both ends, :func:`soft_label`; label noise maps the
label, :func:`symmetric_noise` and :func:`robust_noise`.

Logistic forms merely rescale beta when scores change scale (sum to mean over tokens or latent elements). The square
does not: its target is a number of nats, and on a surrogate it means something only up to a re-tuned beta or tau.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from diffalign.losses.common import (
    as_float,
    check_floating,
    check_not_negative,
    check_positive,
    check_probability,
    check_same_shape,
    expand_rows,
)

Number = float | Tensor
Label = TypeVar("Label", float, Tensor)


def _rows(value: Number, like: Tensor) -> Number:
    """A number as it is; one value per row, or one per entry, widened to the shape of ``like``."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    return expand_rows(as_float(value), like)


def _fixed(value: Number, like: Tensor) -> Number:
    """:func:`_rows` without a gradient."""
    return _rows(value.detach() if isinstance(value, Tensor) else value, like)


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
        score_w: ``(B,)`` or ``(B, T)`` scores of the preferred items.
        score_l: same shape, scores of the others; 0 for an anchor instead of a second item.
        beta: inverse temperature, > 0: a number, ``(B,)`` or ``(B, T)``; a tensor may hold zeros (a pair without a
            say). No default fits both worlds: 0.01 to 0.5 on summed log-probs, thousands on means over latents.
        loser_scale: weight of the loser's score (below 1: conservative, CPL; no longer invariant to a shift of both).
        margin: subtracted after beta; keeps its gradient.

    Raises:
        ValueError: scores are integers, shapes do not fit, or beta is not positive.
    """
    loser = score_l if isinstance(score_l, Tensor) else torch.full_like(score_w, score_l)
    check_floating(score_w=score_w, score_l=loser)
    check_same_shape(score_w=score_w, score_l=loser)
    (check_not_negative if isinstance(beta, Tensor) and beta.ndim else check_positive)(beta=beta)
    check_not_negative(loser_scale=loser_scale)
    difference = as_float(score_w) - _fixed(loser_scale, score_w) * as_float(loser)
    return _fixed(beta, score_w) * difference - _rows(margin, score_w)


def logistic(z: Tensor) -> Tensor:
    """Return ``-log sigmoid(z)``: log 2 at z = 0, slope ``-sigmoid(-z)``."""
    return -F.logsigmoid(as_float(z))


def focal(z: Tensor, *, gamma: float) -> Tensor:
    """Return ``-(1 - sigmoid(z))**gamma log sigmoid(z)``, which cares less for pairs already told apart; gamma = 0 is
    :func:`logistic`.

    Raises:
        ValueError: gamma is negative.
    """
    check_not_negative(gamma=gamma)
    return logistic(z) * (gamma * F.logsigmoid(-as_float(z))).exp()


def noise_mixture(z: Tensor, *, flip: float) -> Tensor:
    """Return ``-log((1 - flip) sigmoid(z) + flip / 2)``: a share ``flip`` of answers is a coin toss (Ibarz et al.).

    Bounded by ``-log(flip / 2)``, so that no mislabelled pair pulls without limit.

    Raises:
        ValueError: flip is outside [0, 1).
    """
    if not 0 <= flip < 1:
        raise ValueError(f"flip is the share of coin tosses and must be in [0, 1), got {flip}")
    z = as_float(z)
    share = torch.full_like(z, flip)
    return -torch.logaddexp((1 - share).log() + F.logsigmoid(z), (share / 2).log())


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

    On a surrogate log-ratio the target has no absolute meaning; re-tune beta or tau.

    Args:
        z: the margin.
        target: a number, ``(B,)`` or the shape of ``z``; detached.
    """
    return (as_float(z) - _fixed(target, z)) ** 2


def linear(z: Tensor) -> Tensor:
    """Return ``-z``, the small-beta limit of :func:`logistic`. Unbounded below: few steps, low rank, early stop."""
    return -as_float(z)


def probit(z: Tensor) -> Tensor:
    """Return ``-log Phi(z)``, Phi the normal distribution function: preferences between Gaussian scores (Thurstone)."""
    return -torch.special.log_ndtr(as_float(z))


def soft_label(link: Callable[[Tensor], Tensor], z: Tensor, label: Number = 1.0) -> Tensor:
    """Return ``p link(z) + (1 - p) link(-z)``, p the probability that the first item is the better one.

    Under the logistic link the slope is ``sigmoid(z) - p`` and the minimum lies at ``logit(p)``; under the square at
    ``(2 p - 1) target``. Labels outside [0, 1], as :func:`robust_noise` makes them, are allowed.

    Args:
        link: a function of this file, ``functools.partial`` for its knobs.
        z: the margin, ``(B,)`` or ``(B, T)``. The reverse term sees the same z, margin and loser scale included.
        label: p, a number, ``(B,)`` or the shape of ``z``; detached.
    """
    p = _fixed(label, z)
    return p * link(z) + (1 - p) * link(-z)


def _noise_input(label: Label, flip: float) -> Label:
    check_probability(label=label)
    if not 0 <= flip < 0.5:
        raise ValueError(f"flip is the share of swapped labels and must be in [0, 0.5), got {flip}")
    return as_float(label) if isinstance(label, Tensor) else label


def symmetric_noise(label: Label, *, flip: float) -> Label:
    """Return ``p (1 - 2 flip) + flip``: the label that noise of rate ``flip`` leaves (conservative DPO, smoothing).

    Raises:
        ValueError: the label is outside [0, 1], or flip outside [0, 0.5).
    """
    return _noise_input(label, flip) * (1 - 2 * flip) + flip


def robust_noise(label: Label, *, flip: float) -> Label:
    """Return ``(p - flip) / (1 - 2 flip)``, the inverse of :func:`symmetric_noise`: the loss under it is, over flips of
    rate ``flip``, the clean loss on average (rDPO).

    The label leaves [0, 1], so the logistic loss is unbounded below (flip 0.2: -16.7 at z = 50): log z, stop early.

    Raises:
        ValueError: the label is outside [0, 1], or flip outside [0, 0.5).
    """
    return (_noise_input(label, flip) - flip) / (1 - 2 * flip)
