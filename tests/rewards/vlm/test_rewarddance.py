from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.rewards.vlm.rewarddance import GroupDance, RewardDance, YesJudge


@pytest.fixture
def photos() -> Tensor:
    """`(3, 3, 28, 28)` random images."""
    return torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(4))


def test_a_reference_ties_with_itself_and_orders_are_averaged(qwen: Path, photos: Tensor) -> None:
    reward = RewardDance(str(qwen))
    records = [{"reference_image": photos[0]}] * 3
    scores = rewards.check_contract(reward, photos, ["a cube"] * 3, records)
    assert reward.name == "rewarddance_tiny-qwen2-vl_anchored"
    assert float(scores[0]) == pytest.approx(0.5, abs=1e-6)
    assert scores[1] != 0.5
    back = reward(photos[:1], ["a cube"], [{"reference_image": photos[1]}])
    assert float(back + scores[1]) == pytest.approx(1.0, abs=1e-6)
    assert reward(photos[:1], ["a cube"], [{}]).isnan().all()


def test_the_first_image_is_the_one_that_is_asked_about(qwen: Path, photos: Tensor) -> None:
    judge = YesJudge.load(str(qwen))
    vlm = judge.vlm
    text = vlm.question(
        "Two images were made for the same description.\nDescription: a cube\nWhat counts: sharpness\n"
        "Is the first image better than the second one? Please answer yes or no.",
        images=2,
    )
    logits = vlm.next_logits([photos[:1], photos[1:2]], [text])[0]
    words = vlm.tokenizer
    spelled = [
        [words.encode(text) for text in texts] for texts in (("yes", "Yes", " yes", " Yes"), ("no", "No", " no", " No"))
    ]
    yes, no = (sum(float(logits[ids[0]].exp()) for ids in forms if len(ids) == 1) for forms in spelled)
    sharp = YesJudge(vlm, "sharp", principle="sharpness")
    assert float(sharp.compare(photos[:1], photos[1:2], ["a cube"], [{}])) == pytest.approx(yes / (yes + no), abs=1e-5)
    assert sharp.compare(photos[:1], photos[1:2], ["a cube"], [{}]) != judge.compare(
        photos[:1], photos[1:2], ["a cube"], [{}]
    )


def test_a_group_shares_half_its_number(qwen: Path, photos: Tensor) -> None:
    reward = GroupDance(str(qwen), batch_size=2)
    scores = reward(photos, ["a cube"] * 3, [{}] * 3)
    assert reward.scope == "pairwise" and float(scores.sum()) == pytest.approx(1.5, abs=1e-5)
    assert scores.unique().numel() == 3


def test_a_template_without_the_prompt_is_refused(qwen: Path) -> None:
    with pytest.raises(ValueError, match="needs {prompt}"):
        RewardDance(str(qwen), template="Which?")
