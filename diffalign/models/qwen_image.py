"""QwenImagePipeline: Qwen-Image and its Lightning distillations."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.models.layout import channel_statistics, pack, unpack
from diffalign.models.packed import TrueGuidance
from diffalign.sampling import Cond, norm_rescaled


class QwenImageAdapter(TrueGuidance):
    """A flow transformer over packed latents, with Qwen2.5-VL text of any length and a video VAE of one frame.

    A guided prediction has the norm of the conditional one in every packed token.
    """

    pipelines = ("QwenImagePipeline",)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, mask = self.pipeline.encode_prompt(
            prompt, device=self.device, max_sequence_length=self.max_sequence_length
        )
        whole = torch.ones(embeds.shape[:2], dtype=torch.bool)
        return {"prompt_embeds": embeds, "prompt_mask": whole if mask is None else mask.bool()}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        _, height, width = self.latent_shape
        mask = cond["prompt_mask"]
        output = self.denoiser(
            hidden_states=pack(x),
            timestep=t.to(x.dtype) / 1000,
            guidance=self.guidance_rows(x) if self._embeds_guidance else None,
            encoder_hidden_states=cond["prompt_embeds"],
            encoder_hidden_states_mask=None if bool(mask.all()) else mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(x),
            return_dict=False,
        )[0]
        return unpack(output, self.latent_shape)

    def combine(self, cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
        """Linear guidance with the conditional norm per packed token."""
        return unpack(norm_rescaled(cond, uncond, scale, view=pack), self.latent_shape)

    def _denormalised(self, latents: Tensor) -> Tensor:
        mean, std = channel_statistics(self.pipeline.vae, latents)
        return (latents * std + mean).unsqueeze(2)

    def _normalised(self, latents: Tensor) -> Tensor:
        mean, std = channel_statistics(self.pipeline.vae, latents[:, :, 0])
        return (latents[:, :, 0] - mean) / std

    def _image(self, decoded: Tensor) -> Tensor:
        return decoded[:, :, 0]

    def _pixels(self, images: Tensor) -> Tensor:
        return images.unsqueeze(2)
