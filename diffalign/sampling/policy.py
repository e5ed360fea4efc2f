"""What a sampler asks of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Cond = Mapping[str, Tensor]
"""Encoded prompts: named tensors with one leading row per prompt."""


@runtime_checkable
class Policy(Protocol):
    """A denoising network with its text encoder and decoder.

    Attributes:
        latent_shape: (C, H, W) of one sample.
        prediction: what ``predict`` returns, a key of ``sampling.prediction.PREDICTIONS``.
        dtype: storage dtype of latents.
        device: where ``predict`` runs.
    """

    latent_shape: tuple[int, ...]
    prediction: str
    dtype: torch.dtype
    device: torch.device

    def encode(self, prompts: Sequence[str]) -> Cond:
        """Named tensors with ``len(prompts)`` rows each."""
        ...

    def predict(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """One branch, no guidance: x (B, C, H, W), t (B,) in the scheduler's units, cond with B rows."""
        ...

    def combine(self, cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
        """Guided prediction from the two branches; linear unless the family says otherwise."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) latents to (B, 3, height, width) images in [0, 1], differentiable."""
        ...


def linear_guidance(cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance (2207.12598): ``uncond + scale (cond - uncond)``."""
    return uncond + scale * (cond - uncond)


def take(cond: Cond, rows: Tensor) -> Cond:
    """Rows of encoded prompts, (B,) long -> cond with B rows."""
    return {name: value[rows.to(value.device)] for name, value in cond.items()}


def guided(
    policy: Policy,
    x: Tensor,
    t: Tensor,
    cond: Cond,
    uncond: Cond | None,
    scale: float | Tensor,
    *,
    uncond_grad: bool = False,
) -> Tensor:
    """The prediction a sampler uses: two forwards of one shape, combined.

    Args:
        policy: the model.
        x: (B, C, H, W).
        t: (B,).
        cond: B rows.
        uncond: B rows, or None for no guidance (scale 1).
        scale: number, or a tensor that broadcasts over x.
        uncond_grad: keep the graph of the unconditional branch. Without it the gradient is that of released
            Flow-GRPO, at half the activations; the values are the same.
    """
    conditional = policy.predict(x, t, cond)
    if uncond is None:
        return conditional
    with nullcontext() if uncond_grad else torch.no_grad():
        unconditional = policy.predict(x, t, uncond)
    return policy.combine(conditional, unconditional, scale)
