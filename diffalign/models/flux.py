"""FluxPipeline: FLUX.1 dev and schnell."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.models.layout import grid_ids, pack, unpack
from diffalign.models.packed import TrueGuidance
from diffalign.sampling import Cond


class FluxAdapter(TrueGuidance):
    """A flow transformer over packed latents, with CLIP's pooled vector and T5.

    dev takes guidance as an input (`embedded_guidance`, the pipeline's `guidance_scale`). The guidance scale here is
    that of true classifier-free guidance (`true_cfg_scale`), which costs a second forward and works on both models.
    """

    pipelines = ("FluxPipeline",)
    text_encoder_names = ("text_encoder", "text_encoder_2")

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """The set of diffusers' own FLUX LoRA script: attention and the feed-forward of the double blocks."""
        attention = "to_k to_q to_v to_out.0 add_k_proj add_q_proj add_v_proj to_add_out".split()
        forward = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
        return (*(f"attn.{name}" for name in attention), *forward)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, pooled, _ = self.pipeline.encode_prompt(
            prompt, None, device=self.device, max_sequence_length=self.max_sequence_length
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        _, height, width = self.latent_shape
        text = cond["prompt_embeds"]
        output = self.denoiser(
            hidden_states=pack(x),
            timestep=t.to(x.dtype) / 1000,  # rounded as the pipeline rounds it
            guidance=self.guidance_rows(x) if self._embeds_guidance else None,
            pooled_projections=cond["pooled_prompt_embeds"],
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device),
            img_ids=grid_ids(height // 2, width // 2, device=x.device),
            return_dict=False,
        )[0]
        return unpack(output, self.latent_shape)
