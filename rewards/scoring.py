"""The one place where rewards are called: what may go wrong, and what becomes of it.

A failure that belongs to a sample (NaN in the image, a judge without an answer, a score that is not finite) is NaN: the
sample leaves numerator and denominator of every statistic. A mistake in the wiring (wrong shape, wrong type, any other
exception) is an error at once: a run that goes on with it would only look healthy.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from diffalign.rewards.base import Reward, ScoringFailure
from diffalign.rewards.images import check_images

logger = logging.getLogger(__name__)


def score(
    rewards: Mapping[str, Reward], images: Tensor, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]]
) -> dict[str, Tensor]:
    """Scores images by several rewards, each under its own name.

    Rewards that do not promise a gradient are called without one. Rewards whose scope is not pointwise need the whole
    groups of a roll-out in one call.

    Args:
        rewards: Rewards by name.
        images: `(B, 3, H, W)` float in [0, 1].
        prompts: `B` prompts.
        metadata: `B` records.

    Returns:
        For each name `(B,)` float32 on the device of the images; NaN = could not be scored, never an infinity.

    Raises:
        ValueError: If the inputs do not fit together, images leave [0, 1], or a reward returns the wrong shape or type,
            changes the images, or keeps back the gradient that it promises. Exceptions of a reward pass through, with
            its name as a note.
    """
    sound = _check_inputs(images, prompts, metadata)
    clean = images if bool(sound.all()) else torch.where(sound[:, None, None, None], images, 0.0)
    out = {}
    for name, reward in rewards.items():
        with _Named(name), torch.set_grad_enabled(torch.is_grad_enabled() and reward.differentiable):
            values = _call(name, reward, clean, list(prompts), [dict(record) for record in metadata])
        out[name] = torch.where(sound & values.isfinite(), values, torch.nan)
    return out


def count_failures(scores: Mapping[str, Tensor]) -> dict[str, int]:
    """Number of samples that each reward could not score, from `(B,)` scores by name."""
    return {name: int(values.isnan().sum()) for name, values in scores.items()}


def _check_inputs(images: Tensor, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]]) -> Tensor:
    """`(B,)` bool: the samples whose image is finite; raises on inputs that do not fit together."""
    sound = check_images(images)
    if len(prompts) != len(images) or len(metadata) != len(images):
        raise ValueError(
            f"{len(images)} images, {len(prompts)} prompts and {len(metadata)} metadata records: give one each"
        )
    return sound


def _call(name: str, reward: Reward, images: Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> Tensor:
    """`(B,)` float32 scores of one reward, checked; NaN throughout if it says that it cannot score."""
    version = None if images.is_inference() else images._version
    try:
        values = reward(images, prompts, metadata)
    except ScoringFailure as failure:
        logger.warning("reward %r could not score %d images: %s", name, len(images), failure)
        return torch.full((len(images),), torch.nan, device=images.device)
    if version is not None and images._version != version:
        raise ValueError(f"reward {name!r} changed the images in place; work on a copy")
    check_output(name, reward, values, images)
    return values.to(device=images.device, dtype=torch.float32)


def check_output(name: str, reward: Reward, values: Any, images: Tensor) -> None:
    """Raises on anything but one floating-point score per image, with a gradient where it is promised."""
    if not isinstance(values, Tensor):
        raise ValueError(f"reward {name!r} returned {type(values).__name__}; valid: a float tensor ({len(images)},)")
    if values.shape != (len(images),):
        raise ValueError(
            f"reward {name!r} returned shape {tuple(values.shape)} for {len(images)} images; valid: ({len(images)},)"
        )
    if not values.is_floating_point():
        raise ValueError(f"reward {name!r} returned {values.dtype}; valid: floating point (use .float())")
    promised = reward.differentiable and images.requires_grad and torch.is_grad_enabled()
    if promised and not values.requires_grad:
        raise ValueError(f"reward {name!r} declares differentiable=True, but its score has no gradient")


class _Named:
    """Adds the reward's name to whatever is raised inside."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"raised while scoring with reward {self._name!r}")
