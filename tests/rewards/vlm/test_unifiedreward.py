from __future__ import annotations

from typing import Any

import pytest
import torch

from diffalign.rewards.vlm.unifiedreward import UnifiedReward, UnifiedRewardPairs

QUICK: dict[str, Any] = {"timeout": 2.0, "retries": 0, "backoff": 0.0}
IMAGES = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def says(text: str) -> dict[str, Any]:
    return {"content": {"choices": [{"message": {"content": text}}]}}


@pytest.mark.parametrize(
    ("text", "score"),
    [("dog (animal): 1\nFinal Score: 4", 4.0), ("final score: **3.5**.", 3.5), ("Final Score: 1.", 1.0)],
)
def test_the_grade_stands_after_final_score(server: Any, text: str, score: float) -> None:
    server.script = [says(text)]
    reward = UnifiedReward(**QUICK)
    assert reward(IMAGES[:1], ["a dog"], [{}]).tolist() == [score]
    assert (reward.name, reward.range) == ("unifiedreward_unifiedreward-7b-v1.5", (1.0, 5.0))
    body = server.asked[0][2]
    assert body["model"] == "UnifiedReward-7b-v1.5"
    assert "Text Caption: [a dog]" in body["messages"][0]["content"][-1]["text"]


@pytest.mark.parametrize("text", ["4", "Final Score: none", "Final Score: 10", "Final Score: 9", "Final Score: 0"])
def test_another_text_is_nan_not_zero(server: Any, text: str) -> None:
    server.script = [says(text)]
    assert UnifiedReward(**QUICK)(IMAGES[:1], ["a dog"], [{}]).isnan().all()


def test_verdicts_become_win_rates(server: Any) -> None:
    server.script = [says("Image 1 is better than Image 2")]
    reward = UnifiedRewardPairs(**QUICK)
    assert reward.scope == "pairwise" and reward.name == "unifiedreward_pairs_unifiedreward-7b-v1.5"
    assert reward(IMAGES, ["p"] * 3, [{}] * 3).tolist() == [0.5, 0.5, 0.5]  # whoever comes first: both orders cancel
    server.script = [says("They are equal.")]
    assert reward(IMAGES, ["p"] * 3, [{}] * 3).tolist() == [0.5, 0.5, 0.5]
    server.script = [says("I cannot tell")]
    assert reward(IMAGES, ["p"] * 3, [{}] * 3).isnan().all()
    assert reward.judge.client.failures == {"garbage": 6}
