"""WanPipeline: Wan 2.1 text to video; with one frame, text to image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.models.layout import channel_statistics
from diffalign.sampling import Cond


class WanAdapter(Adapter):
    """A flow transformer over (C, F, H, W) latents, with UMT5.

    The shipped scheduler is UniPC, a predictor-corrector whose steps no table has: roll-outs take DPM-Solver++ 2M on
    its levels. Wan 2.2 is refused: it has two transformers, or a time per token.
    """

    pipelines = ("WanPipeline",)
    storage = torch.float32
    video = True

    def _check_pipeline(self) -> None:
        super()._check_pipeline()
        config = self.pipeline.config
        if config.get("boundary_ratio") is not None or config.get("expand_timesteps"):
            raise ValueError(
                "Wan 2.2 (two transformers, or a time per token) is not supported: use a Wan 2.1 checkpoint"
            )

    @property
    def vae_factor(self) -> int:
        """Image pixels per side of a latent pixel."""
        return int(self.pipeline.vae_scale_factor_spatial)

    def _checked_frames(self, frames: int | None) -> int:
        found, step = super()._checked_frames(frames), int(self.pipeline.vae_scale_factor_temporal)
        if (found - 1) % step:
            legal = max(round((found - 1) / step), 0) * step + 1
            raise ValueError(f"frames = {found} must be 1 more than a multiple of {step}; the nearest is {legal}")
        return found

    def _latent_shape(self) -> tuple[int, ...]:
        frames = (self.frames - 1) // self.pipeline.vae_scale_factor_temporal + 1
        size = self.height // self.vae_factor, self.width // self.vae_factor
        return (self.denoiser.config.in_channels, frames, *size)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, _ = self.pipeline.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
            device=self.device,
        )
        return {"prompt_embeds": embeds}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(
            hidden_states=x, timestep=t, encoder_hidden_states=cond["prompt_embeds"], return_dict=False
        )[0]
        return output

    def _denormalised(self, latents: Tensor) -> Tensor:
        mean, std = channel_statistics(self.pipeline.vae, latents)
        return latents * std + mean

    def _normalised(self, latents: Tensor) -> Tensor:
        mean, std = channel_statistics(self.pipeline.vae, latents)
        return (latents - mean) / std

    def _image(self, decoded: Tensor) -> Tensor:
        return decoded.transpose(1, 2) if self.frames > 1 else decoded[:, :, 0]

    def _pixels(self, images: Tensor) -> Tensor:
        return images.transpose(1, 2) if self.frames > 1 else images.unsqueeze(2)

    def call_arguments(self, scale: float = 1.0, negative_prompt: str = "") -> dict[str, Any]:
        """See `Adapter`."""
        return super().call_arguments(scale, negative_prompt) | {"num_frames": self.frames}
