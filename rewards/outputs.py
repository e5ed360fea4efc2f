"""Return values of rewards: what is accepted, and how it becomes one tensor of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def as_scores(name: str, returned: Any, device: torch.device | str) -> Tensor:
    """The scores in the return value of a reward.

    Args:
        name: Of the reward, for messages.
        returned: A tensor `(B,)`, or `B` numbers (list, tuple, numpy array) with None for "could not score".
            Of a pair `(scores, details)`, the return value of rewards written for flow_grpo, the details are ignored.
        device: Where scores given as numbers are put.

    Raises:
        ValueError: If it is none of these; a dict of several scores is several rewards.
    """
    if isinstance(returned, tuple) and len(returned) == 2 and _is_many(returned[0]):
        returned = returned[0]
    if isinstance(returned, Tensor):
        return returned
    if isinstance(returned, Mapping):
        raise ValueError(
            f"reward {name!r} returned a dict ({', '.join(map(str, returned))}): return one score per image. Several "
            "scores are several rewards: one function each, combined by reward_weights"
        )
    values = returned.tolist() if hasattr(returned, "tolist") else returned
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise ValueError(f"reward {name!r} returned {type(returned).__name__}; valid: a (B,) tensor or B numbers")
    if values and all(isinstance(value, Tensor) for value in values):
        return torch.stack(list(values))  # keeps the gradient of each
    try:
        numbers = [float("nan") if value is None else value for value in values]
        return torch.tensor(numbers, dtype=torch.float32, device=device)
    except (TypeError, ValueError) as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise ValueError(
            f"reward {name!r} returned {type(returned).__name__} of {kinds}; valid: a (B,) tensor or B numbers"
        ) from error


def _is_many(value: Any) -> bool:
    """Whether the first element of a pair holds the scores of a whole batch, so that the second is something else."""
    return isinstance(value, list | tuple | Mapping) or getattr(value, "ndim", 0) > 0


def check_output(name: str, differentiable: bool, values: Tensor, images: Tensor) -> None:
    """Refuse anything but one floating-point score per image, with a gradient where it is promised.

    Args:
        name: Of the reward.
        differentiable: Whether the reward promises a gradient.
        values: Its scores.
        images: `(B, 3, H, W)`, as the reward got them.

    Raises:
        ValueError: If shape, dtype or gradient are wrong.
    """
    if values.shape != (len(images),):
        raise ValueError(
            f"reward {name!r} returned shape {tuple(values.shape)} for {len(images)} images; valid: ({len(images)},)"
        )
    if not values.is_floating_point():
        raise ValueError(f"reward {name!r} returned {values.dtype}; valid: floating point (use .float())")
    promised = differentiable and images.requires_grad and torch.is_grad_enabled()
    if promised and not values.requires_grad:
        raise ValueError(f"reward {name!r} declares differentiable=True, but its score has no gradient")
