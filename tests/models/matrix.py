"""The families under test: one row each, with what its tiny pipeline and its adapter are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import diffusers as d

from tests.models import tiny


@dataclass(frozen=True)
class Row:
    """One family, or one variant of it.

    Attributes:
        build: makes the pipeline.
        options: keyword arguments of `adapt`.
        scale: guidance scale above 1, or None for a model without an unconditional branch.
        steps: inference steps.
        sizes: two (height, width) in pixels.
        negative: a negative prompt.
        call: further arguments of the plain call.
        prepare: what a toy needs after loading.
        variant: only another scheduler, option or configuration of the family of an earlier row: replay, LoRA and
            gradients are tested there.
    """

    build: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)
    scale: float | None = 4.0
    steps: int = 3
    sizes: tuple[tuple[int, int], tuple[int, int]] = ((24, 40), (40, 16))
    negative: str = "three green cross"
    call: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Any], Any] = lambda pipeline: None
    variant: bool = False


TRAILING = {**tiny.SD_TABLE, "timestep_spacing": "trailing"}
V_ZERO_SNR = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}

LARGER, WIDE = ((32, 48), (48, 16)), ((32, 64), (64, 32))


def sdxl(scheduler: Any = None, **options: Any) -> Callable[[], Any]:
    return partial(tiny.sdxl, scheduler=scheduler, **options)


MATRIX: dict[str, Row] = {
    "sd": Row(tiny.sd),
    "sd-v": Row(partial(tiny.sd, **V_ZERO_SNR), {"guidance_rescale": 0.7}, steps=7, variant=True),
    "lcm": Row(tiny.lcm, {"embedded_guidance": 6.0}, scale=None, steps=4),
    "sdxl": Row(sdxl()),
    "sdxl-rescale": Row(sdxl(force_zeros_for_empty_prompt=False), {"guidance_rescale": 0.7}, variant=True),
    "sdxl-turbo": Row(sdxl(d.EulerAncestralDiscreteScheduler(**TRAILING)), scale=2.0, steps=2, variant=True),
    "sdxl-lightning": Row(sdxl(d.EulerDiscreteScheduler(**TRAILING)), steps=4, variant=True),
    "sdxl-hyper": Row(sdxl(d.TCDScheduler(**tiny.SD_TABLE)), steps=4, variant=True),
    "sdxl-lcm": Row(sdxl(d.LCMScheduler(), time_cond=32), {"embedded_guidance": 8.0}, scale=None),
    "sdxl-playground": Row(
        sdxl(d.EulerDiscreteScheduler(**tiny.SD_TABLE), vae_config=tiny.LATENT_STATISTICS), variant=True
    ),
    "sd3": Row(tiny.sd3),
    "z-image": Row(tiny.z_image),
    "z-image-capped": Row(tiny.z_image, {"cfg_normalization": 0.5}, scale=5.0, variant=True),
    "qwen-image": Row(tiny.qwen_image, prepare=tiny.start_after_template),
    "pixart-alpha": Row(tiny.pixart, steps=4),
    "pixart-sigma": Row(partial(tiny.pixart, kind=d.PixArtSigmaPipeline), steps=20, variant=True),
    "sana": Row(tiny.sana, steps=4, sizes=WIDE),
    "sana-euler": Row(partial(tiny.sana, scheduler=tiny.flow()), sizes=WIDE, variant=True),
    "sana-sprint": Row(tiny.sana_sprint, {"embedded_guidance": 3.0}, scale=None, steps=2, sizes=WIDE),
    "flux2": Row(tiny.flux2, {"embedded_guidance": 2.5}, scale=None),
    "klein": Row(tiny.klein, negative=""),
    "klein-distilled": Row(partial(tiny.klein, distilled=True), scale=None, steps=4, variant=True),
    "lumina2": Row(tiny.lumina2, sizes=LARGER),
    "lumina2-linear": Row(
        partial(tiny.lumina2, use_dynamic_shifting=True),
        {"cfg_normalization": False},
        sizes=LARGER,
        variant=True,
    ),
    "chroma": Row(tiny.chroma),
    "auraflow": Row(tiny.auraflow),
    "wan": Row(tiny.wan, {"frames": 5}, sizes=LARGER),
    "wan-image": Row(tiny.wan, {"frames": 1}, sizes=LARGER, variant=True),
    "ltx": Row(tiny.ltx, {"frames": 9}, sizes=WIDE),
    "ltx-timed": Row(
        partial(tiny.ltx, timestep_conditioning=True),
        {"frames": 9, "guidance_rescale": 0.7},
        sizes=WIDE,
        variant=True,
    ),
    "cogview4": Row(tiny.cogview4, sizes=LARGER),
    "kandinsky5": Row(tiny.kandinsky5, sizes=((32, 48), (64, 32)), prepare=tiny.two_sizes),
    "hidream": Row(tiny.hidream, sizes=((24, 40), (40, 24)), prepare=tiny.smaller_area),
    "hunyuan-image": Row(tiny.hunyuan_image, scale=None, prepare=tiny.start_after_template),
    "hunyuan-image-distilled": Row(
        partial(tiny.hunyuan_image, guidance=True),
        {"embedded_guidance": 2.5},
        scale=None,
        prepare=tiny.start_after_template,
        variant=True,
    ),
    "flux-dev": Row(tiny.flux, {"embedded_guidance": 2.5}),
    "flux-schnell": Row(partial(tiny.flux, guidance=False, shift=1.0, use_dynamic_shifting=False), variant=True),
}
"""Name -> row. A new family is one builder in tiny.py and one row here."""
