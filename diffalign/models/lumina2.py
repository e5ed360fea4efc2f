"""Lumina2Pipeline: Lumina-Image 2.0."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.models.layout import linear_sigmas
from diffalign.sampling import Cond, linear_guidance, norm_rescaled, shift_mu


class Lumina2Adapter(Adapter):
    """A flow transformer with Gemma 2, whose time runs from noise 0 to image 1.

    Positive prompts carry the pipeline's system prompt, negative ones do not.

    Args:
        pipeline: the pipeline.
        cfg_normalization: give the guided prediction the conditional one's norm along the width, as the pipeline does
            by default.
        options: see `Adapter`.
    """

    pipelines = ("Lumina2Pipeline",)

    def __init__(self, pipeline: Any, *, cfg_normalization: bool = True, **options: Any) -> None:
        self.cfg_normalization = cfg_normalization
        super().__init__(pipeline, **options)

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        # The pipeline takes the number of channels for the number of tokens.
        mu = shift_mu(self.denoiser.config.in_channels, scheduler.config)
        scheduler.set_timesteps(sigmas=linear_sigmas(num_inference_steps), mu=mu)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        options = {"device": self.device, "max_sequence_length": self.max_sequence_length}
        if negative:
            _, _, embeds, mask = self.pipeline.encode_prompt("", True, negative_prompt=prompt, **options)
        else:
            embeds, mask, *_ = self.pipeline.encode_prompt(prompt, False, **options)
        return {"prompt_embeds": embeds, "prompt_mask": mask}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(
            hidden_states=x,
            timestep=1 - t / self.scheduler.config.num_train_timesteps,
            encoder_hidden_states=cond["prompt_embeds"],
            encoder_attention_mask=cond["prompt_mask"],
            return_dict=False,
        )[0]
        return -output

    def combine(self, cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
        """Linear guidance, with the conditional norm along the last axis, the width."""
        return norm_rescaled(cond, uncond, scale) if self.cfg_normalization else linear_guidance(cond, uncond, scale)

    def call_arguments(self, scale: float = 1.0, negative_prompt: str = "") -> dict[str, Any]:
        """See `Adapter`."""
        return super().call_arguments(scale, negative_prompt) | {"cfg_normalization": self.cfg_normalization}
