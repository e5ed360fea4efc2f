"""StableDiffusion3Pipeline: a flow transformer with two CLIP encoders and T5."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import Cond

PIPELINE_T5_TOKENS = 256
"""What the pipeline's own call pads to when it is not told otherwise."""


class StableDiffusion3Adapter(Adapter):
    """Stable Diffusion 3 and 3.5, and everything else saved as a StableDiffusion3Pipeline.

    Args:
        pipeline: the pipeline.
        resolution: image height and width in pixels.
        max_sequence_length: T5 tokens; default the smaller of 256 and the T5 tokenizer's own limit.
        device: where to run.
    """

    denoiser_name = "transformer"
    # The set of diffusers' own SD3 LoRA script: every projection of joint attention.
    lora_targets = (
        "attn.add_k_proj",
        "attn.add_q_proj",
        "attn.add_v_proj",
        "attn.to_add_out",
        "attn.to_k",
        "attn.to_out.0",
        "attn.to_q",
        "attn.to_v",
    )

    def __init__(
        self,
        pipeline: Any,
        *,
        resolution: int | None = None,
        max_sequence_length: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(pipeline, resolution=resolution, device=device)
        tokenizer = getattr(pipeline, "tokenizer_3", None)
        limit = PIPELINE_T5_TOKENS if tokenizer is None else min(PIPELINE_T5_TOKENS, tokenizer.model_max_length)
        self.max_sequence_length = max_sequence_length or int(limit)

    @property
    def call_arguments(self) -> dict[str, Any]:
        """The T5 length, where it is not the pipeline's own."""
        own = self.max_sequence_length == PIPELINE_T5_TOKENS
        return {} if own else {"max_sequence_length": self.max_sequence_length}

    def _prediction(self) -> str:
        return "flow"

    def _encode_one(self, prompt: str) -> dict[str, Tensor]:
        embeds, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=prompt,
            prompt_2=None,
            prompt_3=None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(
            hidden_states=x,
            timestep=t,
            encoder_hidden_states=cond["prompt_embeds"],
            pooled_projections=cond["pooled_prompt_embeds"],
            return_dict=False,
        )[0]
        return output

    def _latent_shift(self) -> float:
        return float(self.pipeline.vae.config.shift_factor or 0.0)

    def _timestep_arguments(self, scheduler: Any) -> dict[str, Any]:
        if not scheduler.config.get("use_dynamic_shifting"):
            return {}
        from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

        patch = self.denoiser.config.patch_size
        tokens = (self.latent_shape[1] // patch) * (self.latent_shape[2] // patch)
        config = scheduler.config
        return {
            "mu": calculate_shift(
                tokens,
                config.get("base_image_seq_len", 256),
                config.get("max_image_seq_len", 4096),
                config.get("base_shift", 0.5),
                config.get("max_shift", 1.16),
            )
        }
