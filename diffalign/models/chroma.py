"""ChromaPipeline: FLUX.1 schnell's relative without pooled text and embedded guidance."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.models.flux import FluxAdapter
from diffalign.models.layout import grid_ids, pack, unpack
from diffalign.models.packed import PackedAdapter
from diffalign.sampling import Cond


class ChromaAdapter(PackedAdapter):
    """T5 alone, linear guidance.

    The text mask keeps one padding token and is an additive bias of 0 or 1, in floating point: that is the model as
    people run it. The transformer's own gradient checkpointing drops the mask in half of its blocks.
    """

    pipelines = ("ChromaPipeline",)
    checkpointing = False
    lora_targets = FluxAdapter.lora_targets

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, _, mask, *_ = self.pipeline.encode_prompt(
            prompt,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        return {"prompt_embeds": embeds, "prompt_mask": mask.to(embeds.dtype)}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        _, height, width = self.latent_shape
        text, mask = cond["prompt_embeds"], cond["prompt_mask"]
        output = self.denoiser(
            hidden_states=pack(x),
            timestep=t.to(x.dtype) / 1000,
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device),
            img_ids=grid_ids(height // 2, width // 2, device=x.device),
            attention_mask=torch.cat([mask, mask.new_ones(len(x), self._tokens)], dim=1),
            return_dict=False,
        )[0]
        return unpack(output, self.latent_shape)
