"""PixArtAlphaPipeline and PixArtSigmaPipeline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import Cond


class PixArtAdapter(Adapter):
    """An epsilon transformer with T5; its output has the variance beside the noise.

    Sizes are taken as asked: the pipeline's resolution binning is off. It has no LoRA loader: LoRA files are peft's.

    Args:
        pipeline: the pipeline.
        clean_caption: normalise captions as in training, where bs4 and ftfy are installed; the pipeline's default.
        options: see `Adapter`.
    """

    pipelines = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    vae_shift = False

    def __init__(self, pipeline: Any, *, clean_caption: bool = True, **options: Any) -> None:
        self.clean_caption = clean_caption
        super().__init__(pipeline, **options)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, mask, *_ = self.pipeline.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            device=self.device,
            clean_caption=self.clean_caption,
            max_sequence_length=self.max_sequence_length,
        )
        return {"prompt_embeds": embeds, "prompt_mask": mask}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(
            x,
            encoder_hidden_states=cond["prompt_embeds"],
            encoder_attention_mask=cond["prompt_mask"],
            timestep=t,
            added_cond_kwargs=self._micro_conditions(x),
            return_dict=False,
        )[0]
        return output[:, : self.latent_shape[0]]

    def _micro_conditions(self, x: Tensor) -> dict[str, Tensor | None]:
        """(height, width) and their ratio, for PixArt-alpha at 1024 pixels."""
        if not self.denoiser.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        size = torch.tensor([[self.height, self.width]], dtype=x.dtype, device=x.device).expand(len(x), -1)
        ratio = torch.tensor([[self.height / self.width]], dtype=x.dtype, device=x.device).expand(len(x), -1)
        return {"resolution": size, "aspect_ratio": ratio}

    def call_arguments(self, scale: float = 1.0, negative_prompt: str = "") -> dict[str, Any]:
        """See `Adapter`."""
        fixed = {"use_resolution_binning": False, "clean_caption": self.clean_caption}
        return super().call_arguments(scale, negative_prompt) | fixed
