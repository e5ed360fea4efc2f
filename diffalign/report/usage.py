"""Code on the model card: how to load the weights with plain diffusers and repeat the measured call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

__all__ = ["Weights", "usage", "weights_in"]

HERE = '"path/to/this/folder"'


class Weights(NamedTuple):
    """Weights in a run folder.

    Attributes:
        kind: `lora`, `pipeline` (a whole one) or `denoiser` (a whole denoiser without the rest).
        part: Sub-folder of the denoiser.
        class_name: Its class in diffusers.
    """

    kind: Literal["lora", "pipeline", "denoiser"]
    part: str = ""
    class_name: str = ""


def weights_in(folder: Path) -> Weights:
    """Kind of weights in a run folder; LoRA where nothing says otherwise."""
    if (folder / "pytorch_lora_weights.safetensors").is_file():
        return Weights("lora")
    if (folder / "model_index.json").is_file():
        return Weights("pipeline")
    for part in ("transformer", "unet"):
        config = folder / part / "config.json"
        if config.is_file():
            name = json.loads(config.read_text(encoding="utf-8")).get("_class_name", "AutoModel")
            return Weights("denoiser", part, name)
    return Weights("lora")


def usage(
    base: str | None, weights: Weights, comparison: Mapping[str, Any] | None, call_kwargs: Mapping[str, Any]
) -> str:
    """A few lines of Python.

    Args:
        base: Hub id, folder or shipped name of the base model.
        weights: From `weights_in`.
        comparison: Content of `evaluation/comparison.json`; its step count and guidance scale go into the call.
        call_kwargs: Further arguments of the call.
    """
    image = f"image = pipe({_call(comparison or {}, call_kwargs)}).images[0]"
    if weights.kind == "pipeline":
        lines = ["from diffusers import DiffusionPipeline", "", f"pipe = DiffusionPipeline.from_pretrained({HERE})"]
        return "\n".join([*lines, image])
    shipped = base is not None and _is_shipped(base)
    source = json.dumps(base or "path/to/the/base/model")
    source = f"checkpoint({source})" if shipped else source
    load = _load_lora(source) if weights.kind == "lora" else _load_denoiser(source, weights)
    extra = ["from diffalign.shapes.shipped import checkpoint"] if shipped else []
    return "\n".join([load[0], *extra, "", *load[1:], image])


def _load_lora(source: str) -> list[str]:
    """Import and loading of a LoRA on its base."""
    lines = [f"pipe = DiffusionPipeline.from_pretrained({source})", f"pipe.load_lora_weights({HERE})"]
    return ["from diffusers import DiffusionPipeline", *lines]


def _load_denoiser(source: str, weights: Weights) -> list[str]:
    """Import and loading of a base with another denoiser."""
    part, name = weights.part, weights.class_name
    return [
        f"from diffusers import DiffusionPipeline, {name}",
        f'{part} = {name}.from_pretrained({HERE}, subfolder="{part}")',
        f"pipe = DiffusionPipeline.from_pretrained({source}, {part}={part})",
    ]


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
