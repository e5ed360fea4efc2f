"""The step in plain torch: the specification of the kernel, and what computes where the kernel does not.

``v = u + w (c - u)``, ``mean = a x + b v``, ``x' = mean + s z`` rounded to the type of x, and, with n = D under
`mean`, 1 under `sum`, of the D elements of a sample::

    log_prob = -sum (x' - mean)^2 / (2 s^2 n) - log s - log(2 pi) / 2      (the last two times D under `sum`)
    kl       =  sum (mean - mean_ref)^2 / (2 s^2 n),  mean - mean_ref = b (v - v_ref)

A row with s <= `S_MIN` has no density: its log_prob is NaN, its kl 0, and neither has a gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

S_MIN = 1e-4
"""A step with less noise than this has no usable density; as in `diffalign.sampling.dynamics`."""
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of the arithmetic: float32, float64 kept."""
    return torch.promote_types(dtype, torch.float32)


def column(rows: Tensor, index: int, like: Tensor) -> Tensor:
    """One coefficient per sample, shaped to broadcast over `(B, ...)`."""
    return rows[:, index].to(wide(like.dtype)).reshape(-1, *(1,) * (like.dim() - 1))


def guided(cond: Tensor, uncond: Tensor | None, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """The guided prediction in `dtype`."""
    if uncond is None:
        return cond.to(dtype)
    base = uncond.to(dtype)
    return base + column(rows, 3, base) * (cond.to(dtype) - base)


def finish(squares: Tensor, gaps: Tensor, s: Tensor, count: int, total: bool) -> tuple[Tensor, Tensor]:
    """log_prob and kl `(B,)` from the sums of squares `(B,)` of a sample's elements."""
    dense = s > S_MIN
    safe = torch.where(dense, s, torch.ones_like(s))
    share, density = (1, count) if total else (count, 1)
    log_prob = -squares / (2 * safe**2 * share) - density * (safe.log() + HALF_LOG_2PI)
    kl = gaps / (2 * safe**2 * share)
    return torch.where(dense, log_prob, math.nan), torch.where(dense, kl, 0.0)


def weights(grad_log_prob: Tensor, grad_kl: Tensor, rows: Tensor, count: int, total: bool, reparam: bool) -> Tensor:
    """What ``x' - mean`` and ``v - v_ref`` are multiplied by in the gradient of the mean, `(B, 2)`."""
    b, s = rows[:, 1].to(grad_kl.dtype), rows[:, 2].to(grad_kl.dtype)
    dense = s > S_MIN
    precision = torch.where(dense, s, torch.ones_like(s)) ** -2 / (1 if total else count)
    zero = torch.zeros_like(precision)
    of_log_prob = zero if reparam else torch.where(dense, grad_log_prob * precision, zero)
    return torch.stack([of_log_prob, torch.where(dense, grad_kl * precision * b, zero)], dim=1)


def forward(
    cond: Tensor,
    uncond: Tensor | None,
    x: Tensor,
    given: Tensor,
    reference: Tensor | None,
    rows: Tensor,
    draw: bool,
    total: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """next_x (empty unless `draw`), log_prob `(B,)` and kl `(B,)`; see `diffalign.cuda_ext.sampler_step`."""
    dtype = wide(x.dtype)
    v = guided(cond, uncond, rows, dtype)
    mean = column(rows, 0, x) * x.to(dtype) + column(rows, 1, x) * v
    next_x = (mean + column(rows, 2, x) * given.to(dtype)).to(x.dtype) if draw else given
    squares = (next_x.to(dtype) - mean).flatten(1).square().sum(1)
    gap = torch.zeros_like(mean) if reference is None else column(rows, 1, x) * (v - reference.to(dtype))
    s = rows[:, 2].to(dtype)
    log_prob, kl = finish(squares, gap.flatten(1).square().sum(1), s, mean[:1].numel(), total)
    return next_x.contiguous() if draw else x.new_empty(0), log_prob, kl


def backward(
    grad_next: Tensor | None,
    grad_rows: Tensor,
    cond: Tensor,
    uncond: Tensor | None,
    x: Tensor,
    next_x: Tensor,
    reference: Tensor | None,
    rows: Tensor,
    want_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of cond, uncond (empty without one) and x (empty unless wanted).

    Args:
        grad_next: Of next_x, where the step is reparametrised.
        grad_rows: `(B, 2)`, see `weights`.
        cond: As in `forward`; so are the others.
        uncond: Likewise.
        x: Likewise.
        next_x: `(B, ...)` the outcome.
        reference: Likewise.
        rows: Likewise.
        want_x: Whether the gradient of x is needed.
    """
    dtype = wide(x.dtype)
    v = guided(cond, uncond, rows, dtype)
    a, b = column(rows, 0, x), column(rows, 1, x)
    mean = a * x.to(dtype) + b * v
    of_density = column(grad_rows, 0, x) * (next_x.to(dtype) - mean)
    if grad_next is not None:
        of_density = of_density + grad_next.to(dtype)
    of_prediction = b * of_density
    if reference is not None:
        of_prediction = of_prediction + b * column(grad_rows, 1, x) * (v - reference.to(dtype))
    w = column(rows, 3, x)
    of_cond = (of_prediction if uncond is None else w * of_prediction).to(cond.dtype)
    of_uncond = x.new_empty(0) if uncond is None else ((1 - w) * of_prediction).to(uncond.dtype)
    of_x = (a * of_density).to(x.dtype) if want_x else x.new_empty(0)
    return of_cond.contiguous(), of_uncond.contiguous(), of_x.contiguous()
