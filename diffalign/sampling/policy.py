"""The model interface of the sampler, and the rules of classifier-free guidance."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Cond = Mapping[str, Tensor]
"""Encoded prompts: named tensors with one leading row per prompt."""


@runtime_checkable
class Policy(Protocol):
    """A denoising network with its text encoder and decoder.

    A class that inherits from it writes `encode`, `predict` and `decode`; guidance is linear unless it says otherwise.

    Attributes:
        latent_shape: shape of one sample, as the pipeline draws its noise: (C, H, W), with a frame axis for video.
        prediction: what ``predict`` returns, a key of ``sampling.prediction.PREDICTIONS``.
        dtype: storage dtype of latents, which may differ from that of the weights.
        device: where ``predict`` runs.
    """

    latent_shape: tuple[int, ...]
    prediction: str
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def encode(self, prompts: Sequence[str], *, negative: bool = False) -> Cond:
        """Named tensors with ``len(prompts)`` rows each.

        Args:
            prompts: texts.
            negative: they are negative prompts; some families encode those by another rule (SDXL's null prompt).
        """
        ...

    @abstractmethod
    def predict(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """One branch, no guidance: x (B, *latent_shape), t (B,) in the scheduler's units, cond with B rows."""
        ...

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """(B, *latent_shape) to (B, 3, height, width), video (B, F, 3, height, width), in [0, 1]; differentiable."""
        ...

    def combine(self, cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
        """Guided prediction from the two branches; scale is a number, or a tensor that broadcasts over x."""
        return linear_guidance(cond, uncond, scale)

    def needs_negative(self, scale: float) -> bool:
        """True when guidance at this scale needs the unconditional branch.

        As in diffusers, a scale of 1 or less is the conditional branch alone (0 is the usual setting of turbo models).
        """
        return scale > 1

    def guided(
        self,
        x: Tensor,
        t: Tensor,
        cond: Cond,
        uncond: Cond | None,
        scale: float | Tensor,
        *,
        uncond_grad: bool = True,
    ) -> Tensor:
        """The prediction a sampler uses: two forwards of one shape, combined.

        Args:
            x: (B, *latent_shape).
            t: (B,).
            cond: B rows.
            uncond: B rows, or None for the conditional branch alone.
            scale: number, or a tensor that broadcasts over x; its rows of 1 or less keep the conditional branch.
            uncond_grad: keep the graph of the unconditional branch: the exact gradient (DDPO; Flow-GRPO since 2025-08).
                Without it activations and backward passes are halved and the values stay the same, but the gradient is
                biased: it is that of ``scale * cond``, with a cosine of .59 to the exact one on a trained model at 4.5.
        """
        conditional = self.predict(x, t, cond)
        if uncond is None:
            return conditional
        with nullcontext() if uncond_grad else torch.no_grad():
            unconditional = self.predict(x, t, uncond)
        combined = self.combine(conditional, unconditional, scale)
        return torch.where(scale > 1, combined, conditional) if isinstance(scale, Tensor) else combined


def linear_guidance(cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance (2207.12598), at least in fp32: ``uncond + scale (cond - uncond)``."""
    cond, uncond = _wide(cond), _wide(uncond)
    return uncond + scale * (cond - uncond)


def std_rescaled(cond: Tensor, uncond: Tensor, scale: float | Tensor, phi: float) -> Tensor:
    """Guidance rescaled to the conditional branch's std per sample (2305.08891, eq. 15-16): SD, SDXL, LTX.

    Args:
        cond: (B, ...).
        uncond: (B, ...).
        scale: guidance scale.
        phi: share of the rescaled prediction, in [0, 1]; 0 is linear guidance.
    """
    out = linear_guidance(cond, uncond, scale)
    if phi == 0:
        return out
    dims = list(range(1, out.dim()))
    return phi * out * (_wide(cond).std(dims, keepdim=True) / out.std(dims, keepdim=True)) + (1 - phi) * out


def norm_rescaled(
    cond: Tensor,
    uncond: Tensor,
    scale: float | Tensor,
    *,
    dim: int = -1,
    view: Callable[[Tensor], Tensor] = lambda value: value,
) -> Tensor:
    """Guidance with the conditional branch's norm along one axis: Qwen-Image (of packed tokens), Lumina 2.

    The linear prediction is formed in x's layout, where a scale per sample broadcasts, and viewed after that.

    Args:
        cond: (B, ...).
        uncond: (B, ...).
        scale: guidance scale.
        dim: axis of the norm, in the viewed layout.
        view: from x's layout to the one whose axis is meant.

    Returns:
        The guided prediction in the viewed layout.
    """
    out = view(linear_guidance(cond, uncond, scale))
    return out * (view(_wide(cond)).norm(dim=dim, keepdim=True) / out.norm(dim=dim, keepdim=True))


def norm_capped(cond: Tensor, uncond: Tensor, scale: float | Tensor, limit: float) -> Tensor:
    """Guidance whose norm per sample is at most `limit` times the conditional branch's; 0 is no limit (Z-Image)."""
    out = linear_guidance(cond, uncond, scale)
    if limit == 0:
        return out
    dims = list(range(1, out.dim()))
    top = limit * torch.linalg.vector_norm(_wide(cond), dim=dims, keepdim=True)
    norm = torch.linalg.vector_norm(out, dim=dims, keepdim=True)
    return torch.where(norm > top, out * (top / norm), out)


def take(cond: Cond, rows: Tensor) -> Cond:
    """Rows of encoded prompts, (B,) long -> cond with B rows."""
    return {name: value[rows.to(value.device)] for name, value in cond.items()}


def _wide(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))
