"""Types of command-line options, and the device that an option means."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from diffalign.config import expanded

if TYPE_CHECKING:
    import torch


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def expanded_path(text: str) -> str:
    """A path with `~` and `$NAME` replaced, for argparse."""
    try:
        return expanded(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def find_device(name: str | None) -> torch.device:
    """The device that `--device` names; default a CUDA GPU if there is one, else the CPU.

    Raises:
        ValueError: this machine has no such device; those that it has are listed.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    valid = ["cpu"]
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is not None:
        valid += [accelerator.type, *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))]
    if name not in valid:
        why = "" if accelerator is not None else "; PyTorch sees no GPU"
        raise ValueError(f"--device {name} is not here{why} (valid: {', '.join(valid)})")
    return torch.device(name)
