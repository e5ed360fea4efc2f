"""A reward as the scorer of suites that are a list of prompts and no rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from diffalign.rewards.base import Reward
from diffalign.rewards.guard import moved
from diffalign.rewards.identity import identity
from diffalign.rewards.scoring import score


class RewardScorer:
    """Images and prompts to a reward's scores."""

    def __init__(self, reward: Reward, spec: str, options: dict[str, Any]) -> None:
        """Wraps a reward.

        Raises:
            ValueError: If it compares images, or reads more than image and prompt.
        """
        more = sorted(set(reward.needs) - {"prompt"})
        if reward.scope != "pointwise" or more:
            raise ValueError(
                f"reward {reward.name!r} cannot score a suite of prompts: it {', '.join([reward.scope, *more])}; give "
                "one that scores each image by its prompt"
            )
        self._reward, self._identity = reward, identity(spec, options, reward)
        self.name = reward.name

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the reward's weights."""
        moved(self._reward, device)
        return self

    def describe(self) -> dict[str, Any]:
        """What identifies the scorer in a result."""
        return {"name": self.name, "revision": "", "identity": self._identity}

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores `(B,)`; see `diffalign.evaluation.judges.ImageScorer`."""
        return score({self.name: self._reward}, images, prompts, [{} for _ in prompts])[self.name]
