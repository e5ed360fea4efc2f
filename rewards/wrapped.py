"""Rewards around a reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.outputs import as_scores

COPIED = ("scope", "differentiable", "range", "needs", "licence", "weights", "environment")
"""Attributes that a wrapper has from the reward inside, which may lack those with a default."""


def moved(reward: Reward, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
    """Move the weights of a reward; one that is not derived from `Reward` may have no `to`."""
    if hasattr(reward, "to"):
        reward.to(device, dtype)


class WrappedReward(Reward):
    """A reward that changes how another one is called; everything else (name, range, self-test) is that one's.

    Attributes:
        inner: The reward inside.
    """

    def __init__(self, inner: Reward) -> None:
        """Wraps a reward."""
        self.inner = inner
        self.name = inner.name
        for key in COPIED:
            setattr(self, key, getattr(inner, key, getattr(Reward, key)))

    def __getattr__(self, name: str) -> Any:
        """Attributes that this object lacks are the inner reward's."""
        if name == "inner":  # not yet set: while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.inner, name)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the weights of the inner reward."""
        moved(self.inner, device, dtype)
        return self


class LowerIsBetter(WrappedReward):
    """A reward that declares `higher_is_better = False`, negated, so that higher is better everywhere."""

    higher_is_better = True

    def __init__(self, inner: Reward) -> None:
        """Wraps a reward; its range is negated too."""
        super().__init__(inner)
        if inner.range is not None:
            self.range = (-inner.range[1], -inner.range[0])

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores `(B,)` of images `(B, 3, H, W)`, negated."""
        return -as_scores(self.name, self.inner(images, prompts, metadata), images.device)
