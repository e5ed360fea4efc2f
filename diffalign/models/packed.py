"""The common part of families whose transformer takes 2 x 2 packed latents: FLUX.1, Chroma, Qwen-Image."""

from __future__ import annotations

from typing import Any

from diffalign.models.adapter import Adapter
from diffalign.models.layout import linear_sigmas
from diffalign.sampling import shift_mu


class PackedAdapter(Adapter):
    """Latents of a quarter of the transformer's channels, levels shifted once by the number of tokens."""

    @property
    def _tokens(self) -> int:
        return self.latent_shape[1] * self.latent_shape[2] // 4

    def _latent_shape(self) -> tuple[int, ...]:
        size = self.height // self.vae_factor, self.width // self.vae_factor
        return (self.denoiser.config.in_channels // 4, *size)

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        sigmas = linear_sigmas(num_inference_steps)
        scheduler.set_timesteps(sigmas=sigmas, mu=shift_mu(self._tokens, scheduler.config))


class TrueGuidance(PackedAdapter):
    """Two guidance numbers: an input of the network (`guidance_scale`), and true classifier-free guidance."""

    @property
    def _guides(self) -> bool:
        return True

    def call_arguments(self, scale: float = 1.0, negative_prompt: str = "") -> dict[str, Any]:
        """See `Adapter`; true guidance is on only with a negative prompt."""
        found: dict[str, Any] = {"guidance_scale": self.embedded_guidance} if self._embeds_guidance else {}
        if self.needs_negative(scale):
            found |= {"true_cfg_scale": scale, "negative_prompt": negative_prompt}
        return found | self._size_arguments() | self._length_arguments()
