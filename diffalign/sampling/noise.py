"""Reproducible noise: every draw has a key, so batch size, order and number of processes change nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def noise_key(*parts: int) -> int:
    """Mix integers into one 64-bit key (splitmix64 finaliser, order matters)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state ^ (part & _MASK)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def initial_noise(shape: Sequence[int], seeds: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """x_T of each seed, exactly what a diffusers pipeline draws from ``torch.Generator("cpu").manual_seed(seed)``.

    Args:
        shape: latent shape of one sample.
        seeds: one per sample.
        dtype: storage dtype (drawn in it, as diffusers does).

    Returns:
        (B, *shape) on the CPU.
    """
    return torch.stack([_normal(shape, seed, dtype) for seed in seeds])


def step_noise(shape: Sequence[int], seeds: Sequence[int], branches: Sequence[int], step: int, run_seed: int) -> Tensor:
    """Standard normal noise of one step, keyed by (run seed, sample seed, step, branch); (B, *shape) fp32, CPU."""
    keys = [noise_key(run_seed, seed, step, branch) for seed, branch in zip(seeds, branches, strict=True)]
    return torch.stack([_normal(shape, key, torch.float32) for key in keys])


def _normal(shape: Sequence[int], seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator("cpu").manual_seed(seed), dtype=dtype)
