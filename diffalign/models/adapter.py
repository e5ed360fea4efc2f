"""The part that all pipeline families share: a Policy over a diffusers pipeline."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffalign.models.images import Images
from diffalign.models.meter import Meter
from diffalign.models.text import TextEncoding
from diffalign.sampling import (
    Cond,
    Dynamics,
    Policy,
    Schedule,
    dpmpp2m,
    from_scheduler,
    ode,
    readable,
    training_schedule,
    unmatched,
)
from diffalign.sampling import own_dynamics as dynamics_of


class Adapter(TextEncoding, Images, Policy, ABC):
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
    text_encoder_names: ClassVar[tuple[str, ...]] = ("text_encoder",)
    """Text encoders that the family cannot do without."""
    guidance_argument: ClassVar[str] = "guidance_scale"
    """Argument of the pipeline's call that is the embedded guidance."""
    checkpointing: ClassVar[bool] = True
    """The denoiser computes the same function with diffusers' gradient checkpointing on."""

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
        self.forget_prompts()

    # --- what a family writes ----------------------------------------------------------------------------------------

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
        call = self._call_default("height"), self._call_default("width")
        if call[0] and call[1]:
            return call
        size = getattr(self.pipeline, "default_sample_size", None) or self.denoiser.config.sample_size
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        return height * self.vae_factor, width * self.vae_factor

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        scheduler.set_timesteps(num_inference_steps)

    def call_arguments(self, scale: float = 1.0, negative_prompt: str = "") -> dict[str, Any]:
        """Arguments with which a plain call of the pipeline is this policy, beside prompt, steps and generator.

        Args:
            scale: guidance scale w of ``uncond + w (cond - uncond)``.
            negative_prompt: text of the unconditional branch.
        """
        found: dict[str, Any] = {"guidance_scale": scale if self._guides else self.embedded_guidance or 1.0}
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

    def schedule(self, num_inference_steps: int) -> Schedule:
        """The levels of the pipeline's scheduler with this many steps (shift and mu applied)."""
        return from_scheduler(self._scheduler(num_inference_steps))

    def training_schedule(self) -> Schedule:
        """Every level the model was trained at, noise first: what offline methods draw their levels from."""
        return training_schedule(self.scheduler)

    def own_dynamics(self, num_inference_steps: int) -> Dynamics:
        """The steps of a plain call of the pipeline, or the closest table where there is none (see the warning)."""
        scheduler = self._scheduler(num_inference_steps)
        schedule = from_scheduler(scheduler)
        closest = dpmpp2m if "Multistep" in type(scheduler).__name__ else ode
        return dynamics_of(scheduler, schedule, self._call_default("eta")) or closest(schedule)

    def predict(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """One branch of the denoiser: x (B, *latent_shape), t (B,), cond with B rows -> (B, *latent_shape).

        Rows with a `length`, of families whose network takes no text mask, run with companions of their length only.
        """
        if "length" in cond:
            return self._predict_by_length(x, t, cond)
        cast = {k: v.to(self.compute_dtype) if v.is_floating_point() else v for k, v in cond.items()}
        with self.autocast():
            output = self._forward(x.to(self.compute_dtype), t, cast)
        return self.meter.watch(output)

    def _predict_by_length(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        lengths, parts, order = cond["length"], [], []
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            part = {name: value[rows] for name, value in cond.items() if name != "length"}
            cut = {name: value[:, :length] if value.dim() > 2 else value for name, value in part.items()}
            parts.append(self.predict(x[rows], t[rows], cut))
            order.append(rows)
        return torch.cat(parts)[torch.cat(order).argsort()]

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

    def _check_pipeline(self) -> None:
        needed = (self.denoiser_name, "vae", "scheduler", *self.text_encoder_names)
        missing = [name for name in needed if getattr(self.pipeline, name, None) is None]
        if missing:
            raise ValueError(f"the pipeline has no {' and no '.join(missing)}: load it with all of its components")

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
            own = self._call_default(self.guidance_argument)
            if value is None and own is None:
                raise ValueError(
                    "this denoiser takes guidance as an input and its pipeline has no default: give embedded_guidance"
                )
            return float(own if value is None else value)
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
