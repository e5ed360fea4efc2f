"""HunyuanImagePipeline: HunyuanImage 2.1 and its distilled model."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import Cond


class HunyuanImageAdapter(Adapter):
    """A flow transformer with Qwen2.5-VL text and ByT5 glyphs of quoted words.

    Guidance of the pipeline lives in its guider: adaptive projected guidance, a function of earlier steps. Here it is
    linear. The distilled model takes guidance as an input. Mean-flow models are refused: they want the next time too.
    """

    pipelines = ("HunyuanImagePipeline",)
    text_encoder_names = ("text_encoder", "text_encoder_2")
    vae_shift = False
    checkpointing = False
    guidance_argument = "distilled_guidance_scale"

    def _check_pipeline(self) -> None:
        super()._check_pipeline()
        if self.denoiser.config.get("use_meanflow"):
            raise ValueError("mean-flow HunyuanImage models need the time of the next step and are not supported")
        if self.pipeline.guider is not None:
            warnings.warn(
                f"the pipeline guides by {type(self.pipeline.guider).__name__}, which depends on earlier steps: "
                "sampling uses linear guidance at the guidance scale instead",
                stacklevel=5,
            )

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        sigmas = torch.linspace(1, 0, num_inference_steps + 1, dtype=torch.float64)[:-1]
        scheduler.set_timesteps(sigmas=sigmas.tolist())

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, mask, glyphs, glyph_mask = self.pipeline.encode_prompt(prompt, device=self.device)
        return {"prompt_embeds": embeds, "prompt_mask": mask, "glyphs": glyphs, "glyph_mask": glyph_mask}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(
            hidden_states=x,
            timestep=t.to(x.dtype),
            guidance=self.guidance_rows(x).to(x.dtype) * 1000 if self._embeds_guidance else None,
            encoder_hidden_states=cond["prompt_embeds"],
            encoder_attention_mask=cond["prompt_mask"],
            encoder_hidden_states_2=cond["glyphs"],
            encoder_attention_mask_2=cond["glyph_mask"],
            return_dict=False,
        )[0]
        return output

    def call_arguments(self, scale: float = 1.0, negative_prompt: str = "") -> dict[str, Any]:
        """See `Adapter`; a guidance scale is a property of the pipeline's guider, not of its call."""
        own = {"distilled_guidance_scale": self.embedded_guidance} if self._embeds_guidance else {}
        return own | self._size_arguments()
