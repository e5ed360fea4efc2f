"""StableDiffusion3Pipeline: a flow transformer with two CLIP encoders and T5."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import Cond, shift_mu

MAX_SHIFT = 1.16
"""Of the pipeline's own call, where the scheduler's config has none."""


class StableDiffusion3Adapter(Adapter):
    """Stable Diffusion 3 and 3.5, and everything else saved as a StableDiffusion3Pipeline."""

    pipelines = ("StableDiffusion3Pipeline",)

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """The set of diffusers' own SD3 LoRA script: every projection of joint attention."""
        names = "add_k_proj add_q_proj add_v_proj to_add_out to_k to_out.0 to_q to_v"
        return tuple(f"attn.{name}" for name in names.split())

    def _default_length(self) -> int | None:
        """The call's, or the T5 tokenizer's own limit where that is smaller."""
        tokenizer = getattr(self.pipeline, "tokenizer_3", None)
        length = int(self._call_default("max_sequence_length"))
        return length if tokenizer is None else min(length, int(tokenizer.model_max_length))

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        options = {}
        if scheduler.config.get("use_dynamic_shifting"):
            patch = self.denoiser.config.patch_size
            tokens = (self.height // self.vae_factor // patch) * (self.width // self.vae_factor // patch)
            options["mu"] = shift_mu(tokens, scheduler.config, top=MAX_SHIFT)
        scheduler.set_timesteps(num_inference_steps, **options)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
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
