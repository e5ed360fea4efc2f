"""From a name, folder, hub id or pipeline to an adapter."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from diffalign.models.adapter import Adapter
from diffalign.models.families import adapt
from diffalign.models.files import damaged_file
from diffalign.naming import nearest

DENOISERS = ("transformer", "unet")
"""Names of the denoiser in diffusers' pipelines."""

SHIPPED = Path(__file__).resolve().parent.parent / "shapes" / "checkpoints"


def load_policy(
    name_or_path: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    dtype: torch.dtype = torch.float32,
    denoiser_dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    **options: Any,
) -> Adapter:
    """Load a pipeline and its adapter.

    Args:
        name_or_path: name of a shipped checkpoint, a diffusers folder, or a hub id. For a pipeline that is loaded
            already there is `adapt`.
        revision: hub revision.
        variant: weight variant, for example "fp16".
        dtype: weight dtype.
        denoiser_dtype: weight dtype of the denoiser, and so of latents, where it differs (fp32 beside half-precision
            encoders, as released SD3.5 training has it).
        device: where to run.
        options: further options of `adapt` (resolution, height, width, max_sequence_length, ...); None is the default.

    Raises:
        ValueError: nothing of this name, or a pipeline class without an adapter.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise ValueError(
            f"load_policy takes a name, folder or hub id, not a {type(name_or_path).__name__}: for a loaded pipeline "
            "use diffalign.models.adapt(pipeline)"
        )
    dtypes = dtype if denoiser_dtype is None else dict.fromkeys(DENOISERS, denoiser_dtype) | {"default": dtype}
    pipeline = load_pipeline(str(name_or_path), revision=revision, variant=variant, dtype=dtypes)
    return adapt(pipeline, device=device, **{name: value for name, value in options.items() if value is not None})


def load_pipeline(
    name_or_path: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    dtype: torch.dtype | dict[str, torch.dtype] = torch.float32,
) -> Any:
    """A diffusers pipeline by shipped name, folder or hub id; arguments and errors as `load_policy`.

    `dtype` may be one per component, as diffusers takes it: {"transformer": ..., "default": ...}.
    """
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
    except Exception as error:
        if local.is_dir():
            raise ValueError(_not_loaded(local, error)) from error
        if isinstance(error, OSError):
            raise ValueError(_not_found(name_or_path, error)) from error
        raise


def shipped_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(folder.parent.name for folder in SHIPPED.glob("*/model_index.json"))


def _not_loaded(folder: Path, error: Exception) -> str:
    damaged = damaged_file(folder)
    if damaged is not None:
        return f"the model in {folder} is damaged: {damaged}; copy or download it again"
    return f"the model in {folder} could not be loaded: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _not_found(name: str, error: OSError) -> str:
    return (
        f"the model {name!r} is not a shipped checkpoint ({', '.join(shipped_names()) or 'none found'}), not a folder, "
        f"and could not be fetched from the hub ({_first_line(error)}){nearest(name, shipped_names())}"
    )
