"""ZImagePipeline: Z-Image and Z-Image-Turbo."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.models.layout import linear_sigmas
from diffalign.sampling import Cond, norm_capped, shift_mu


class ZImageAdapter(Adapter):
    """A single-stream flow transformer over lists of images and texts, with Qwen3.

    The pipeline's `guidance_scale` is one less than the guidance scale here (its formula is cond + s (cond - uncond)).

    Args:
        pipeline: the pipeline.
        cfg_normalization: largest norm of the guided prediction in units of the conditional one's, 0 for no limit.
        options: see `Adapter`.
    """

    pipelines = ("ZImagePipeline",)
    storage = torch.float32

    def __init__(self, pipeline: Any, *, cfg_normalization: float = 0.0, **options: Any) -> None:
        self.cfg_normalization = cfg_normalization
        super().__init__(pipeline, **options)

    def _default_size(self) -> tuple[int, int]:
        return (1024, 1024)  # constants of the pipeline's call

    def _latent_shape(self) -> tuple[int, ...]:
        return (self.denoiser.in_channels, self.height // self.vae_factor, self.width // self.vae_factor)

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        tokens = (self.height // self.vae_factor) * (self.width // self.vae_factor) // 4
        sigmas = linear_sigmas(num_inference_steps)
        scheduler.set_timesteps(sigmas=sigmas, mu=shift_mu(tokens, scheduler.config))

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        texts, _ = self.pipeline.encode_prompt(
            [prompt],  # a fresh list: the pipeline overwrites it with its template
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        embeds = texts[0][None]
        return {"prompt_embeds": embeds, "prompt_mask": torch.ones(embeds.shape[:2], dtype=torch.bool)}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        rows = zip(cond["prompt_embeds"], cond["prompt_mask"], strict=True)
        texts = [embeds[mask] for embeds, mask in rows]
        images = list(x.unsqueeze(2).unbind(0))
        output = self.denoiser(images, (1000 - t) / 1000, texts, return_dict=False)[0]
        return -torch.stack([image.float() for image in output]).squeeze(2)

    def combine(self, cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
        """Linear guidance, its norm capped by `cfg_normalization`."""
        return norm_capped(cond, uncond, scale, self.cfg_normalization)

    def call_arguments(self, scale: float = 1.0, negative_prompt: str = "") -> dict[str, Any]:
        """See `Adapter`."""
        found = super().call_arguments(scale, negative_prompt)
        return found | {"guidance_scale": max(scale - 1, 0.0), "cfg_normalization": self.cfg_normalization}
