"""LTXPipeline: LTX-Video."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from diffalign.models.layout import linear_sigmas
from diffalign.models.video import VideoAdapter
from diffalign.sampling import Cond, shift_mu, std_rescaled


class LTXAdapter(VideoAdapter):
    """A flow transformer over one token per latent pixel, with T5.

    A decoder that takes a time is given 0 without noise, the pipeline's default, so that decoding is deterministic.

    Args:
        pipeline: the pipeline.
        guidance_rescale: see `StableDiffusionAdapter`.
        frame_rate: frames per second that the network is told.
        options: see `Adapter`.
    """

    pipelines = ("LTXPipeline",)
    patch = 1

    def __init__(
        self, pipeline: Any, *, guidance_rescale: float = 0.0, frame_rate: int | None = None, **options: Any
    ) -> None:
        self.guidance_rescale, self._frame_rate = guidance_rescale, frame_rate
        super().__init__(pipeline, **options)

    @property
    def frame_rate(self) -> int:
        """Frames per second; default the pipeline's."""
        return int(self._frame_rate or self._call_default("frame_rate"))

    @property
    def vae_factor(self) -> int:
        """Image pixels per side of a latent pixel."""
        return int(self.pipeline.vae_spatial_compression_ratio)

    @property
    def frame_factor(self) -> int:
        """Frames per latent frame."""
        return int(self.pipeline.vae_temporal_compression_ratio)

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        mu = shift_mu(math.prod(self._latent_shape()[1:]), scheduler.config)
        scheduler.set_timesteps(sigmas=linear_sigmas(num_inference_steps), mu=mu)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, mask, *_ = self.pipeline.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
        )
        return {"prompt_embeds": embeds, "prompt_mask": mask}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        _, frames, height, width = self.latent_shape
        output: Tensor = self.denoiser(
            hidden_states=x.flatten(2).transpose(1, 2),
            encoder_hidden_states=cond["prompt_embeds"],
            timestep=t,
            encoder_attention_mask=cond["prompt_mask"],
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(self.frame_factor / self.frame_rate, self.vae_factor, self.vae_factor),
            return_dict=False,
        )[0]
        return output.transpose(1, 2).reshape(x.shape).float()

    def combine(self, cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
        """Linear guidance, rescaled by `guidance_rescale`."""
        return std_rescaled(cond, uncond, scale, self.guidance_rescale)

    def call_arguments(self, scale: float = 1.0, negative_prompt: str = "") -> dict[str, Any]:
        """See `Adapter`."""
        own = {"guidance_rescale": self.guidance_rescale, "frame_rate": self.frame_rate}
        return super().call_arguments(scale, negative_prompt) | own

    def _denormalised(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return latents * std / self.pipeline.vae.config.scaling_factor + mean

    def _normalised(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return (latents - mean) / std * self.pipeline.vae.config.scaling_factor

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        vae = self.pipeline.vae
        return vae.latents_mean.view(1, -1, 1, 1, 1).to(like), vae.latents_std.view(1, -1, 1, 1, 1).to(like)

    def _decoded(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        time = latents.new_zeros(len(latents)) if vae.config.timestep_conditioning else None
        output: Tensor = vae.decode(latents, time, return_dict=False)[0]
        return output
