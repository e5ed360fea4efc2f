"""Conventions shared by every objective: precision, masks, reductions and running moments.

Objectives return one value per item; the trainer reduces. Masked entries are *replaced* by zero rather than
multiplied by it, because ``0 * inf`` and ``0 * nan`` would leak padding into the loss and its gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses.checks import check_any_valid as check_any_valid
from diffalign.losses.checks import check_floating as check_floating
from diffalign.losses.checks import check_groups as check_groups
from diffalign.losses.checks import check_not_negative as check_not_negative
from diffalign.losses.checks import check_positive as check_positive
from diffalign.losses.checks import check_probability as check_probability
from diffalign.losses.checks import check_same_shape as check_same_shape
from diffalign.losses.checks import readable as readable


def as_float(x: Tensor) -> Tensor:
    """Return ``x`` in fp32, or unchanged when it is fp64. Half precision and integers are widened before any
    arithmetic.
    """
    return x if x.dtype == torch.float64 else x.float()


def check_mask(x: Tensor, mask: Tensor | None) -> Tensor | None:
    """Return ``mask`` as bool.

    Args:
        x: the tensor that is masked, any shape.
        mask: same shape as ``x``, 1 or True where valid; None means that everything is valid.

    Raises:
        ValueError: the shapes differ.
    """
    if mask is None:
        return None
    if mask.shape != x.shape:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, but it must have the shape of its values, {tuple(x.shape)}"
        )
    return mask.bool()


def keep(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return ``x`` in fp32 (fp64 kept) with every masked entry replaced by 0; ``mask`` as in :func:`check_mask`."""
    valid, x = check_mask(x, mask), as_float(x)
    return x if valid is None else torch.where(valid, x, torch.zeros_like(x))


def scored(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return which entries are finite and not masked, as bool; ``mask`` as in :func:`check_mask`."""
    finite, valid = torch.isfinite(x), check_mask(x, mask)
    return finite if valid is None else finite & valid


def expand_rows(value: Tensor, like: Tensor) -> Tensor:
    """Broadcast one value per row to the shape of ``like``.

    Args:
        value: ``(B,)``, ``(B, 1)`` or ``(B, T)``. ``(B,)`` is always one value per row, also when B equals T.
        like: ``(B,)`` or ``(B, T)``.

    Raises:
        ValueError: ``like`` has another rank, or ``value`` does not fit it.
    """
    if like.ndim not in (1, 2):
        raise ValueError(f"expected a tensor of shape (B,) or (B, T), got {tuple(like.shape)}")
    rows = value[:, None] if value.ndim == 1 and like.ndim == 2 else value
    if rows.ndim != like.ndim or rows.shape[0] != like.shape[0] or rows.shape[-1] not in (1, like.shape[-1]):
        raise ValueError(f"shape {tuple(value.shape)} does not fit {tuple(like.shape)}: give (B,), (B, 1) or (B, T)")
    return rows.expand_as(like)


def per_row(value: float | Tensor, like: Tensor) -> Tensor:
    """Return a number, ``()`` or one value per row as a tensor in the precision of ``like`` that broadcasts to it.

    Args:
        value: a number, ``()``, or a tensor as in :func:`expand_rows`; keeps its gradient.
        like: ``(B,)`` or ``(B, T)``.
    """
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return value if value.ndim == 0 else expand_rows(value, like)


def _count(x: Tensor, mask: Tensor | None, dim: int | None = None) -> Tensor:
    ones = torch.ones_like(x) if mask is None else mask.to(x.dtype)
    return ones.sum() if dim is None else ones.sum(dim)


def masked_mean(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over all valid entries of ``x`` (any shape); the token mean. 0 when nothing is valid. Returns a scalar."""
    x = keep(x, mask)
    return x.sum() / _count(x, mask).clamp(min=1)


def _row_sums(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sum and number of valid entries of each row of ``x`` ``(B, T)``."""
    if x.ndim != 2:
        raise ValueError(f"a reduction over rows needs a tensor of shape (B, T), got {tuple(x.shape)}")
    x = keep(x, mask)
    return x.sum(1), _count(x, mask, dim=1)


def row_mean(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Masked mean of each row of ``x`` ``(B, T)``; 0 for a row without a valid entry. Returns ``(B,)``."""
    total, count = _row_sums(x, mask)
    return total / count.clamp(min=1)


def masked_seq_mean(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of each row's masked mean, over rows with a valid entry (GRPO). ``x (B, T)``. Returns a scalar."""
    total, count = _row_sums(x, mask)
    return masked_mean(total / count.clamp(min=1), count > 0)


def masked_seq_sum(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of each row's masked sum, over rows with a valid entry. ``x (B, T)``. Returns a scalar."""
    total, count = _row_sums(x, mask)
    return masked_mean(total, count > 0)


def masked_const(x: Tensor, mask: Tensor | None = None, *, norm: float) -> Tensor:
    """Sum of all valid entries over a constant ``norm`` (Dr. GRPO: longest length; also the number of all prompts)."""
    if not norm > 0:
        raise ValueError(f"norm must be positive, got {norm}")
    return keep(x, mask).sum() / norm


class Moments(NamedTuple):
    """Running count, mean and sum of squared deviations, each a 0-d fp64 tensor."""

    n: Tensor
    mean: Tensor
    m2: Tensor

    @property
    def std(self) -> Tensor:
        """Population standard deviation; 0 before the first value."""
        return (self.m2 / self.n.clamp(min=1)).sqrt()


def empty_moments() -> Moments:
    """Return the moments before the first value."""
    zero = torch.zeros((), dtype=torch.float64)
    return Moments(zero, zero.clone(), zero.clone())


def update_moments(state: Moments, x: Tensor, mask: Tensor | None = None) -> Moments:
    """Return ``state`` after the valid, finite entries of ``x`` (any shape), exact for any chunks (Chan's rule).

    Non-finite entries are left out: a failed reward does not change the mean.
    """
    valid = scored(x, mask)
    x = keep(x.detach().double(), valid)
    count = valid.sum().to(x.dtype)
    mean = x.sum() / count.clamp(min=1)
    m2 = keep((x - mean) ** 2, valid).sum()
    total, delta = state.n + count, mean - state.mean
    share = count / total.clamp(min=1)
    return Moments(total, state.mean + delta * share, state.m2 + m2 + delta**2 * state.n * share)
