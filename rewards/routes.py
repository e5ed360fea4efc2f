"""Routes: the prompts that a reward scores, by a metadata key (such as the task's tag) or a regular expression."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.outputs import as_scores
from diffalign.rewards.wrapped import WrappedReward

PROMPT = "prompt"


class Route:
    """A condition on prompts, as YAML has it: `{tag: [colors, position], prompt: "^a red"}`; all conditions must hold.

    Args:
        given: metadata key -> value or list of values; the key `prompt` is a regular expression that is searched for.

    Raises:
        ValueError: no mapping, nothing in it, or an expression that does not compile.
    """

    def __init__(self, given: Any) -> None:
        if not isinstance(given, Mapping) or not given:
            raise ValueError(
                f"a route is a mapping like {{tag: colors}} or {{prompt: 'regular expression'}}, got {given!r}"
            )
        self._values = {key: value if isinstance(value, list) else [value] for key, value in given.items()}
        pattern = self._values.pop(PROMPT, None)
        try:
            self._pattern = None if pattern is None else re.compile("|".join(f"(?:{part})" for part in pattern))
        except (re.error, TypeError) as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error

    def __call__(self, prompt: str, metadata: Metadata) -> bool:
        """Whether the reward scores this prompt."""
        if self._pattern is not None and not self._pattern.search(prompt):
            return False
        return all(metadata.get(key) in values for key, values in self._values.items())


class RoutedReward(WrappedReward):
    """A reward that scores the prompts of its route; for other prompts it is NaN.

    Args:
        reward: the reward.
        route: the prompts that it scores.
    """

    def __init__(self, reward: Reward, route: Route) -> None:
        super().__init__(reward)
        self.route = route

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Scores `(B,)`, NaN outside the route."""
        rows = [i for i, pair in enumerate(zip(prompts, metadata, strict=True)) if self.route(*pair)]
        out = torch.full((len(images),), torch.nan, device=images.device)
        if not rows:
            return out + 0 * images.flatten(1).sum(1) if images.requires_grad else out
        where = torch.tensor(rows, device=images.device)
        returned = self.inner(images[where], [prompts[i] for i in rows], [metadata[i] for i in rows])
        scores = as_scores(self.name, returned, images.device)
        return out.index_copy(0, where, scores.float().to(out.device))
