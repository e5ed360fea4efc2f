"""StableDiffusionPipeline: an epsilon- or v-prediction UNet with one CLIP encoder, sampled with DDIM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import Cond


class StableDiffusionAdapter(Adapter):
    """Stable Diffusion 1.x and 2.x.

    A scheduler that is not DDIM is replaced by DDIM on the same noise table; x0 is never clipped (latents have no
    range).
    """

    denoiser_name = "unet"
    lora_targets = ("to_k", "to_out.0", "to_q", "to_v")

    def __init__(self, pipeline: Any, *, resolution: int | None = None, device: str | torch.device = "cpu") -> None:
        from diffusers import DDIMScheduler

        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
        super().__init__(pipeline, resolution=resolution, device=device)

    def _prediction(self) -> str:
        return str(self.pipeline.scheduler.config.prediction_type)

    def _encode_one(self, prompt: str) -> dict[str, Tensor]:
        embeds, _ = self.pipeline.encode_prompt(prompt, self.device, 1, False)
        return {"prompt_embeds": embeds}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(x, t, encoder_hidden_states=cond["prompt_embeds"], return_dict=False)[0]
        return output
