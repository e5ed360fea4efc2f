"""Input checks; each raises a ValueError with the given value and the valid range.

Names come from the keywords: ``check_positive(beta=beta)``. Values are checked for numbers and CPU tensors; reading a
tensor on an accelerator would synchronise the device in each step, so there only types and shapes are checked.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_floating(**tensors: Tensor) -> None:
    """Reject integer tensors where log-probs are expected, for example token ids.

    Raises:
        ValueError: a tensor is not of a floating type.
    """
    for name, x in tensors.items():
        if not x.is_floating_point():
            raise ValueError(f"{name} must be of a floating type, got {x.dtype}")


def check_same_shape(**tensors: Tensor) -> None:
    """Reject tensors of different shapes, which would broadcast silently.

    Raises:
        ValueError: the shapes differ.
    """
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"these must share one shape: {', '.join(f'{name} {s}' for name, s in shapes.items())}")


def readable(value: float | Tensor) -> bool:
    """Whether the checks below read the value: a number, or a tensor on the CPU. Reading a tensor on an accelerator
    would synchronise the device in each step.
    """
    return not isinstance(value, Tensor) or value.device.type == "cpu"


def _all_in(value: float | Tensor, low: float, high: float, *, open_low: bool, open_high: bool) -> bool:
    x = torch.as_tensor(value, dtype=torch.float64)
    above = x > low if open_low else x >= low
    below = x < high if open_high else x <= high
    return bool((above & below).all())


def check_positive(**values: float | Tensor) -> None:
    """Reject a number, or a readable tensor, that is not positive and finite everywhere.

    Raises:
        ValueError: a value is not positive and finite.
    """
    for name, value in values.items():
        if readable(value) and not _all_in(value, 0.0, math.inf, open_low=True, open_high=True):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def check_not_negative(**values: float | Tensor) -> None:
    """Reject a number, or a readable tensor, that is negative, infinite or NaN anywhere.

    Raises:
        ValueError: a value is negative or not finite.
    """
    for name, value in values.items():
        if readable(value) and not _all_in(value, 0.0, math.inf, open_low=False, open_high=True):
            raise ValueError(f"{name} must be finite and not negative, got {value}")


def check_probability(*, open_ends: bool = False, **values: float | Tensor) -> None:
    """Reject a number, or a readable tensor, outside [0, 1]; outside (0, 1) with ``open_ends``.

    Raises:
        ValueError: a value is outside.
    """
    for name, value in values.items():
        if readable(value) and not _all_in(value, 0.0, 1.0, open_low=open_ends, open_high=open_ends):
            raise ValueError(f"{name} must be in {'(0, 1)' if open_ends else '[0, 1]'}, got {value}")


def check_any_valid(mask: Tensor | None) -> None:
    """Reject a readable mask without a valid entry.

    Raises:
        ValueError: every entry is masked, or there is none.
    """
    if mask is not None and readable(mask) and not mask.any():
        raise ValueError(f"the mask of shape {tuple(mask.shape)} has no valid entry")


def check_groups(**tensors: Tensor) -> None:
    """Reject tensors that are not all of one shape ``(B, G)`` with at least one sample.

    Raises:
        ValueError: shapes differ or do not fit.
    """
    check_same_shape(**tensors)
    for name, x in tensors.items():
        if x.ndim != 2 or x.numel() == 0:
            raise ValueError(
                f"{name} must have shape (B, G) with at least one sample, got {tuple(x.shape)}; "
                "pad ragged groups and mask them"
            )
