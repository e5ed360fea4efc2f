"""Conventions shared by every objective: precision, masks, reductions and running moments.

Objectives return one value per item; a trainer chooses how to reduce. Masked entries are *replaced* by zero rather than
multiplied by it, because ``0 * inf`` and ``0 * nan`` would leak padding into the loss and its gradient.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def as_float(x: Tensor) -> Tensor:
    """Return ``x`` in fp32, or unchanged when it is fp64. Half precision and integers are widened before any
    arithmetic.
    """
    return x if x.dtype == torch.float64 else x.float()


def check_floating(**tensors: Tensor) -> None:
    """Refuse integers where log-probs are due: token ids passed for them would otherwise train on nonsense.

    Raises:
        ValueError: a tensor is not of a floating type; its name is said.
    """
    for name, x in tensors.items():
        if not x.is_floating_point():
            raise ValueError(f"{name} must be of a floating type, got {x.dtype}")


def check_same_shape(**tensors: Tensor) -> None:
    """Refuse tensors of different shapes, which would broadcast instead of failing.

    Raises:
        ValueError: the shapes differ; all are said.
    """
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"these must share one shape: {', '.join(f'{name} {s}' for name, s in shapes.items())}")


def readable(value: float | Tensor) -> bool:
    """Whether the checks below look at the value: a number, or a tensor on the CPU. On an accelerator a look would
    stall the device in each step.
    """
    return not isinstance(value, Tensor) or value.device.type == "cpu"


def _all_in(value: float | Tensor, low: float, high: float, *, open_low: bool, open_high: bool) -> bool:
    x = torch.as_tensor(value).detach()
    above = x > low if open_low else x >= low
    below = x < high if open_high else x <= high
    return bool((above & below).all())


def check_positive(**values: float | Tensor) -> None:
    """Refuse a number, or a readable tensor, that is not positive and finite everywhere.

    Raises:
        ValueError: a value is not; its name is said.
    """
    for name, value in values.items():
        if readable(value) and not _all_in(value, 0.0, math.inf, open_low=True, open_high=True):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def check_not_negative(**values: float | Tensor) -> None:
    """Refuse a number, or a readable tensor, that is negative, infinite or NaN anywhere.

    Raises:
        ValueError: a value is; its name is said.
    """
    for name, value in values.items():
        if readable(value) and not _all_in(value, 0.0, math.inf, open_low=False, open_high=True):
            raise ValueError(f"{name} must be finite and not negative, got {value}")


def check_probability(*, open_ends: bool = False, **values: float | Tensor) -> None:
    """Refuse a number, or a readable tensor, outside [0, 1]; outside (0, 1) with ``open_ends``.

    Raises:
        ValueError: a value is outside; its name is said.
    """
    for name, value in values.items():
        if readable(value) and not _all_in(value, 0.0, 1.0, open_low=open_ends, open_high=open_ends):
            raise ValueError(f"{name} must be in {'(0, 1)' if open_ends else '[0, 1]'}, got {value}")


def check_any_valid(mask: Tensor | None) -> None:
    """Refuse a readable mask without a single valid entry: nothing is left to learn from.

    Raises:
        ValueError: every entry is masked, or there is none.
    """
    if mask is not None and readable(mask) and not mask.any():
        raise ValueError(f"the mask of shape {tuple(mask.shape)} has no valid entry")


def check_groups(**tensors: Tensor) -> None:
    """Refuse tensors that are not all of one shape ``(B, G)`` with at least one sample.

    Raises:
        ValueError: shapes differ or do not fit; all are said.
    """
    check_same_shape(**tensors)
    for name, x in tensors.items():
        if x.ndim != 2 or x.numel() == 0:
            raise ValueError(
                f"{name} must have shape (B, G) with at least one sample, got {tuple(x.shape)}; "
                "pad ragged groups and mask them"
            )


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
    """Return the moments of no value at all."""
    zero = torch.zeros((), dtype=torch.float64)
    return Moments(zero, zero.clone(), zero.clone())


def update_moments(state: Moments, x: Tensor, mask: Tensor | None = None) -> Moments:
    """Return ``state`` after the valid, finite entries of ``x`` (any shape); exact, whatever the chunks (Chan's rule).

    Non-finite entries are left out: a reward that could not be scored says nothing about the mean.
    """
    valid = scored(x, mask)
    x = keep(x.detach().double(), valid)
    count = valid.sum().to(x.dtype)
    mean = x.sum() / count.clamp(min=1)
    m2 = keep((x - mean) ** 2, valid).sum()
    total, delta = state.n + count, mean - state.mean
    share = count / total.clamp(min=1)
    return Moments(total, state.mean + delta * share, state.m2 + m2 + delta**2 * state.n * share)
