"""Rewards from judges of pairs: the mean probability of winning in the group, or against one reference image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Protocol

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata, Reward
from diffalign.rewards.groups import check_group, groups_of, pick

ANCHOR_KEY = "reference_image"
PAIRS_PER_CALL = 64

Compare = Callable[[Tensor, Tensor, Sequence[str], Sequence[Metadata]], Tensor]


class PairwiseJudge(Protocol):
    """Returns the probability that the first image is the better one. May declare `differentiable`, as `Reward`."""

    name: str

    def compare(
        self, images_a: Tensor, images_b: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]
    ) -> Tensor:
        """Compares images `(P, 3, H, W)` pair by pair: `(P,)` probabilities in [0, 1], NaN where it has no answer."""
        ...


def _both_orders(
    compare: Compare, first: Tensor, second: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]
) -> Tensor:
    """`(P,)` probability that the first image wins, in both orders, so that a preference for a position cancels.

    A pair is NaN when either order has no answer: one order alone would keep the bias.
    """
    forward = compare(first, second, prompts, metadata)
    reverse = compare(second, first, prompts, metadata)
    for answer in (forward, reverse):
        if not isinstance(answer, Tensor) or answer.shape != (len(first),):
            shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise ValueError(f"compare returned {shape} for {len(first)} pairs; valid: a ({len(first)},) tensor")
    return (forward.float() + 1 - reverse.float()).to(first.device) / 2


def win_rates(
    compare: Compare,
    images: Tensor,
    prompts: Sequence[str],
    metadata: Sequence[Metadata],
    *,
    pairs_per_call: int = PAIRS_PER_CALL,
) -> Tensor:
    """Mean probability of winning against all other members of the group.

    Each unordered pair is judged in both orders. Pairs without an answer leave numerator and denominator; an image
    without any answer is NaN. Within a group of n with all answers the scores sum to n / 2.

    Args:
        compare: See `PairwiseJudge`.
        images: `(B, 3, H, W)` in [0, 1].
        prompts: `B` prompts.
        metadata: `B` records.
        pairs_per_call: Most pairs per call of the judge: bounds memory, changes no score.

    Returns:
        `(B,)` float32 in [0, 1].

    Raises:
        ValueError: If a group has a single member, or the judge returns another shape.
    """
    pairs: list[tuple[int, int]] = []
    for members in groups_of(prompts, metadata):
        check_group(members, prompts)
        pairs.extend(combinations(members, 2))
    left = torch.tensor([a for a, _ in pairs], device=images.device)
    right = torch.tensor([b for _, b in pairs], device=images.device)
    answers = []
    for start in range(0, len(pairs), pairs_per_call):
        a, b = left[start : start + pairs_per_call], right[start : start + pairs_per_call]
        who = [i for i, _ in pairs[start : start + pairs_per_call]]
        answers.append(_both_orders(compare, images[a], images[b], pick(prompts, who), pick(metadata, who)))
    return _mean_wins(torch.cat(answers), left, right, len(images))


def _mean_wins(wins: Tensor, left: Tensor, right: Tensor, size: int) -> Tensor:
    """`(size,)` mean over the answered pairs of each image, from `(P,)` win probabilities of the left images."""
    answered = ~wins.isnan()
    known = torch.where(answered, wins, 0.0)
    total = wins.new_zeros(size)
    total = total.index_add(0, left, known).index_add(0, right, torch.where(answered, 1 - wins, 0.0))
    count = wins.new_zeros(size).index_add(0, left, answered.to(wins)).index_add(0, right, answered.to(wins))
    return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


class PairwiseReward(Reward):
    """A judge of pairs as a reward: mean win probability within the group."""

    scope = "pairwise"
    range = (0.0, 1.0)
    needs = frozenset({"prompt", "group_ids"})

    def __init__(self, judge: PairwiseJudge, *, pairs_per_call: int = PAIRS_PER_CALL) -> None:
        """Wraps a judge; `pairs_per_call` bounds the pairs that it sees at once."""
        self.name = judge.name
        self.differentiable = bool(getattr(judge, "differentiable", False))
        self._judge = judge
        self._pairs_per_call = pairs_per_call

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Win rates `(B,)`; see `win_rates`."""
        return win_rates(self._judge.compare, images, prompts, metadata, pairs_per_call=self._pairs_per_call)


class AnchoredReward(Reward):
    """A judge of pairs as a pointwise reward: the probability of winning against one reference image.

    The reference is `metadata["reference_image"]`, `(3, H, W)` in [0, 1]; an image without one is NaN.
    """

    range = (0.0, 1.0)
    needs = frozenset({"prompt", "metadata", "reference_images"})

    def __init__(self, judge: PairwiseJudge) -> None:
        """Wraps a judge."""
        self.name = f"{judge.name}_anchored"
        self.differentiable = bool(getattr(judge, "differentiable", False))
        self._judge = judge

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Win probabilities `(B,)` in [0, 1]."""
        have = [index for index, record in enumerate(metadata) if record.get(ANCHOR_KEY) is not None]
        scores = torch.full((len(images),), torch.nan, device=images.device)
        if not have:
            return scores
        anchors = torch.stack([metadata[index][ANCHOR_KEY] for index in have]).to(images)
        where = torch.tensor(have, device=images.device)
        wins = _both_orders(self._judge.compare, images[where], anchors, pick(prompts, have), pick(metadata, have))
        return scores.index_copy(0, where, wins)
