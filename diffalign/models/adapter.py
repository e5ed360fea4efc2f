"""The part that all pipeline families share: a Policy over a diffusers pipeline."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffalign.models.meter import Meter
from diffalign.models.prompt_cache import PromptCache, Row, stacked
from diffalign.sampling import Cond, Dynamics, Policy, Schedule, dpmpp2m, from_scheduler, ode, readable, unmatched
from diffalign.sampling import own_dynamics as dynamics_of


class Adapter(Policy, ABC):
    """A `sampling.Policy` over one diffusers pipeline.

    A family is one file of this package: a subclass that names its pipeline classes and writes `_encode_one` and
    `_forward`, and whatever else differs from the defaults here (docs/adding_a_model.md).

    Args:
        pipeline: the pipeline; its text encoders and VAE are frozen, its denoiser is what gets trained.
        height: image height in pixels; default the pipeline's own.
        width: image width in pixels; default the pipeline's own.
        frames: video frames (families of video).
        embedded_guidance: guidance that the network takes as an input (FLUX dev, LCM); default the pipeline's own.
        max_sequence_length: text tokens; default that of the pipeline's call.
        latent_dtype: storage dtype of latents; default the family's, else that of the denoiser.
        device: where to run.

    Attributes:
        pipeline: the pipeline.
        scheduler: what steps are read from: the pipeline's own scheduler, or a readable one on the same noise table.
        latent_shape: shape of one sample.
        prediction: what the denoiser returns.
        dtype: storage dtype of latents.
        meter: counts of model evaluations.
        autocast: factory of the context that `predict` runs in (mixed precision).

    Raises:
        ValueError: an option that the family does not have, an illegal size, a pipeline without its text encoder.
    """

    pipelines: ClassVar[tuple[str, ...]] = ()
    """Names of the diffusers pipeline classes of the family."""
    denoiser_name: ClassVar[str] = "transformer"
    """Component of the pipeline that is trained."""
    storage: ClassVar[torch.dtype | None] = None
    """Dtype in which the pipeline keeps its latents, where that is not the denoiser's."""
    patch: ClassVar[int] = 2
    """Latent pixels per side of a token: sizes are multiples of VAE factor x patch."""
    vae_shift: ClassVar[bool] = True
    """The pipeline adds the VAE's shift_factor before decoding; some never do, whatever the VAE's config says."""
    text_encoder_names: ClassVar[tuple[str, ...]] = ("text_encoder",)
    """Text encoders that the family cannot do without."""
    checkpointing: ClassVar[bool] = True
    """The denoiser computes the same function with diffusers' gradient checkpointing on."""
    video: ClassVar[bool] = False
    """Images have a frame axis."""

    def __init__(
        self,
        pipeline: Any,
        *,
        height: int | None = None,
        width: int | None = None,
        frames: int | None = None,
        embedded_guidance: float | None = None,
        max_sequence_length: int | None = None,
        latent_dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.pipeline = pipeline
        self._check_pipeline()
        self.height, self.width = self._checked_size(height, width)
        self.frames = self._checked_frames(frames)
        self.embedded_guidance = self._checked_guidance(embedded_guidance)
        self.max_sequence_length = self._checked_length(max_sequence_length)
        self.pipeline.to(device)
        for module in self.frozen_modules():
            module.requires_grad_(False).eval()
        self.denoiser.requires_grad_(False).eval()
        if pipeline.vae.dtype == torch.float16 and pipeline.vae.config.get("force_upcast"):
            pipeline.vae.to(torch.float32)  # as the pipeline does before it decodes
        self.device = torch.device(device)
        self.compute_dtype: torch.dtype = self.denoiser.dtype
        self.dtype = latent_dtype or self.storage or self.compute_dtype
        self.scheduler = readable(pipeline.scheduler)
        self._announce_steps()
        self.latent_shape = self._latent_shape()
        self.prediction = self.schedule(2).prediction
        self.meter = Meter()
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._encoded = PromptCache()
        self._released = False

    # --- what a family writes ----------------------------------------------------------------------------------------

    @abstractmethod
    def _encode_one(self, prompt: str, negative: bool) -> Row:
        """Named tensors of one row each, from the pipeline's own `encode_prompt`.

        Args:
            prompt: the text.
            negative: it is a negative prompt.
        """

    @abstractmethod
    def _forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The denoiser's output in x's layout and the scheduler's sign: x (B, *latent_shape), t (B,)."""

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """Modules that a LoRA is put on by default: those of diffusers' own training script."""
        return ("to_k", "to_out.0", "to_q", "to_v")

    def _latent_shape(self) -> tuple[int, ...]:
        return (self.denoiser.config.in_channels, self.height // self.vae_factor, self.width // self.vae_factor)

    def _default_size(self) -> tuple[int, int]:
        """(height, width) in pixels of a call without a size."""
        size = getattr(self.pipeline, "default_sample_size", None) or self.denoiser.config.sample_size
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        return height * self.vae_factor, width * self.vae_factor

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        scheduler.set_timesteps(num_inference_steps)

    def _denormalised(self, latents: Tensor) -> Tensor:
        """What the VAE decodes."""
        return latents / self.pipeline.vae.config.scaling_factor + self._shift

    def _normalised(self, latents: Tensor) -> Tensor:
        """The inverse of `_denormalised`."""
        return (latents - self._shift) * self.pipeline.vae.config.scaling_factor

    def _image(self, decoded: Tensor) -> Tensor:
        """(B, 3, H, W), or (B, F, 3, H, W) for video, from the VAE's output."""
        return decoded

    def _pixels(self, images: Tensor) -> Tensor:
        """The inverse of `_image`: what the VAE encodes."""
        return images

    def call_arguments(self, scale: float = 1.0, negative_prompt: str = "") -> dict[str, Any]:
        """Arguments with which a plain call of the pipeline is this policy, beside prompt, steps and generator.

        Args:
            scale: guidance scale w of ``uncond + w (cond - uncond)``.
            negative_prompt: text of the unconditional branch.
        """
        found: dict[str, Any] = {"guidance_scale": scale if self._guides else self.embedded_guidance}
        if negative_prompt and self.needs_negative(scale):
            found["negative_prompt"] = negative_prompt
        return found | self._size_arguments() | self._length_arguments()

    # --- the policy --------------------------------------------------------------------------------------------------

    @property
    def denoiser(self) -> Any:
        """The network that is trained: the pipeline's transformer or UNet."""
        return getattr(self.pipeline, self.denoiser_name)

    def frozen_modules(self) -> list[nn.Module]:
        """Every module of the pipeline but the denoiser."""
        parts = self.pipeline.components.items()
        return [m for name, m in parts if isinstance(m, nn.Module) and name != self.denoiser_name]

    def cast_denoiser(self, dtype: torch.dtype) -> None:
        """Move the denoiser's weights to another dtype (fp32 master weights); latents keep their storage dtype."""
        self.denoiser.to(dtype)
        self.compute_dtype = dtype

    @property
    def vae_factor(self) -> int:
        """Image pixels per side of a latent pixel."""
        return int(self.pipeline.vae_scale_factor)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(3, height, width) of a decoded image, (F, 3, height, width) of a video."""
        return (self.frames, 3, self.height, self.width) if self.video else (3, self.height, self.width)

    def schedule(self, num_inference_steps: int) -> Schedule:
        """The levels of the pipeline's scheduler with this many steps (shift and mu applied)."""
        return from_scheduler(self._scheduler(num_inference_steps))

    def own_dynamics(self, num_inference_steps: int) -> Dynamics:
        """The steps of a plain call of the pipeline, or the closest table where there is none (see the warning)."""
        scheduler = self._scheduler(num_inference_steps)
        schedule = from_scheduler(scheduler)
        closest = dpmpp2m if "Multistep" in type(scheduler).__name__ else ode
        return dynamics_of(scheduler, schedule, self._call_default("eta")) or closest(schedule)

    def encode(self, prompts: Sequence[str], *, negative: bool = False) -> Cond:
        """Encoded prompts, one row each.

        Each prompt goes through the text encoders alone and once, so that its row does not depend on its companions;
        rows of unequal length are padded at the end.
        """
        keys = [(prompt, negative) for prompt in prompts]
        missing = [key for key in dict.fromkeys(keys) if key not in self._encoded]
        with self.text_encoders_at_work() if missing else nullcontext():
            for key in missing:
                self._encoded.put(key, self._encoded_alone(*key))
        rows = stacked([self._encoded[key] for key in keys])
        self._encoded.trim()
        return {name: value.to(self.device) for name, value in rows.items()}

    def cache_prompts(self, prompts: Sequence[str], *, negative: bool = False) -> None:
        """Encode prompts ahead, until the cache is full; nothing stays on the device."""
        with self.text_encoders_at_work():
            for key in ((prompt, negative) for prompt in prompts):
                if self._encoded.full:
                    return
                if key not in self._encoded:
                    self._encoded.put(key, self._encoded_alone(*key))

    def forget_prompts(self) -> None:
        """Drop every kept encoding: the text encoders have changed."""
        self._encoded = PromptCache()

    def text_encoders(self) -> dict[str, nn.Module]:
        """The pipeline's text encoders by name."""
        parts = self.pipeline.components.items()
        return {name: m for name, m in parts if isinstance(m, nn.Module) and name.startswith("text_encoder")}

    def release_text_encoders(self) -> None:
        """Move the text encoders to the CPU; from now on they come back only while a new prompt is encoded."""
        self._released = True
        for module in self.text_encoders().values():
            module.to("cpu")

    def predict(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """One branch of the denoiser: x (B, *latent_shape), t (B,), cond with B rows -> (B, *latent_shape)."""
        cast = {k: v.to(self.compute_dtype) if v.is_floating_point() else v for k, v in cond.items()}
        with self.autocast():
            output = self._forward(x.to(self.compute_dtype), t, cast)
        return self.meter.watch(output)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, *latent_shape) latents -> (B, *image_shape) in [0, 1], differentiable."""
        vae = self.pipeline.vae
        decoded = vae.decode(self._denormalised(latents.to(vae.dtype)), return_dict=False)[0]
        return (self._image(decoded).float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode_images(
        self, images: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Clean latents of images, for offline data.

        Args:
            images: (B, *image_shape) in [0, 1].
            sample: draw from the VAE's posterior, as training scripts do; else its mode, which is deterministic.
            generator: of the draw.

        Returns:
            (B, *latent_shape) in the storage dtype.

        Raises:
            ValueError: images of another size.
        """
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"images have the shape {tuple(images.shape[1:])}, the policy draws {self.image_shape}")
        vae = self.pipeline.vae
        encoded = vae.encode(self._pixels(images.to(self.device, vae.dtype) * 2 - 1))
        if hasattr(encoded, "latent_dist"):
            posterior = encoded.latent_dist
            latents = posterior.sample(generator) if sample else posterior.mode()
        else:
            latents = encoded.latent  # AutoencoderDC is deterministic
        return self._normalised(latents).to(self.dtype)

    def needs_negative(self, scale: float) -> bool:
        """True above 1, as in diffusers.

        Raises:
            ValueError: a scale above 1 on a model without an unconditional branch.
        """
        if scale > 1 and not self._guides:
            raise ValueError(
                f"guidance scale {scale:g}: this model has no unconditional branch (its embedded_guidance is "
                f"{self.embedded_guidance}): use guidance scale 1"
            )
        return scale > 1

    def guidance_rows(self, x: Tensor) -> Tensor:
        """(B,) fp32 embedded guidance, the network's input."""
        return torch.full((len(x),), float(self.embedded_guidance or 0), dtype=torch.float32, device=x.device)

    # --- pieces ------------------------------------------------------------------------------------------------------

    @property
    def _shift(self) -> float:
        return float(self.pipeline.vae.config.get("shift_factor") or 0.0) if self.vae_shift else 0.0

    @property
    def _embeds_guidance(self) -> bool:
        """The network takes a guidance scale as an input."""
        return bool(self.denoiser.config.get("guidance_embeds") or self.denoiser.config.get("time_cond_proj_dim"))

    @property
    def _guides(self) -> bool:
        """The pipeline has classifier-free guidance; most that embed guidance have not."""
        return not self._embeds_guidance

    def _call_default(self, name: str) -> Any:
        """Default of an argument of the pipeline's call, None where it has none."""
        found = inspect.signature(type(self.pipeline).__call__).parameters.get(name)
        return None if found is None or found.default is inspect.Parameter.empty else found.default

    def _default_length(self) -> int | None:
        """Text tokens of a call without a length; None where the family has no such argument."""
        found = self._call_default("max_sequence_length")
        return None if found is None else int(found)

    def _size_arguments(self) -> dict[str, Any]:
        size = (self.height, self.width)
        return {} if size == self._default_size() else {"height": self.height, "width": self.width}

    def _length_arguments(self) -> dict[str, Any]:
        own = self.max_sequence_length == self._call_default("max_sequence_length")
        return {} if own else {"max_sequence_length": self.max_sequence_length}

    def _scheduler(self, num_inference_steps: int) -> Any:
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        self._set_timesteps(scheduler, num_inference_steps)
        return scheduler

    def _announce_steps(self) -> None:
        if reason := unmatched(self.scheduler):
            warnings.warn(
                f"{reason}: no table of steps does the same, so images differ from the plain pipeline's; sampling "
                "takes plain steps on the same levels",
                stacklevel=4,
            )

    def _encoded_alone(self, prompt: str, negative: bool) -> Row:
        with torch.no_grad():
            return self._encode_one(prompt, negative)

    @contextmanager
    def text_encoders_at_work(self) -> Iterator[None]:
        """Text encoders that were released are on the device inside."""
        if not self._released:
            yield
            return
        for module in self.text_encoders().values():
            module.to(self.device)
        try:
            yield
        finally:
            self.release_text_encoders()

    def _check_pipeline(self) -> None:
        missing = [name for name in self.text_encoder_names if getattr(self.pipeline, name, None) is None]
        if missing:
            raise ValueError(f"the pipeline has no {' and no '.join(missing)}: load it with its text encoders")

    def _checked_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        own, unit = self._default_size(), self.vae_factor * self.patch
        size = (height or own[0], width or own[1])
        for name, value in zip(("height", "width"), size, strict=True):
            if value % unit:
                legal = max(round(value / unit), 1) * unit
                raise ValueError(f"{name} {value} must be a multiple of {unit} for this model; the nearest is {legal}")
        return size

    def _checked_frames(self, frames: int | None) -> int:
        if not self.video and (frames or 1) != 1:
            raise ValueError(f"frames = {frames}, but {type(self.pipeline).__name__} makes single images")
        return frames or int(self._call_default("num_frames") or 1)

    def _checked_guidance(self, value: float | None) -> float | None:
        if self._embeds_guidance:
            return float(self._call_default("guidance_scale") if value is None else value)
        if value is not None:
            raise ValueError(
                f"embedded_guidance = {value}, but this denoiser takes no guidance as an input: leave it out, and use "
                "the guidance scale"
            )
        return None

    def _checked_length(self, value: int | None) -> int | None:
        default = self._default_length()
        if default is None and value is not None:
            raise ValueError(f"max_sequence_length = {value}, but {type(self.pipeline).__name__} has no such option")
        return value or default
