"""Losses of a value, reward or quantile head against a target.

All have one shape, ``(pred, target, *, ...) -> like pred``, unreduced fp32, to be minimised; ``e = pred - target``:

==================  =========================================  ==================================
function            loss                                       minimiser over a noisy target
==================  =========================================  ==================================
``mse``             ``e**2 / 2``                               mean
``huber``           ``e**2 / 2``, linear beyond ``delta``      between mean and median
``clipped``         PPO's value loss                           mean, in small steps
``pinball``         ``max(-tau e, (1 - tau) e)``               tau-quantile
``soft_median``     ``softplus(e) - e / 2``                    near the median
``expectile``       ``abs(tau - 1[e > 0]) e**2``               tau-expectile
``itakura_saito``   ``(exp(a e) - a e - 1) / a**2``            ``-log E exp(-a target) / a``
==================  =========================================  ==================================

The target is detached; it may be of any shape that broadcasts to that of ``pred``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from diffalign.losses.common import as_float, check_floating, check_positive, check_probability


def _error(pred: Tensor, target: Tensor) -> Tensor:
    """``pred - target`` in fp32, target detached.

    Raises:
        ValueError: ``pred`` is of an integer type, or the target does not broadcast to it.
    """
    check_floating(pred=pred)
    try:
        target = as_float(target.detach()).expand_as(pred)
    except RuntimeError as error:
        raise ValueError(f"target of shape {tuple(target.shape)} does not fit pred, {tuple(pred.shape)}") from error
    return as_float(pred) - target


def mse(pred: Tensor, target: Tensor) -> Tensor:
    """Return ``e**2 / 2``."""
    return _error(pred, target) ** 2 / 2


def huber(pred: Tensor, target: Tensor, *, delta: float = 0.5) -> Tensor:
    """Return ``e**2 / 2`` up to ``|e| = delta``, ``delta (|e| - delta / 2)`` beyond (Safe-KL: delta 0.5)."""
    check_positive(delta=delta)
    size = _error(pred, target).abs()
    return torch.where(size <= delta, size**2 / 2, delta * (size - delta / 2))


def clipped(pred: Tensor, target: Tensor, *, old: Tensor, clip: float = 0.2) -> Tensor:
    """Return ``max(e**2, (old + clamp(pred - old, +-clip) - target)**2) / 2``: PPO's value loss (PPO-max: 0.2).

    ``old``: prediction at rollout, shape of ``pred``, detached. No gradient where the value has moved further than
    ``clip`` towards its target.
    """
    check_positive(clip=clip)
    step = _error(pred, old).clamp(-clip, clip)
    held = as_float(old.detach()) + step
    return torch.maximum(mse(pred, target), _error(held, target) ** 2 / 2)


def pinball(pred: Tensor, target: Tensor, *, level: float | Tensor = 0.5) -> Tensor:
    """Return ``max(-level e, (1 - level) e)``: the quantile loss; half the absolute error at level 1/2.

    Args:
        pred: e.g. ``(B, Q)``, one column for each level.
        target: broadcasts to ``pred``, e.g. ``(B, 1)``.
        level: in (0, 1), a number or a tensor that broadcasts to ``pred``, e.g. ``(Q,)``.
    """
    check_probability(level=level, open_ends=True)
    e = _error(pred, target)
    return torch.maximum(-level * e, (1 - level) * e)


def soft_median(pred: Tensor, target: Tensor) -> Tensor:
    """Return ``softplus(-|e|) + |e| / 2``, a smooth absolute error over 2 (the median head of BRRL's code)."""
    e = _error(pred, target)
    return softplus(e) - e / 2


def expectile(pred: Tensor, target: Tensor, *, level: float = 0.5) -> Tensor:
    """Return ``|level - 1[e > 0]| e**2``: above 1/2 the value is above the mean (IQL; IPL: 0.7, MetaWorld 0.75).
    ``level`` in (0, 1).
    """
    check_probability(level=level, open_ends=True)
    e = _error(pred, target)
    return torch.where(e > 0, 1 - level, level) * e**2


def itakura_saito(pred: Tensor, target: Tensor, *, alpha: float = 1.0, max_exponent: float = 10.0) -> Tensor:
    """Return ``(exp(alpha e) - alpha e - 1) / alpha**2`` (arXiv:2505.16925), minimal at the entropic certainty
    equivalent ``-log E exp(-alpha target) / alpha``.

    Args:
        pred: any shape.
        target: broadcasts to ``pred``.
        alpha: risk aversion, negative for risk seeking, not 0; towards 0 the loss is ``e**2 / 2``. A head trained with
            ``alpha = -1 / beta`` on rewards of reference samples learns ``beta log Z`` [derived].
        max_exponent: bound of ``alpha e``; beyond it the loss continues along its tangent, against overflow [ours].

    Raises:
        ValueError: ``alpha`` is 0.
    """
    if not alpha:
        raise ValueError("alpha must not be 0; its limit there is mse")
    x = alpha * _error(pred, target)
    held = x.clamp(max=max_exponent)
    slope = torch.expm1(held)
    return (torch.expm1(held) - held + slope * (x - held)) / alpha**2


def lower_mean(quantiles: Tensor, levels: Tensor, *, below: float) -> Tensor:
    """Return the mean of the quantiles whose level is at most ``below``: a risk-averse reward (QRM), ``(...,)``.

    Args:
        quantiles: ``(..., Q)`` predictions.
        levels: ``(Q,)`` their levels.
        below: highest level in the mean; 1 for the plain mean.

    Raises:
        ValueError: no level is at most ``below``, or there is not one level for each quantile.
    """
    if levels.shape != quantiles.shape[-1:]:
        raise ValueError(f"{tuple(quantiles.shape)} quantiles need one level each, got levels {tuple(levels.shape)}")
    low = levels <= below
    if not low.any():
        raise ValueError(f"no quantile has a level <= {below}; the lowest is {float(levels.min())}")
    return as_float(quantiles)[..., low].mean(-1)
