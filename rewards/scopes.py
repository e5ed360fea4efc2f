"""Rewards that compare the images of one prompt.

A judge of pairs gives each image its mean probability of winning; the value of a whole set is distributed to its
members. Both need whole groups in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, Protocol

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata, Reward

GROUP_KEY = "group_id"
ANCHOR_KEY = "reference_image"
PAIRS_PER_CALL = 64

Compare = Callable[[Tensor, Tensor, Sequence[str], Sequence[Metadata]], Tensor]
SetValue = Callable[[Tensor, Sequence[str], Sequence[Metadata]], "Tensor | float"]
Credit = Callable[[SetValue, Tensor, Sequence[str], Sequence[Metadata]], Tensor]


class PairwiseJudge(Protocol):
    """Returns the probability that the first image is the better one. May declare `differentiable`, as `Reward`."""

    name: str

    def compare(
        self, images_a: Tensor, images_b: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]
    ) -> Tensor:
        """Compares images `(P, 3, H, W)` pair by pair: `(P,)` probabilities in [0, 1], NaN where it has no answer."""
        ...


def groups_of(prompts: Sequence[str], metadata: Sequence[Metadata]) -> list[list[int]]:
    """Positions of the members of each group, in order of first appearance.

    A group is what shares `metadata["group_id"]`; where no record has that key, what shares a prompt.

    Raises:
        ValueError: If some records have a group id and others have none.
    """
    have = [GROUP_KEY in record for record in metadata]
    if any(have) and not all(have):
        raise ValueError(f"{sum(have)} of {len(have)} metadata records have {GROUP_KEY!r}; give it to all or to none")
    keys = [record[GROUP_KEY] for record in metadata] if any(have) else prompts
    members: dict[Any, list[int]] = {}
    for index, key in enumerate(keys):
        members.setdefault(key, []).append(index)
    return list(members.values())


def _pick(values: Sequence[Any], indices: Sequence[int]) -> list[Any]:
    """Elements of a sequence by position."""
    return [values[index] for index in indices]


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
        _check_group(members, prompts)
        pairs.extend(combinations(members, 2))
    left = torch.tensor([a for a, _ in pairs], device=images.device)
    right = torch.tensor([b for _, b in pairs], device=images.device)
    answers = []
    for start in range(0, len(pairs), pairs_per_call):
        a, b = left[start : start + pairs_per_call], right[start : start + pairs_per_call]
        who = [i for i, _ in pairs[start : start + pairs_per_call]]
        answers.append(_both_orders(compare, images[a], images[b], _pick(prompts, who), _pick(metadata, who)))
    return _mean_wins(torch.cat(answers), left, right, len(images))


def _mean_wins(wins: Tensor, left: Tensor, right: Tensor, size: int) -> Tensor:
    """`(size,)` mean over the answered pairs of each image, from `(P,)` win probabilities of the left images."""
    answered = ~wins.isnan()
    known = torch.where(answered, wins, 0.0)
    total = wins.new_zeros(size)
    total = total.index_add(0, left, known).index_add(0, right, torch.where(answered, 1 - wins, 0.0))
    count = wins.new_zeros(size).index_add(0, left, answered.to(wins)).index_add(0, right, answered.to(wins))
    return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def _check_group(members: Sequence[int], prompts: Sequence[str]) -> None:
    """Refuses a group of one, which has nothing to be compared with: the caller has split a group."""
    if len(members) < 2:
        raise ValueError(
            f"a group of 1 (prompt {prompts[members[0]]!r}) cannot be compared; score whole groups of at least 2 images"
        )


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
        wins = _both_orders(self._judge.compare, images[where], anchors, _pick(prompts, have), _pick(metadata, have))
        return scores.index_copy(0, where, wins)


def broadcast(value: SetValue, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
    """Credit `(n,)`: every member gets the value of the set."""
    return _scalar(value(images, prompts, metadata), images).expand(len(images))


def leave_one_out(value: SetValue, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
    """Credit `(n,)`: a member gets f(S) - f(S without i)."""
    whole = _scalar(value(images, prompts, metadata), images)
    credit = []
    for index in range(len(images)):
        rest = [other for other in range(len(images)) if other != index]
        credit.append(whole - _scalar(value(images[rest], _pick(prompts, rest), _pick(metadata, rest)), images))
    return torch.stack(credit)


def _scalar(value: Tensor | float, images: Tensor) -> Tensor:
    """A set value as a float32 scalar beside the images."""
    out = torch.as_tensor(value, dtype=torch.float32, device=images.device)
    if out.shape != ():
        raise ValueError(f"a set value is one number, got a tensor of shape {tuple(out.shape)}")
    return out


class GroupReward(Reward):
    """A value of a whole group (its diversity, its distance to a distribution) distributed to its members."""

    scope = "group"
    needs = frozenset({"group_ids"})

    def __init__(
        self,
        value: SetValue,
        *,
        name: str,
        credit: Credit = leave_one_out,
        differentiable: bool = False,
        range: tuple[float, float] | None = None,
    ) -> None:
        """Wraps a set value.

        Args:
            value: `(images (n, 3, H, W), prompts, metadata) -> number`, for n >= 1 (`leave_one_out` calls it on n - 1).
            name: Name in logs.
            credit: `leave_one_out` or `broadcast`, or a function of the same shape.
            differentiable: See `Reward`.
            range: See `Reward`.
        """
        self.name = name
        self.differentiable = differentiable
        self.range = range
        self._value = value
        self._credit = credit

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Credits `(B,)` of the members of each group.

        Raises:
            ValueError: If a group has a single member.
        """
        order, credits = [], []
        for members in groups_of(prompts, metadata):
            _check_group(members, prompts)
            order.extend(members)
            credits.append(
                self._credit(self._value, images[members], _pick(prompts, members), _pick(metadata, members))
            )
        return torch.cat(credits)[torch.tensor(order).argsort().to(images.device)]
