"""Rewards from judges of pairs: win rates, both orders, anchors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.rewards import AnchoredReward, PairwiseReward
from diffalign.rewards.pairs import win_rates


def level(images: Tensor) -> Tensor:
    return images.mean((1, 2, 3))


def flat(*levels: float) -> Tensor:
    """One image of constant brightness per level, `(B, 3, 2, 2)`."""
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 2, 2).clone()


class Judge:
    """Bradley-Terry on brightness, with a bias for the first position and refusals where asked."""

    name = "brightness_judge"
    differentiable = True

    def __init__(self, bias: float = 0.0, refuse: float | None = None) -> None:
        self.bias, self.refuse, self.calls = bias, refuse, []

    def compare(self, a: Tensor, b: Tensor, prompts: Sequence[str], metadata: Sequence[dict[str, Any]]) -> Tensor:
        assert len(a) == len(b) == len(prompts) == len(metadata)
        self.calls.append(len(a))
        wins = torch.sigmoid(4 * (level(a) - level(b))) + self.bias
        if self.refuse is not None:
            wins = torch.where((level(a) - self.refuse).abs() < 1e-6, torch.nan, wins)
        return wins


def rates(images: Tensor, prompts: Sequence[str], judge: Judge | None = None, **options: int) -> Tensor:
    judge = judge or Judge()
    return win_rates(judge.compare, images, prompts, [{} for _ in prompts], **options)


def test_win_rates_sum_to_half_the_group_and_keep_the_order() -> None:
    scores = rates(flat(0.1, 0.9, 0.4, 0.2, 0.7), ["p"] * 5)
    assert scores.sum() == pytest.approx(2.5)
    assert scores.argsort().tolist() == [0, 3, 2, 4, 1]


def test_equal_images_tie_at_one_half() -> None:
    assert torch.allclose(rates(flat(0.3, 0.3, 0.3), ["p"] * 3), torch.full((3,), 0.5))


def test_two_images_share_the_judges_probability() -> None:
    scores = rates(flat(0.75, 0.25), ["p", "p"])
    assert scores.tolist() == pytest.approx([0.8807970779778823, 1 - 0.8807970779778823], abs=1e-6)  # sigmoid(2)


def test_a_preference_for_the_first_position_cancels() -> None:
    images, prompts = flat(0.1, 0.5, 0.8), ["p"] * 3
    assert torch.allclose(rates(images, prompts, Judge(bias=0.3)), rates(images, prompts), atol=1e-6)


def test_groups_do_not_meet() -> None:
    images = flat(0.1, 0.2, 0.8, 0.9)
    mixed = rates(images[[0, 2, 1, 3]], ["a", "b", "a", "b"])
    assert torch.allclose(mixed[[0, 2]], rates(images[:2], ["a", "a"]))
    assert torch.allclose(mixed[[1, 3]], rates(images[2:], ["b", "b"]))


def test_chunks_bound_the_batch_and_change_nothing() -> None:
    images, prompts = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(1)), ["p"] * 6
    judge = Judge()
    assert torch.allclose(rates(images, prompts, judge, pairs_per_call=4), rates(images, prompts))
    assert max(judge.calls) == 4 and sum(judge.calls) == 2 * 15
    bounded = Judge()
    PairwiseReward(bounded, pairs_per_call=10)(images, prompts, [{}] * 6)
    assert bounded.calls == [10, 10, 5, 5]


def test_pairs_without_an_answer_leave_numerator_and_denominator() -> None:
    levels = flat(0.1, 0.5, 0.8)
    scores = rates(levels, ["p"] * 3, Judge(refuse=0.8))
    assert scores[2].isnan()
    assert torch.allclose(scores[:2], rates(levels[:2], ["p"] * 2))


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="group of 1 .*'b'.*whole groups"):
        rates(flat(0.1, 0.2, 0.3), ["a", "a", "b"])


def test_a_judge_with_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"compare returned \(1, 1\) for 1 pairs"):
        win_rates(lambda a, b, prompts, metadata: torch.zeros(len(a), 1), flat(0.1, 0.2), ["p", "p"], [{}, {}])


def test_a_pairwise_reward_carries_name_promise_and_gradient() -> None:
    reward = PairwiseReward(Judge())
    assert (reward.name, reward.scope, reward.differentiable) == ("brightness_judge", "pairwise", True)
    images = flat(0.2, 0.6, 0.7).requires_grad_()
    reward(images, ["p"] * 3, [{}] * 3)[1].backward()
    assert images.grad is not None and (images.grad[1] > 0).all() and (images.grad[[0, 2]] < 0).all()


def test_anchored_scores_need_no_group() -> None:
    reward = AnchoredReward(Judge(bias=0.2))
    anchor = flat(0.5)[0]
    metadata = [{"reference_image": anchor}, {}, {"reference_image": anchor}]
    scores = reward(flat(0.5, 0.9, 0.9), ["a", "b", "c"], metadata)
    assert reward.scope == "pointwise"
    assert scores[0] == pytest.approx(0.5, abs=1e-6) and scores[1].isnan()
    assert scores[2] == pytest.approx(0.8320183851, abs=1e-6)  # sigmoid(1.6)


def test_anchored_scores_without_any_anchor_are_nan() -> None:
    assert AnchoredReward(Judge())(flat(0.1, 0.2), ["a", "b"], [{}, {}]).isnan().all()
