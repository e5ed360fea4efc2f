"""CogView4Pipeline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.sampling import Cond


class CogView4Adapter(Adapter):
    """A flow transformer that is told the image size, with GLM text without a mask.

    Its timesteps stay on an even grid while the noise levels are shifted, so t is not 1000 sigma.
    """

    pipelines = ("CogView4Pipeline",)
    storage = torch.float32
    vae_shift = False

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        config, total = scheduler.config, scheduler.config.num_train_timesteps
        timesteps = torch.linspace(total, 1, num_inference_steps, dtype=torch.float64).long().float().numpy()
        patch = self.denoiser.config.patch_size
        tokens = (self.height // self.vae_factor // patch) * (self.width // self.vae_factor // patch)
        length, low, high = (
            config.get(key, default)
            for key, default in (("base_image_seq_len", 256), ("base_shift", 0.25), ("max_shift", 0.75))
        )
        mu = (tokens / length) ** 0.5 * high + low
        scheduler.set_timesteps(timesteps=timesteps, sigmas=timesteps / total, mu=mu)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, _ = self.pipeline.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
        )
        return {"prompt_embeds": embeds, "length": torch.tensor([embeds.shape[1]])}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        size = torch.tensor([[self.height, self.width]], dtype=x.dtype, device=x.device).expand(len(x), -1)
        output: Tensor = self.denoiser(
            hidden_states=x,
            encoder_hidden_states=cond["prompt_embeds"],
            timestep=t,
            original_size=size,
            target_size=size,
            crop_coords=torch.zeros_like(size),
            return_dict=False,
        )[0]
        return output
