"""WanPipeline: Wan 2.1 text to video; with one frame, text to image."""

from __future__ import annotations

from torch import Tensor

from diffalign.models.layout import channel_statistics
from diffalign.models.video import VideoAdapter
from diffalign.sampling import Cond


class WanAdapter(VideoAdapter):
    """A flow transformer with UMT5.

    The shipped scheduler is UniPC, a predictor-corrector whose steps no table has: rollouts take DPM-Solver++ 2M on
    its levels. Wan 2.2 is refused: it has two transformers, or a time per token.
    """

    pipelines = ("WanPipeline",)

    def _check_pipeline(self) -> None:
        super()._check_pipeline()
        config = self.pipeline.config
        if config.get("boundary_ratio") is not None or config.get("expand_timesteps"):
            raise ValueError(
                "Wan 2.2 (two transformers, or a time per token) is not supported: use a Wan 2.1 checkpoint"
            )

    @property
    def vae_factor(self) -> int:
        """Image pixels per side of a latent pixel."""
        return int(self.pipeline.vae_scale_factor_spatial)

    @property
    def frame_factor(self) -> int:
        """Frames per latent frame."""
        return int(self.pipeline.vae_scale_factor_temporal)

    def _encode_one(self, prompt: str, negative: bool) -> dict[str, Tensor]:
        embeds, _ = self.pipeline.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
            device=self.device,
        )
        return {"prompt_embeds": embeds}

    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        output: Tensor = self.denoiser(
            hidden_states=x, timestep=t, encoder_hidden_states=cond["prompt_embeds"], return_dict=False
        )[0]
        return output

    def _denormalised(self, latents: Tensor) -> Tensor:
        mean, std = channel_statistics(self.pipeline.vae, latents)
        return latents * std + mean

    def _normalised(self, latents: Tensor) -> Tensor:
        mean, std = channel_statistics(self.pipeline.vae, latents)
        return (latents - mean) / std
