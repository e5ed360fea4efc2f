"""Kandinsky5T2IPipeline: Kandinsky 5 text to image."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import Cond


class Kandinsky5Adapter(Adapter):
    """A flow transformer over channels-last latents (1, H, W, C), with Qwen2.5-VL text without a mask and pooled CLIP.

    The pipeline makes images of seven sizes and changes any other to the nearest of them, so that others are refused.
    """

    pipelines = ("Kandinsky5T2IPipeline",)
    vae_shift = False
    text_encoder_names = ("text_encoder", "text_encoder_2")

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """Attention projections (a bare out_layer would match modulation and feed-forward too)."""
        return ("to_query", "to_key", "to_value", "self_attention.out_layer", "cross_attention.out_layer")

    @property
    def vae_factor(self) -> int:
        """Image pixels per side of a latent pixel."""
        return int(self.pipeline.vae_scale_factor_spatial)

    def _checked_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        found, legal = super()._checked_size(height, width), self.pipeline.resolutions
        if found[::-1] not in [tuple(size) for size in legal]:
            sizes = ", ".join(f"{h} x {w}" for w, h in legal)
            raise ValueError(f"height x width {found[0]} x {found[1]} is not one of this model's sizes: {sizes}")
        return found

    def _latent_shape(self) -> tuple[int, ...]:
        size = self.height // self.vae_factor, self.width // self.vae_factor
        return (1, *size, self.denoiser.config.in_visual_dim)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, pooled, _ = self.pipeline.encode_prompt(
            prompt, device=self.device, max_sequence_length=self.max_sequence_length
        )
        length = torch.tensor([embeds.shape[1]])
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled, "length": length}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        text = cond["prompt_embeds"]
        axes = (1, x.shape[2] // 2, x.shape[3] // 2)
        output: Tensor = self.denoiser(
            hidden_states=x,
            encoder_hidden_states=text,
            pooled_projections=cond["pooled_prompt_embeds"],
            timestep=t.to(x.dtype),
            visual_rope_pos=[torch.arange(n, device=x.device) for n in axes],
            text_rope_pos=torch.arange(text.shape[1], device=x.device),
            scale_factor=[1.0, 1.0, 1.0],
            sparse_params=None,
            return_dict=False,
        )
        return output

    def _denormalised(self, latents: Tensor) -> Tensor:
        return super()._denormalised(latents[:, 0].permute(0, 3, 1, 2))

    def _normalised(self, latents: Tensor) -> Tensor:
        return super()._normalised(latents).permute(0, 2, 3, 1)[:, None]
