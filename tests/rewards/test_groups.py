"""Groups of images, and credits of their members."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.rewards import GroupReward, broadcast, leave_one_out
from diffalign.rewards.groups import groups_of


def level(images: Tensor) -> Tensor:
    return images.mean((1, 2, 3))


def flat(*levels: float) -> Tensor:
    """One image of constant brightness per level, `(B, 3, 2, 2)`."""
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 2, 2).clone()


def test_groups_follow_prompts_or_ids() -> None:
    prompts = ["x", "y", "x"]
    assert groups_of(prompts, [{}, {}, {}]) == [[0, 2], [1]]
    assert groups_of(prompts, [{"group_id": 7}, {"group_id": 7}, {"group_id": 1}]) == [[0, 1], [2]]
    with pytest.raises(ValueError, match="1 of 3 metadata records"):
        groups_of(prompts, [{"group_id": 7}, {}, {}])


def spread(images: Tensor, prompts: Sequence[str], metadata: Sequence[Any]) -> Tensor:
    """A toy diversity: the range of brightness."""
    return level(images).max() - level(images).min()


def test_broadcast_gives_everyone_the_value_of_the_set() -> None:
    reward = GroupReward(spread, name="spread", credit=broadcast)
    scores = reward(flat(0.1, 0.5, 0.4, 0.9), ["a", "b", "a", "b"], [{}] * 4)
    assert scores.tolist() == pytest.approx([0.3, 0.4, 0.3, 0.4])


def test_leave_one_out_pays_who_widens_the_set() -> None:
    reward = GroupReward(spread, name="spread")
    assert reward.scope == "group"
    scores = reward(flat(0.1, 0.5, 0.6), ["a"] * 3, [{}] * 3)
    assert scores.tolist() == pytest.approx([0.4, 0.0, 0.1])


def test_leave_one_out_of_a_sum_is_each_ones_share() -> None:
    images = flat(0.1, 0.5, 0.6, 0.2)
    credit = leave_one_out(lambda images, prompts, metadata: level(images).sum(), images, ["a"] * 4, [{}] * 4)
    assert torch.allclose(credit, level(images))


def test_a_set_value_may_be_a_float_and_sees_its_own_records() -> None:
    seen: list[list[str]] = []

    def count(images: Tensor, prompts: Sequence[str], metadata: Sequence[dict[str, Any]]) -> float:
        seen.append([record["k"] for record in metadata])
        return float(len(images))

    reward = GroupReward(count, name="count", credit=broadcast)
    metadata = [{"k": key} for key in "pqrs"]
    assert reward(flat(0.1, 0.2, 0.3, 0.4), ["a", "b", "b", "a"], metadata).tolist() == [2.0] * 4
    assert seen == [["p", "s"], ["q", "r"]]


def test_a_set_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one number, got a tensor of shape \(2,\)"):
        GroupReward(lambda images, *_: level(images), name="x")(flat(0.1, 0.2), ["a", "a"], [{}, {}])


def test_group_credit_is_permutation_equivariant() -> None:
    images = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    prompts, metadata = list("ababab"), [{} for _ in range(6)]
    reward = GroupReward(spread, name="spread")
    order = [3, 0, 5, 2, 4, 1]
    assert order != sorted(order) and all(a != b for a, b in pairwise(order))
    shuffled = reward(images[order], [prompts[i] for i in order], metadata)
    assert torch.allclose(shuffled, reward(images, prompts, metadata)[order])
