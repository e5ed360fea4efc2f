"""Trackers beside metrics.jsonl: checked before anything is loaded, named, and free of repeated steps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from accelerate import Accelerator
from torch import Tensor

from diffalign.config import RunConfig, saved_form


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that is not installed, which accelerate would leave out with a warning, or not logged in.

    Raises:
        ValueError: its name, and how to get it.
    """
    from accelerate.tracking import get_available_trackers

    missing = sorted(set(names) - {str(tracker) for tracker in get_available_trackers()})
    if missing:
        raise ValueError(f"report_to names {', '.join(missing)}, not installed here: pip install {' '.join(missing)}")
    if "wandb" in names and not _wandb_ready():
        raise ValueError(
            "report_to names wandb, which has no API key here: run `wandb login`, set WANDB_API_KEY, or set "
            "WANDB_MODE=offline"
        )


def _wandb_ready() -> bool:
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun") or os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    return bool(getattr(getattr(wandb, "api", None), "api_key", None))


def start_trackers(accelerator: Accelerator, args: RunConfig, step: int) -> None:
    """Begin or go on with a tracked run; the steps after `step` that an earlier launch logged are dropped."""
    accelerator.init_trackers(
        args.tracker_project_name,
        config=_flat(args),
        init_kwargs={
            "tensorboard": {"purge_step": step + 1} if step else {},
            "wandb": {"name": args.run_name} if args.run_name else {},
        },
    )


def log_image(accelerator: Accelerator, name: str, image: Tensor, step: int) -> None:
    """Give one picture, (3, H, W) in [0, 1], to every tracker that takes pictures."""
    if not accelerator.is_main_process:
        return
    array = (image.detach().float().cpu().clamp(0, 1) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.log_images({name: array[None]}, step=step, dataformats="NHWC")
        elif hasattr(tracker, "log_images"):
            tracker.log_images({name: [array]}, step=step)


def tagged(event: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers under tags; an evaluation's carry its guidance scale, so that two scales are two curves."""
    scale = numbers.get("guidance") if event == "evaluation" else None
    prefix = event if scale is None else f"{event}/guidance {scale:g}"
    return {f"{prefix}/{key}": value for key, value in numbers.items()}


def _flat(args: RunConfig) -> dict[str, Any]:
    """The configuration as trackers take it: numbers and strings."""
    simple = (int, float, str, bool)
    return {k: v if isinstance(v, simple) else yaml.safe_dump(v).strip() for k, v in saved_form(args).items()}
