"""The common part of video families: frames, and a VAE with a time axis."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from diffalign.models.adapter import Adapter


class VideoAdapter(Adapter):
    """Latents (C, F, H, W) in fp32; with one frame, a model of images."""

    storage = torch.float32
    video = True

    @property
    @abstractmethod
    def frame_factor(self) -> int:
        """Frames per latent frame; the first one stands for itself."""

    def _checked_frames(self, frames: int | None) -> int:
        found = super()._checked_frames(frames)
        if (found - 1) % self.frame_factor:
            legal = max(round((found - 1) / self.frame_factor), 0) * self.frame_factor + 1
            raise ValueError(
                f"frames = {found} must be 1 more than a multiple of {self.frame_factor}; the nearest is {legal}"
            )
        return found

    def _latent_shape(self) -> tuple[int, ...]:
        frames = (self.frames - 1) // self.frame_factor + 1
        size = self.height // self.vae_factor, self.width // self.vae_factor
        return (self.denoiser.config.in_channels, frames, *size)

    def _image(self, decoded: Tensor) -> Tensor:
        return decoded.transpose(1, 2) if self.frames > 1 else decoded[:, :, 0]

    def _pixels(self, images: Tensor) -> Tensor:
        return images.transpose(1, 2) if self.frames > 1 else images.unsqueeze(2)

    def call_arguments(self, scale: float = 1.0, negative_prompt: str = "") -> dict[str, Any]:
        """See `Adapter`."""
        return super().call_arguments(scale, negative_prompt) | {"num_frames": self.frames}
