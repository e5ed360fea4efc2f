"""SanaPipeline and SanaSprintPipeline."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import Cond


class SanaAdapter(Adapter):
    """A linear-attention flow transformer on strongly compressed latents, with Gemma 2.

    Positive prompts carry the pipeline's instruction to the text model, negative ones do not. Sizes are taken as asked:
    the pipeline's resolution binning is off.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("SanaPipeline",)
    storage = torch.float32
    patch = 1
    vae_shift = False

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """The set of diffusers' own Sana LoRA script."""
        return ("to_k", "to_q", "to_v")

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        options = {"device": self.device, "max_sequence_length": self.max_sequence_length}
        if negative:
            _, _, embeds, mask = self.pipeline.encode_prompt(
                "", True, negative_prompt=prompt, complex_human_instruction=None, **options
            )
        else:
            embeds, mask, *_ = self.pipeline.encode_prompt(
                prompt, False, complex_human_instruction=self._instruction, **options
            )
        return {"prompt_embeds": embeds, "prompt_mask": mask}

    @property
    def _instruction(self) -> Any:
        return self._call_default("complex_human_instruction")

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(
            x,
            encoder_hidden_states=cond["prompt_embeds"],
            encoder_attention_mask=cond["prompt_mask"],
            timestep=t * self.denoiser.config.timestep_scale,
            return_dict=False,
        )[0]
        return output[:, : self.latent_shape[0]].float()

    def call_arguments(self, scale: float = 1.0, negative_prompt: str = "") -> dict[str, Any]:
        """See `Adapter`."""
        return super().call_arguments(scale, negative_prompt) | {"use_resolution_binning": False}


class SanaSprintAdapter(SanaAdapter):
    """Sana distilled to 1 to 4 steps, guidance as an input.

    Latents are in units of the scheduler's sigma_data; TrigFlow is then a v-prediction on (cos t, sin t). At a number
    of steps other than 2, a plain call needs `intermediate_timesteps=None`.
    """

    pipelines = ("SanaSprintPipeline",)

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        scheduler.set_timesteps(
            num_inference_steps,
            max_timesteps=self._call_default("max_timesteps"),
            intermediate_timesteps=self._call_default("intermediate_timesteps") if num_inference_steps == 2 else None,
        )

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, mask = self.pipeline.encode_prompt(
            prompt,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
            complex_human_instruction=self._instruction,
        )
        return {"prompt_embeds": embeds, "prompt_mask": mask}

    def predict(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The network works on the straight path, s = sin t / (cos t + sin t); input and output are changed to it."""
        s = t.sin() / (t.cos() + t.sin())
        level = s.view(-1, *(1,) * (x.dim() - 1))
        radius = (level**2 + (1 - level) ** 2).sqrt()
        scaled = x * radius
        output = super().predict(scaled, s, cond)
        return ((1 - 2 * level) * scaled + (1 - 2 * level + 2 * level**2) * output) / radius

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(
            x,
            encoder_hidden_states=cond["prompt_embeds"],
            encoder_attention_mask=cond["prompt_mask"],
            guidance=self.guidance_rows(x).to(x.dtype) * self.denoiser.config.guidance_embeds_scale,
            timestep=t,
            return_dict=False,
        )[0]
        return output
