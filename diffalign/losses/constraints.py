"""Penalties for constraints on a value, and adaptive weights by Lagrange multipliers.

Penalties are minimised, ``(value, bound, ...) -> like value``, unreduced fp32 (fp64 kept). The gradient flows to
``value`` only, bounds are detached. ``value`` must be differentiable: the released code of SAFE and EPO builds the
penalty from plain numbers, which has no gradient.

A multiplier is an unconstrained parameter ``xi (K,)`` with a *squash*, ``xi -> mu``: :func:`torch.sigmoid` for a lower
bound on a reward (mu in (0, 1)), :func:`torch.tanh` for equality (mu in (-1, 1), negative for a reward above the
threshold), :func:`identity` for mu = xi. :func:`lagrangian` is minimised over ``xi`` only, :func:`lagrangian_weights`
are the weights of the advantages.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import relu

from diffalign.losses.common import as_float, check_not_negative, check_positive, check_same_shape

Squash = Callable[[Tensor], Tensor]


def _fixed(bound: float | Tensor, value: Tensor) -> Tensor:
    """A bound as a detached tensor that broadcasts to ``value``."""
    bound = torch.as_tensor(bound, dtype=value.dtype, device=value.device).detach()
    if torch.broadcast_shapes(bound.shape, value.shape) != value.shape:
        raise ValueError(f"a bound of shape {tuple(bound.shape)} does not fit values of shape {tuple(value.shape)}")
    return bound


def squared_hinge(value: Tensor, bound: float | Tensor, *, coef: float = 1.0) -> Tensor:
    """Return ``coef / 2 * relu(value - bound)**2``: 0 below the bound, gradient ``coef (value - bound)`` above
    (DRPO's KL constraint).

    Raises:
        ValueError: ``coef`` is not positive, or the bound does not fit.
    """
    check_positive(coef=coef)
    value = as_float(value)
    return coef / 2 * relu(value - _fixed(bound, value)) ** 2


def band(value: Tensor, lower: float | Tensor, upper: float | Tensor) -> Tensor:
    """Return ``relu(lower - value) + relu(value - upper)``, the distance from the band (EPO's entropy band in a form
    that has a gradient [ours]; ``lower = upper`` is PPO-max's ``|H - 35|``).

    Raises:
        ValueError: the band is empty, or a bound does not fit.
    """
    value = as_float(value)
    low, high = _fixed(lower, value), _fixed(upper, value)
    check_not_negative(width=high - low)
    return relu(low - value) + relu(value - high)


def log_barrier(value: Tensor, floor: float | Tensor, *, t: float = 20.0, least: float = 1e-3) -> Tensor:
    """Return ``-log(max(value - floor, least)) / t``, gradient ``-1 / (t (value - floor))`` above the floor (C-MORL,
    arXiv:2410.02236, its code; t about 20 [unsure]).

    Below ``floor + least`` it is constant, without gradient: start above the floor.

    Raises:
        ValueError: ``t`` or ``least`` is not positive, or the floor does not fit.
    """
    check_positive(t=t, least=least)
    value = as_float(value)
    return -(value - _fixed(floor, value)).clamp(min=least).log() / t


def identity(multiplier: Tensor) -> Tensor:
    """Return the multiplier itself, in fp32 (MaxInfoRL: the log of its coefficient)."""
    return as_float(multiplier)


def lagrangian(multiplier: Tensor, value: Tensor, bound: float | Tensor, *, squash: Squash = torch.sigmoid) -> Tensor:
    """Return ``squash(xi) * (value - bound)`` with gradient to ``xi`` only (arXiv:2310.04373, its code).

    Minimised over ``xi`` it lowers the weight of a reward above its threshold and raises that of a reward below it.

    Args:
        multiplier: ``xi``, ``(K,)``.
        value: ``(K,)``, mean return of each reward.
        bound: thresholds, a number or ``(K,)``.
        squash: ``xi -> mu``, as above.

    Raises:
        ValueError: the shapes do not fit.
    """
    check_same_shape(multiplier=multiplier, value=value)
    value = as_float(value.detach())
    return squash(as_float(multiplier)) * (value - _fixed(bound, value))


def lagrangian_weights(multiplier: Tensor, *, squash: Squash = torch.sigmoid) -> Tensor:
    """Return the weights ``[K - sum mu, mu_1 ... mu_K]``, ``(K + 1,)``, detached: of the advantage of the KL and of
    each reward's advantage, each normalised separately. ``xi -> -inf`` under the sigmoid leaves the KL alone.

    Raises:
        ValueError: ``multiplier`` is not ``(K,)``.
    """
    if multiplier.ndim != 1:
        raise ValueError(f"multiplier must have shape (K,), got {tuple(multiplier.shape)}")
    mu = squash(as_float(multiplier.detach()))
    return torch.cat([(len(mu) - mu.sum()).reshape(1), mu])
