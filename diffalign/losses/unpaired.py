"""Losses on single desirable and undesirable samples, without pairs.

All have one shape, ``(u, desirable, *, shift=0.0, weight_d=1.0, weight_u=1.0, mask=None) -> like u``, unreduced fp32:

- ``u``: ``(B,)`` or ``(B, T)``, ``beta * log_ratio`` (or minus a denoising error); the only input with a gradient.
- ``desirable``: bool, shape of ``u``.
- ``shift``: the neutral value, in units of ``u``; a float, ``()``, ``(B,)`` or ``(B, T)``; detached.
- ``weight_d``, ``weight_u``: weights of desirable and undesirable samples, >= 0, shaped like ``shift``; detached.
- ``mask``: shape of ``u``, 1 where valid.

Each is a function of the signed margin ``s = u - shift`` (desirable) or ``shift - u`` (undesirable).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Concatenate, ParamSpec

import torch
from torch import Tensor
from torch.nn import functional as F

from diffalign.losses.common import (
    check_any_valid,
    check_floating,
    check_mask,
    check_not_negative,
    check_positive,
    check_probability,
    check_same_shape,
    keep,
    masked_mean,
    per_row,
)

P = ParamSpec("P")


def _check(u: Tensor, desirable: Tensor, mask: Tensor | None) -> None:
    if desirable.dtype != torch.bool:
        raise ValueError(f"desirable must be a bool tensor, for example labels > 0, got {desirable.dtype}")
    check_floating(u=u)
    check_same_shape(u=u, desirable=desirable)
    check_any_valid(mask)


def _signed(u: Tensor, desirable: Tensor, shift: float | Tensor, mask: Tensor | None) -> Tensor:
    """Signed margin, masked entries 0."""
    _check(u, desirable, mask)
    u = keep(u, mask)
    margin = u - per_row(shift, u).detach()
    return keep(torch.where(desirable, margin, -margin), mask)


def _weighted(
    link: Callable[[Tensor], Tensor],
    u: Tensor,
    desirable: Tensor,
    *,
    shift: float | Tensor = 0.0,
    weight_d: float | Tensor = 1.0,
    weight_u: float | Tensor = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    check_not_negative(weight_d=weight_d, weight_u=weight_u)
    s = _signed(u, desirable, shift, mask)
    weight = torch.where(desirable, per_row(weight_d, s).detach(), per_row(weight_u, s).detach())
    return keep(weight * link(s), mask)


def _with_link(
    loss: Callable[Concatenate[Callable[[Tensor], Tensor], P], Tensor],
) -> Callable[[Callable[[Tensor], Tensor]], Callable[P, Tensor]]:
    """Turn a link ``s -> loss`` into a function with the arguments of ``loss``."""

    def decorate(link: Callable[[Tensor], Tensor]) -> Callable[P, Tensor]:
        def linked(*args: P.args, **kwargs: P.kwargs) -> Tensor:
            return loss(link, *args, **kwargs)

        update_wrapper(linked, link, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
        linked.__signature__ = inspect.signature(partial(loss, link))  # type: ignore[attr-defined]
        return linked

    return decorate


@_with_link(_weighted)
def logistic(s: Tensor) -> Tensor:
    """Return ``-log sigmoid(s)``, weighted (BCO, arXiv:2404.04656; the teacher step of VPD; OPA-DPO's anchor).

    The sum over a desirable and an undesirable sample of a prompt is an upper bound of DPO's loss, for every shift.
    TRL's ``bco_pair`` has no shift and is not BCO.
    """
    return F.softplus(-s)


@_with_link(_weighted)
def kto(s: Tensor) -> Tensor:
    """Return ``1 - sigmoid(s)``, weighted: bounded, with a vanishing gradient far on the wrong side
    (KTO; Diffusion-KTO, arXiv:2404.04465, with :func:`kto_shift`).
    """
    return torch.sigmoid(-s)


@_with_link(_weighted)
def risk_seeking(s: Tensor) -> Tensor:
    """Return ``log sigmoid(-s)``, weighted: minus a convex utility, whose gradient grows with ``s`` (Diffusion-KTO's
    risk-seeking form, arXiv:2404.04465). Unbounded below.
    """
    return F.logsigmoid(-s)


@_with_link(_weighted)
def linear(s: Tensor) -> Tensor:
    """Return ``-s``, weighted (PMPO, arXiv:2410.04166; DSO's DRO on errors).

    Unbounded below with undesirable samples: add a KL term, or use few steps and a small adapter.
    """
    return -s


def kto_shift(u: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return ``max(0, mean(u))``, ``()``, detached: KTO's estimate of the KL from one batch (Diffusion-KTO's code;
    over all processes if there are several). ``u`` is ``beta * log_ratio``, any shape.
    """
    check_any_valid(mask)
    return masked_mean(u.detach(), mask).clamp(min=0)


def class_mean_shift(u: Tensor, desirable: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the average of the mean of desirable and the mean of undesirable ``u``, ``()``, detached (VPD,
    arXiv:2605.15113, second-hand). A class without a sample is left out.
    """
    _check(u, desirable, mask)
    valid = check_mask(u, mask)
    classes = [c if valid is None else c & valid for c in (desirable, ~desirable)]
    means = torch.stack([masked_mean(u.detach(), c) for c in classes])
    return masked_mean(means, torch.stack([c.any() for c in classes]))


def density_ratio(prob: Tensor, *, low: float = 0.5, high: float = 10.0) -> Tensor:
    """Return ``p / (1 - p)`` clamped to ``[low, high]``, like ``prob``, detached: BCO's weight of an undesirable
    sample.

    Args:
        prob: probability in [0, 1] that the prompt belongs to a desirable sample, from a classifier of prompts.
        low: smallest weight, positive (TRL's BCO trainer: 0.5).
        high: largest weight (10).

    Raises:
        ValueError: a probability is outside [0, 1], or not ``0 < low <= high``.
    """
    check_floating(prob=prob)
    check_probability(prob=prob)
    check_positive(low=low)
    if not low <= high:
        raise ValueError(f"low must not exceed high, got {low} and {high}")
    prob = keep(prob.detach())
    return (prob / (1 - prob)).clamp(low, high)
