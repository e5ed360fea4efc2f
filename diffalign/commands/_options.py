"""Types of command-line options, and the device that an option means."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

import yaml

from diffalign.config import expanded

if TYPE_CHECKING:
    import torch


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def number(text: str) -> float:
    """A finite number, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def expanded_path(text: str) -> str:
    """A path with `~` and `$NAME` replaced, for argparse."""
    try:
        return expanded(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def reward_arguments(text: str | None) -> dict[str, dict[str, Any]]:
    """`--reward_kwargs` as a mapping.

    Raises:
        ValueError: no mapping of names to mappings, or broken YAML.
    """
    try:
        arguments = yaml.safe_load(text or "{}")
    except yaml.YAMLError as error:
        raise ValueError(f"--reward_kwargs {text!r} is not valid YAML: {error}") from error
    if not isinstance(arguments, dict) or not all(isinstance(value, dict) for value in arguments.values()):
        raise ValueError(f"--reward_kwargs {text!r} must be like '{{clip: {{scaling: cosine}}}}'")
    return arguments


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
