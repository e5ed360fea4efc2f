"""From a name, folder, hub id or pipeline to an adapter."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from diffalign.models.adapter import Adapter
from diffalign.models.stable_diffusion import StableDiffusionAdapter
from diffalign.models.stable_diffusion_3 import StableDiffusion3Adapter
from diffalign.naming import nearest

FAMILIES: dict[str, type[Adapter]] = {
    "StableDiffusion3Pipeline": StableDiffusion3Adapter,
    "StableDiffusionPipeline": StableDiffusionAdapter,
}
"""Pipeline class -> adapter."""

SHIPPED = Path(__file__).resolve().parent.parent / "shapes" / "checkpoints"


def adapt(pipeline: Any, **options: Any) -> Adapter:
    """The adapter of a pipeline.

    Args:
        pipeline: a diffusers pipeline.
        options: keyword arguments of the family's adapter (resolution, max_sequence_length, device).

    Raises:
        ValueError: a pipeline class without an adapter, or an option its family does not have.
    """
    name = type(pipeline).__name__
    if name not in FAMILIES:
        raise ValueError(f"there is no adapter for {name}; valid: {', '.join(FAMILIES)}")
    try:
        return FAMILIES[name](pipeline, **options)
    except TypeError as error:
        raise ValueError(f"{FAMILIES[name].__name__} does not take these options: {error}") from error


def load_policy(
    name_or_path: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    resolution: int | None = None,
    max_sequence_length: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Adapter:
    """Load a pipeline and its adapter.

    Args:
        name_or_path: name of a shipped checkpoint, a diffusers folder, or a hub id.
        revision: hub revision.
        variant: weight variant, for example "fp16".
        resolution: image height and width in pixels.
        max_sequence_length: T5 tokens (families with T5).
        dtype: weight dtype.
        device: where to run.

    Raises:
        ValueError: nothing of this name, or a pipeline class without an adapter.
    """
    pipeline = load_pipeline(name_or_path, revision=revision, variant=variant, dtype=dtype)
    options: dict[str, Any] = {"resolution": resolution, "device": device}
    if max_sequence_length is not None:
        options["max_sequence_length"] = max_sequence_length
    return adapt(pipeline, **options)


def load_pipeline(
    name_or_path: str, *, revision: str | None = None, variant: str | None = None, dtype: torch.dtype = torch.float32
) -> Any:
    """A diffusers pipeline by shipped name, folder or hub id; arguments and errors as `load_policy`."""
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    shipped = SHIPPED / name_or_path
    local = shipped if (shipped / "model_index.json").is_file() else Path(name_or_path)
    if local.is_dir() and not (local / "model_index.json").is_file():
        raise ValueError(f"{local} is no diffusers folder: it has no model_index.json")
    source = str(local) if local.is_dir() else name_or_path
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():  # torch_dtype is the one name that every supported version knows
            warnings.filterwarnings("ignore", ".*torch_dtype.*", FutureWarning)
            return DiffusionPipeline.from_pretrained(source, revision=revision, variant=variant, torch_dtype=dtype)
    except OSError as error:
        raise ValueError(_not_found(name_or_path, error)) from error


def shipped_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(folder.parent.name for folder in SHIPPED.glob("*/model_index.json"))


def _not_found(name: str, error: OSError) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"the model {name!r} is not a shipped checkpoint ({', '.join(shipped_names()) or 'none found'}), not a folder, "
        f"and could not be fetched from the hub ({first}){nearest(name, shipped_names())}"
    )
