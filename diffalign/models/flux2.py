"""Flux2Pipeline and Flux2KleinPipeline: FLUX.2 dev and Klein."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffalign.models.adapter import Adapter
from diffalign.models.layout import linear_sigmas
from diffalign.sampling import Cond

# Shift exponent of FLUX.2's own schedule: lines in the number of tokens at 200 and at 10 steps
# (diffusers pipeline_flux2.py, compute_empirical_mu).
LINE_OF_200 = (0.00016927, 0.45666666)
LINE_OF_10 = (8.73809524e-05, 1.89833333)
MANY_TOKENS = 4300


def empirical_mu(tokens: int, num_steps: int) -> float:
    """FLUX.2's shift exponent, which depends on the number of steps too."""
    high, low = (slope * tokens + base for slope, base in (LINE_OF_200, LINE_OF_10))
    if tokens > MANY_TOKENS:
        return high
    return high + (num_steps - 200) * (high - low) / 190


class Flux2Adapter(Adapter):
    """A flow transformer over patchified latents, in which the noise is drawn, with a chat model as its text encoder.

    dev takes guidance as an input and has no other. Klein is guided with the empty negative prompt, or not at all where
    it is distilled.
    """

    pipelines = ("Flux2Pipeline", "Flux2KleinPipeline")

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """The set of diffusers' own FLUX.2 LoRA script, for the number of blocks that there are."""
        single = (f"single_transformer_blocks.{i}.attn.to_out" for i in range(self.denoiser.config.num_single_layers))
        return ("to_k", "to_q", "to_v", "to_out.0", "to_qkv_mlp_proj", *single)

    @property
    def _guides(self) -> bool:
        return not self._embeds_guidance and not self.pipeline.config.get("is_distilled")

    def _latent_shape(self) -> tuple[int, ...]:
        side = 2 * self.vae_factor
        return (self.denoiser.config.in_channels, self.height // side, self.width // side)

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        tokens = (self.height // (2 * self.vae_factor)) * (self.width // (2 * self.vae_factor))
        mu = empirical_mu(tokens, num_inference_steps)
        scheduler.set_timesteps(sigmas=linear_sigmas(num_inference_steps), mu=mu)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        if negative and prompt:
            raise ValueError(f"{type(self.pipeline).__name__} knows no negative prompt but the empty one")
        found = self.pipeline.encode_prompt(prompt, device=self.device, max_sequence_length=self.max_sequence_length)
        return {"prompt_embeds": found[0]}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        text = cond["prompt_embeds"]
        output: Tensor = self.denoiser(
            hidden_states=x.flatten(2).transpose(1, 2),
            timestep=t.to(x.dtype) / 1000,
            guidance=self.guidance_rows(x) if self._embeds_guidance else None,
            encoder_hidden_states=text,
            txt_ids=_ids(1, 1, text.shape[1], x.device),
            img_ids=_ids(x.shape[2], x.shape[3], 1, x.device),
            return_dict=False,
        )[0]
        return output.transpose(1, 2).reshape(x.shape)

    def _denormalised(self, latents: Tensor) -> Tensor:
        """Undo the VAE's batch normalisation, then the 2 x 2 patches."""
        mean, std = self._statistics(latents)
        b, c, h, w = latents.shape
        patches = (latents * std + mean).reshape(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
        return patches.reshape(b, c // 4, 2 * h, 2 * w)

    def _normalised(self, latents: Tensor) -> Tensor:
        b, c, h, w = latents.shape
        patches = latents.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
        patches = patches.reshape(b, 4 * c, h // 2, w // 2)
        mean, std = self._statistics(patches)
        return (patches - mean) / std

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        vae = self.pipeline.vae
        std = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
        return vae.bn.running_mean.view(1, -1, 1, 1).to(like), std.view(1, -1, 1, 1).to(like)


def _ids(height: int, width: int, length: int, device: torch.device) -> Tensor:
    """(height * width * length, 4) position ids (0, row, column, text position)."""
    axes = (torch.arange(n, device=device) for n in (1, height, width, length))
    return torch.cartesian_prod(*axes)
