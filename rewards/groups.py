"""Groups of images of one prompt, and rewards that distribute the value of a whole set to its members."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffalign.rewards.base import Metadata, Reward

GROUP_KEY = "group_id"

SetValue = Callable[[Tensor, Sequence[str], Sequence[Metadata]], "Tensor | float"]
Credit = Callable[[SetValue, Tensor, Sequence[str], Sequence[Metadata]], Tensor]


def groups_of(prompts: Sequence[str], metadata: Sequence[Metadata]) -> list[list[int]]:
    """Positions of the members of each group, in order of first appearance.

    A group is the samples with one `metadata["group_id"]`, or, where no record has that key, with one prompt.

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


def check_group(members: Sequence[int], prompts: Sequence[str]) -> None:
    """Refuses a group of one, which has nothing to be compared with: the caller has split a group."""
    if len(members) < 2:
        raise ValueError(
            f"a group of 1 (prompt {prompts[members[0]]!r}) cannot be compared; score whole groups of at least 2 images"
        )


def pick(values: Sequence[Any], indices: Sequence[int]) -> list[Any]:
    """Elements of a sequence by position."""
    return [values[index] for index in indices]


def broadcast(value: SetValue, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
    """Credit `(n,)`: every member gets the value of the set."""
    return _scalar(value(images, prompts, metadata), images).expand(len(images))


def leave_one_out(value: SetValue, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
    """Credit `(n,)`: a member gets f(S) - f(S without i)."""
    whole = _scalar(value(images, prompts, metadata), images)
    credit = []
    for index in range(len(images)):
        rest = [other for other in range(len(images)) if other != index]
        credit.append(whole - _scalar(value(images[rest], pick(prompts, rest), pick(metadata, rest)), images))
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
            check_group(members, prompts)
            order.extend(members)
            credits.append(self._credit(self._value, images[members], pick(prompts, members), pick(metadata, members)))
        return torch.cat(credits)[torch.tensor(order).argsort().to(images.device)]
