"""StableDiffusionPipeline: an epsilon- or v-prediction UNet with one CLIP encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import Cond


class StableDiffusionAdapter(Adapter):
    """Stable Diffusion 1.x and 2.x."""

    pipelines = ("StableDiffusionPipeline",)
    denoiser_name = "unet"
    vae_shift = False

    def _check_pipeline(self) -> None:
        super()._check_pipeline()
        check_channels(self.denoiser, self.pipeline.vae)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, _ = self.pipeline.encode_prompt(prompt, self.device, 1, False)
        return {"prompt_embeds": embeds}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(x, t, encoder_hidden_states=cond["prompt_embeds"], return_dict=False)[0]
        return output


def check_channels(unet: Any, vae: Any) -> None:
    """Refuse a UNet that takes more than latents (inpainting: 9 channels, depth: 5, image editing: 8).

    Raises:
        ValueError: both channel counts.
    """
    own, latent = unet.config.in_channels, vae.config.latent_channels
    if own != latent:
        raise ValueError(
            f"the UNet takes {own} channels and the VAE has {latent}: an inpainting, depth or editing model, which "
            "needs an input image beside the prompt. Use the text-to-image checkpoint"
        )
