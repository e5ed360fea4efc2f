"""Code on the model card: how to load the weights with plain diffusers and repeat the measured call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["denoiser_of", "usage"]

HERE = '"path/to/this/folder"'


def denoiser_of(folder: Path) -> tuple[str, str] | None:
    """Name of the sub-folder with a whole fine-tuned denoiser and its diffusers class; None for a LoRA run."""
    if (folder / "pytorch_lora_weights.safetensors").is_file():
        return None
    for part in ("transformer", "unet"):
        config = folder / part / "config.json"
        if config.is_file():
            return part, json.loads(config.read_text(encoding="utf-8")).get("_class_name", "AutoModel")
    return None


def usage(
    base: str | None,
    denoiser: tuple[str, str] | None,
    comparison: Mapping[str, Any] | None,
    call_kwargs: Mapping[str, Any],
) -> str:
    """A few lines of Python.

    Args:
        base: Hub id, folder or shipped name of the base model.
        denoiser: From `denoiser_of`; None stands for LoRA weights.
        comparison: Content of `evaluation/comparison.json`; its step count and guidance scale go into the call.
        call_kwargs: Further arguments of the call.
    """
    source = json.dumps(base or "path/to/the/base/model")
    shipped = bool(base) and _is_shipped(str(base))
    source = f"checkpoint({source})" if shipped else source
    classes = ["DiffusionPipeline"] if denoiser is None else ["DiffusionPipeline", denoiser[1]]
    lines = [f"from diffusers import {', '.join(classes)}"]
    lines += ["from diffalign.shapes.shipped import checkpoint"] if shipped else []
    if denoiser is None:
        lines += ["", f"pipe = DiffusionPipeline.from_pretrained({source})", f"pipe.load_lora_weights({HERE})"]
    else:
        part, kind = denoiser
        lines += ["", f'{part} = {kind}.from_pretrained({HERE}, subfolder="{part}")']
        lines += [f"pipe = DiffusionPipeline.from_pretrained({source}, {part}={part})"]
    return "\n".join([*lines, f"image = pipe({_call(comparison or {}, call_kwargs)}).images[0]"])


def _call(comparison: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Arguments of the call that gives the scores on the card."""
    measured = {
        "num_inference_steps": comparison.get("num_inference_steps"),
        "guidance_scale": (comparison.get("guidance") or {}).get("after"),
    }
    known = {key: value for key, value in {**measured, **given}.items() if value is not None}
    return ", ".join(['"a prompt"', *(f"{key}={value!r}" for key, value in known.items())])


def _is_shipped(base: str) -> bool:
    """True for a bare name: the checkpoints inside this package have those, hub ids and folders have a slash."""
    return "/" not in base and not Path(base).exists()
