"""StableDiffusionXLPipeline: base, Turbo, Lightning, Hyper, LCM, Playground."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.models.layout import channel_statistics
from diffalign.models.stable_diffusion import StableDiffusionAdapter
from diffalign.sampling import Cond


class StableDiffusionXLAdapter(StableDiffusionAdapter):
    """A UNet with two CLIP encoders that is also told the image size.

    The null prompt of most checkpoints is zeros, not the encoding of "" (`force_zeros_for_empty_prompt`).
    """

    pipelines = ("StableDiffusionXLPipeline",)
    text_encoder_names = ("text_encoder", "text_encoder_2")

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, _, pooled, _ = self.pipeline.encode_prompt(
            prompt, device=self.device, do_classifier_free_guidance=False
        )
        if negative and not prompt and self.pipeline.config.force_zeros_for_empty_prompt:
            embeds, pooled = torch.zeros_like(embeds), torch.zeros_like(pooled)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        size = (self.height, self.width)
        time_ids = torch.tensor([*size, 0, 0, *size], dtype=x.dtype, device=x.device)  # original, crop corner, target
        output: Tensor = self.denoiser(
            x,
            t,
            encoder_hidden_states=cond["prompt_embeds"],
            timestep_cond=self._guidance_embedding(x),
            added_cond_kwargs={"text_embeds": cond["pooled_prompt_embeds"], "time_ids": time_ids.expand(len(x), -1)},
            return_dict=False,
        )[0]
        return output

    def _denormalised(self, latents: Tensor) -> Tensor:
        """With the VAE's own mean and std per channel where it has them (Playground)."""
        mean, std = channel_statistics(self.pipeline.vae, latents)
        return latents * std / self.pipeline.vae.config.scaling_factor + mean

    def _normalised(self, latents: Tensor) -> Tensor:
        mean, std = channel_statistics(self.pipeline.vae, latents)
        return (latents - mean) / std * self.pipeline.vae.config.scaling_factor
