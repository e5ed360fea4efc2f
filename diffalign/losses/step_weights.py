"""Weights of the trained steps of a trajectory. All have one shape, ``(std, dt, mask) -> like std``, and a mean of 1.

``std`` and ``dt`` are ``(T,)`` or ``(B, T)``: noise ``c`` and sigma difference (either sign) of each step. ``mask`` is
1 at the trained steps; the others have weight 0 and are left out of the mean. A row without a trained step is all 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_mask


def _normalised(weight: Tensor, valid: Tensor) -> Tensor:
    """Scale each row of ``weight`` to a mean of 1 over its valid entries."""
    weight = torch.where(valid, weight, torch.zeros_like(weight))
    total = weight.sum(-1, keepdim=True)
    return weight * valid.sum(-1, keepdim=True) / torch.where(total > 0, total, torch.ones_like(total))


def _steps(std: Tensor, dt: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if std.shape != dt.shape or std.ndim not in (1, 2):
        raise ValueError(
            f"std and dt must share one shape (T,) or (B, T), got {tuple(std.shape)} and {tuple(dt.shape)}"
        )
    valid = check_mask(std, mask)
    valid = torch.ones_like(std, dtype=torch.bool) if valid is None else valid
    return as_float(std.detach()), as_float(dt.detach()), valid


def uniform_weights(std: Tensor, dt: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return 1 for every trained step."""
    std, dt, valid = _steps(std, dt, mask)
    return valid.to(std.dtype)


def tempflow_weights(std: Tensor, dt: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return ``c / mean(c)``: TempFlow-GRPO's noise-aware weight (arXiv:2508.04324, the formula; constants in its
    scripts).
    """
    std, dt, valid = _steps(std, dt, mask)
    return _normalised(std, valid)


def guard_weights(std: Tensor, dt: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return ``1 / |dt|`` over its mean: GRPO-Guard's step weight (arXiv:2510.22319), not normalised in the code.

    The normalisation keeps the learning rate comparable; relative to a KL term it divides the policy term by
    mean(1/|dt|).
    """
    std, dt, valid = _steps(std, dt, mask)
    return _normalised(torch.where(valid, dt.abs(), torch.ones_like(dt)).reciprocal(), valid)
