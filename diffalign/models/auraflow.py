"""AuraFlowPipeline."""

from __future__ import annotations

from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import Cond


class AuraFlowAdapter(Adapter):
    """A flow transformer with UMT5; its time input lies between 0 and 1."""

    pipelines = ("AuraFlowPipeline",)
    vae_shift = False

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, *_ = self.pipeline.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
        )
        return {"prompt_embeds": embeds}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(
            x,
            encoder_hidden_states=cond["prompt_embeds"],
            timestep=(t / 1000).to(x.dtype),
            return_dict=False,
        )[0]
        return output
