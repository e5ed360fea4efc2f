"""Layouts that several transformer families share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def pack(x: Tensor, patch: int = 2) -> Tensor:
    """(B, C, H, W) -> (B, HW / patch^2, C patch^2) tokens, the channel slowest within a token."""
    b, c, h, w = x.shape
    grid = x.reshape(b, c, h // patch, patch, w // patch, patch).permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(b, (h // patch) * (w // patch), c * patch * patch)


def unpack(tokens: Tensor, shape: tuple[int, ...], patch: int = 2) -> Tensor:
    """The inverse of `pack`: (B, N, C patch^2) -> (B, *shape) with shape = (C, H, W)."""
    c, h, w = shape
    grid = tokens.reshape(len(tokens), h // patch, w // patch, c, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(len(tokens), c, h, w)


def grid_ids(height: int, width: int, *, first: float = 0.0, device: torch.device | None = None) -> Tensor:
    """(height * width, 3) position ids (first, row, column) of image tokens."""
    ids = torch.zeros(height, width, 3, device=device)
    ids[..., 0] = first
    ids[..., 1] += torch.arange(height, device=device)[:, None]
    ids[..., 2] += torch.arange(width, device=device)[None]
    return ids.reshape(height * width, 3)


def linear_sigmas(num_steps: int) -> list[float]:
    """Flow levels 1 to 1 / n that most pipelines pass to their scheduler, which shifts them once."""
    return torch.linspace(1, 1 / num_steps, num_steps, dtype=torch.float64).tolist()  # type: ignore[no-any-return]


def channel_statistics(vae: Any, latents: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, std) per channel of a VAE's latents, shaped to broadcast over (B, C, ...); (0, 1) where it has none."""
    shape = (1, -1, *(1,) * (latents.dim() - 2))
    mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
    return torch.tensor(mean or [0.0]).to(latents).view(shape), torch.tensor(std or [1.0]).to(latents).view(shape)
