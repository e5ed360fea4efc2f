"""Random inputs of kernels, and how two results are compared."""

from __future__ import annotations

import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers, the same on every machine."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gap(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference, over the largest absolute expected value or 1; infinite where only one is NaN."""
    if found.shape != expected.shape or not torch.equal(found.isnan(), expected.isnan()):
        return float("inf")
    found, expected = (tensor.detach().double().nan_to_num() for tensor in (found, expected))
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1)) if found.numel() else 0.0
