"""What every pipeline family shares: a Policy over a diffusers pipeline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffalign.models.meter import Meter
from diffalign.sampling import Cond, Schedule, from_scheduler, linear_guidance

CACHED_PROMPTS = 4096
"""Encoded prompts kept on the CPU; SD3's take 2.6 MB each in half precision."""


class Adapter(ABC):
    """A `sampling.Policy` over one diffusers pipeline.

    Args:
        pipeline: the pipeline; its text encoders and VAE are frozen, its denoiser is what gets trained.
        resolution: image height and width in pixels; default the pipeline's own.
        device: where to run.

    Attributes:
        pipeline: the pipeline.
        latent_shape: (C, H, W) of one sample.
        prediction: what the denoiser returns.
        meter: counts of model evaluations.
        autocast: factory of the context that `predict` runs in (mixed precision).
    """

    denoiser_name: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]]

    def __init__(self, pipeline: Any, *, resolution: int | None = None, device: str | torch.device = "cpu") -> None:
        self.pipeline = pipeline.to(device)
        for module in self.frozen_modules():
            module.requires_grad_(False).eval()
        self.denoiser.requires_grad_(False).eval()
        self.device = torch.device(device)
        self.dtype: torch.dtype = next(self.denoiser.parameters()).dtype
        self.prediction = self._prediction()
        self.latent_shape = self._latent_shape(resolution)
        self.meter = Meter()
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._encoded: OrderedDict[str, Cond] = OrderedDict()
        self._released = False

    @property
    def denoiser(self) -> Any:
        """The network that is trained: the pipeline's transformer or UNet."""
        return getattr(self.pipeline, self.denoiser_name)

    def frozen_modules(self) -> list[nn.Module]:
        """Every module of the pipeline but the denoiser."""
        parts = self.pipeline.components.items()
        return [m for name, m in parts if isinstance(m, nn.Module) and name != self.denoiser_name]

    @property
    def call_arguments(self) -> dict[str, Any]:
        """What a plain call of the pipeline needs beside a prompt, to be the model that this policy is."""
        return {}

    def schedule(self, num_inference_steps: int) -> Schedule:
        """The levels of the pipeline's scheduler with this many steps (shift and mu applied)."""
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(num_inference_steps, **self._timestep_arguments(scheduler))
        return from_scheduler(scheduler)

    def encode(self, prompts: Sequence[str]) -> Cond:
        """Encoded prompts, one row each.

        Each prompt goes through the text encoders alone and once: its row does not depend on its companions.
        """
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._encoded]
        with torch.no_grad(), self._text_encoders_at_work() if missing else nullcontext():
            for prompt in missing:
                self._encoded[prompt] = {name: value.cpu() for name, value in self._encode_one(prompt).items()}
        for prompt in prompts:
            self._encoded.move_to_end(prompt)
        rows = [self._encoded[prompt] for prompt in prompts]
        while len(self._encoded) > CACHED_PROMPTS:
            self._encoded.popitem(last=False)
        return {name: torch.cat([row[name] for row in rows]).to(self.device) for name in rows[0]}

    def text_encoders(self) -> dict[str, nn.Module]:
        """The pipeline's text encoders by name."""
        parts = self.pipeline.components.items()
        return {name: m for name, m in parts if isinstance(m, nn.Module) and name.startswith("text_encoder")}

    def release_text_encoders(self) -> None:
        """Move the text encoders to the CPU; from now on they come back only while a new prompt is encoded."""
        self._released = True
        for module in self.text_encoders().values():
            module.to("cpu")

    @contextmanager
    def _text_encoders_at_work(self) -> Iterator[None]:
        if not self._released:
            yield
            return
        for module in self.text_encoders().values():
            module.to(self.device)
        try:
            yield
        finally:
            self.release_text_encoders()

    def predict(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """One branch of the denoiser: x (B, C, H, W), t (B,), cond with B rows -> (B, C, H, W)."""
        with self.autocast():
            output = self._forward(x.to(self.dtype), t, cond)
        return self.meter.watch(output)

    def combine(self, cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
        """Linear classifier-free guidance."""
        return linear_guidance(cond, uncond, scale)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) latents -> (B, 3, height, width) images in [0, 1], differentiable."""
        vae = self.pipeline.vae
        latents = latents.to(vae.dtype) / vae.config.scaling_factor + self._latent_shift()
        image = vae.decode(latents, return_dict=False)[0]
        return (image.float() / 2 + 0.5).clamp(0, 1)

    def _latent_shape(self, resolution: int | None) -> tuple[int, ...]:
        factor = self.pipeline.vae_scale_factor
        config = self.denoiser.config
        if resolution is None:
            size = config.sample_size
            height, width = (size, size) if isinstance(size, int) else tuple(size)
        elif resolution % (2 * factor):
            raise ValueError(f"resolution {resolution} must be a multiple of {2 * factor} for this model")
        else:
            height = width = resolution // factor
        return (config.in_channels, height, width)

    def _latent_shift(self) -> float:
        """Added to the scaled latents before decoding; only SD3 and later have one, whatever the VAE config says."""
        return 0.0

    def _timestep_arguments(self, scheduler: Any) -> dict[str, Any]:
        return {}

    @abstractmethod
    def _prediction(self) -> str: ...

    @abstractmethod
    def _encode_one(self, prompt: str) -> dict[str, Tensor]: ...

    @abstractmethod
    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor: ...
