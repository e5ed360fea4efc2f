"""Running state of a scalar: average, quantile, and a proportional-integral-derivative controller.

Functional: a call takes the old state and returns the new one. States are 0-d fp64 tensors for checkpoints; None is the
initial state. Values that are not finite are left out, and a batch without a valid value keeps the state. The exact
running mean and deviation is :func:`diffalign.losses.common.update_moments`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses.common import check_probability, keep, scored


def _start(state: Tensor | None, x: Tensor) -> Tensor:
    """The state as a 0-d fp64 tensor; NaN for none."""
    if state is None:
        return torch.full((), torch.nan, dtype=torch.float64, device=x.device)
    if state.numel() != 1:
        raise ValueError(f"the state is one number, got a tensor of shape {tuple(state.shape)}; None starts a new one")
    return state.detach().double().reshape(())


def _advance(state: Tensor, first: Tensor, later: Tensor, valid: Tensor) -> Tensor:
    """``first`` if there was no state, ``later`` if there was, ``state`` if the batch has no valid value."""
    return torch.where(valid.any(), torch.where(state.isnan(), first, later), state)


def update_ema(state: Tensor | None, x: Tensor, *, rate: float = 0.1, mask: Tensor | None = None) -> Tensor:
    """Return ``(1 - rate) * state + rate * mean(x)``; the mean itself at the first call.

    Args:
        state: state returned by the previous call, None at the start.
        x: values of this batch, any shape, detached here.
        rate: share of the new batch, in [0, 1]; 0 freezes.
        mask: shape of ``x``, 1 where valid.

    Returns:
        0-d fp64 tensor; NaN before the first valid value.

    Raises:
        ValueError: ``rate`` is outside [0, 1], or a shape does not fit.
    """
    check_probability(rate=rate)
    state, valid = _start(state, x), scored(x, mask)
    mean = keep(x.detach().double(), valid).sum() / valid.sum().clamp(min=1)
    return _advance(state, mean, state + rate * (mean - state), valid)


def update_quantile(
    state: Tensor | None, x: Tensor, *, level: float, rate: float = 0.1, mask: Tensor | None = None
) -> Tensor:
    """Return ``state + rate * (level - share of x below state)`` (RiskPO, its code); the empirical quantile at first.

    Stationary when the share below is ``level``. The step has the unit of ``x``: scale ``rate`` with its spread.
    Arguments, result and errors as in :func:`update_ema`; ``level`` in [0, 1].
    """
    check_probability(level=level, rate=rate)
    state, valid = _start(state, x), scored(x, mask)
    x = x.detach().double()
    first = torch.nanquantile(x.masked_fill(~valid, torch.nan), level)
    below = ((x < state) & valid).sum() / valid.sum().clamp(min=1).double()
    return _advance(state, first, state + rate * (level - below), valid)


class Pid(NamedTuple):
    """State of a controller: the bounded sum of errors and the last error, each a 0-d fp64 tensor."""

    integral: Tensor
    error: Tensor


def empty_pid() -> Pid:
    """Return the initial state of a controller."""
    zero = torch.zeros((), dtype=torch.float64)
    return Pid(zero, zero.clone())


def update_pid(
    state: Pid, error: Tensor | float, *, gains: tuple[float, float, float] = (0.3, 0.01, 0.05), bound: float = 1.0
) -> tuple[Pid, Tensor]:
    """Return the new state and ``p * error + i * integral + d * (error - last error)`` (SAFE, its code).

    Args:
        state: state returned by the previous call, :func:`empty_pid` at the start.
        error: one number; in SAFE the velocity of the running reward minus .001.
        gains: p, i and d.
        bound: the integral is clamped to ``[-bound, bound]``.

    Raises:
        ValueError: ``bound`` is not positive.
    """
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound}")
    now = torch.as_tensor(error).detach().double().reshape(()).to(state.error.device)
    integral = (state.integral + now).clamp(-bound, bound)
    output = gains[0] * now + gains[1] * integral + gains[2] * (now - state.error)
    return Pid(integral, now), output
