"""Whether Triton can run on some tensors, and why not."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

OLDEST = (8, 0)
"""Least compute capability: Ampere, the first with bf16 and asynchronous copies."""


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


def interpreted() -> bool:
    """Whether Triton's interpreter runs kernels on CPU tensors (TRITON_INTERPRET=1 before Triton's import)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def device_reason(device: torch.device) -> str | None:
    """Why no kernel runs on a device; None if one does."""
    if device.type != "cuda":
        return f"the tensors are on {device.type}"
    if torch.version.hip is not None:
        return "kernels are compiled and checked for NVIDIA only"
    if not has_triton():
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    return None if capability >= OLDEST else f"compute capability {capability} is below {OLDEST}"


def dtype_reason(tensors: Collection[Tensor], valid: Collection[torch.dtype]) -> str | None:
    """Why a kernel does not take the types of some tensors; None if it does."""
    wrong = sorted({str(tensor.dtype) for tensor in tensors} - {str(dtype) for dtype in valid})
    return f"{', '.join(wrong)} is not one of {', '.join(map(str, valid))}" if wrong else None


def check_one_device(**tensors: Tensor | None) -> None:
    """Refuses tensors on several devices.

    Raises:
        ValueError: With the device of each.
    """
    devices = {name: str(tensor.device) for name, tensor in tensors.items() if tensor is not None}
    if len(set(devices.values())) > 1:
        raise ValueError(f"all tensors must be on one device, got {devices}")


def check_interpretable(*tensors: Tensor | None) -> None:
    """Refuses bf16 under the interpreter, which computes garbage with it and raises nothing (Triton 3.6 and 3.9).

    Raises:
        ValueError: If a tensor is bf16.
    """
    if interpreted() and any(tensor is not None and tensor.dtype is torch.bfloat16 for tensor in tensors):
        raise ValueError("Triton's interpreter computes garbage in bfloat16: give float32 or float16")
