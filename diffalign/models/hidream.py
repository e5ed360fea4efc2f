"""HiDreamImagePipeline: HiDream-I1 full, dev and fast."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import Cond, shift_mu


class HiDreamAdapter(Adapter):
    """A flow transformer with experts, and four text encoders: pooled CLIP, T5, and layers of Llama.

    The pipeline rescales any size to its own area, so that other sizes are refused.
    """

    pipelines = ("HiDreamImagePipeline",)
    text_encoder_names = ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4")

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """The set of diffusers' own HiDream LoRA script."""
        return ("to_k", "to_q", "to_v", "to_out")

    def _checked_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        found, unit = super()._checked_size(height, width), 2 * self.vae_factor
        side = self.pipeline.default_sample_size * self.vae_factor
        scale = math.sqrt(side**2 / (found[0] * found[1]))
        own = tuple(int(value * scale // unit * unit) for value in found)
        if own != found:
            raise ValueError(
                f"height x width {found[0]} x {found[1]}: the pipeline would draw {own[0]} x {own[1]}, the same shape "
                f"at the area of {side} x {side}; ask for that"
            )
        return found

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        unipc = type(scheduler).__name__ == "UniPCMultistepScheduler"
        options = {} if unipc else {"mu": shift_mu(self.denoiser.max_seq, {})}
        scheduler.set_timesteps(num_inference_steps, **options)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        t5, _, llama, _, pooled, _ = self.pipeline.encode_prompt(
            prompt,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        return {"t5": t5, "llama": llama.transpose(0, 1), "pooled_prompt_embeds": pooled}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(
            hidden_states=x,
            timesteps=t,
            encoder_hidden_states_t5=cond["t5"],
            encoder_hidden_states_llama3=cond["llama"].transpose(0, 1),  # layers first
            pooled_embeds=cond["pooled_prompt_embeds"],
            return_dict=False,
        )[0]
        return -output
