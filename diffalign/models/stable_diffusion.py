"""StableDiffusionPipeline and LatentConsistencyModelPipeline: a UNet with one CLIP encoder."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import Cond, std_rescaled


class StableDiffusionAdapter(Adapter):
    """Stable Diffusion 1.x and 2.x, epsilon or v-prediction, and their LCM-distilled UNets.

    Args:
        pipeline: the pipeline.
        guidance_rescale: share phi of the guided prediction that is rescaled to the conditional branch's std
            (2305.08891; .7 with zero terminal SNR), 0 for plain guidance.
        options: see `Adapter`.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline", "LatentConsistencyModelPipeline")
    denoiser_name = "unet"
    patch = 1
    vae_shift = False

    def __init__(self, pipeline: Any, *, guidance_rescale: float = 0.0, **options: Any) -> None:
        self.guidance_rescale = guidance_rescale
        super().__init__(pipeline, **options)

    def _check_pipeline(self) -> None:
        super()._check_pipeline()
        own, latent = self.denoiser.config.in_channels, self.pipeline.vae.config.latent_channels
        if own != latent:
            raise ValueError(
                f"the UNet takes {own} channels and the VAE has {latent}: an inpainting, depth or editing model, which "
                "needs an input image beside the prompt. Use the text-to-image checkpoint"
            )

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, _ = self.pipeline.encode_prompt(prompt, self.device, 1, False)
        return {"prompt_embeds": embeds}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(
            x,
            t,
            encoder_hidden_states=cond["prompt_embeds"],
            timestep_cond=self._guidance_embedding(x),
            return_dict=False,
        )[0]
        return output

    def _guidance_embedding(self, x: Tensor) -> Tensor | None:
        """(B, time_cond_proj_dim) embedding of the guidance scale, the input of LCM-distilled UNets."""
        if not self._embeds_guidance:
            return None
        size = self.denoiser.config.time_cond_proj_dim
        found: Tensor = self.pipeline.get_guidance_scale_embedding(self.guidance_rows(x).cpu() - 1, embedding_dim=size)
        return found.to(x)

    def combine(self, cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
        """Linear guidance, rescaled by `guidance_rescale`."""
        return std_rescaled(cond, uncond, scale, self.guidance_rescale)

    def call_arguments(self, scale: float = 1.0, negative_prompt: str = "") -> dict[str, Any]:
        """See `Adapter`."""
        rescale = {"guidance_rescale": self.guidance_rescale} if self.guidance_rescale else {}
        return super().call_arguments(scale, negative_prompt) | rescale
