"""Comparison of two evaluations and its one-line form."""

from __future__ import annotations

import copy
import json

import pytest

from diffalign.report.compare import compare, headline


def evaluation(scores: list[float | None], guidance: float = 2.0) -> dict:
    """Two tasks, alternating; the reward `jpeg` is ten times the score."""
    prompts = [
        {"prompt": f"p{i}", "task": "ab"[i % 2], "score": s, "rewards": {"jpeg": None if s is None else 10 * s}}
        for i, s in enumerate(scores)
    ]
    return {
        "suite": "shapes",
        "step": 0,
        "num_inference_steps": 8,
        "images_per_prompt": 4,
        "best_guidance": guidance,
        "guidance": {},
        "prompts": prompts,
        "seeds": [0, 1],
    }


def test_entries_of_overall_tasks_and_rewards():
    result = compare(evaluation([0.0, 0.5, 0.5, 0.5]), evaluation([0.5, 0.5, 1.0, 0.75], guidance=1.0))
    assert result["overall"]["gain"] == pytest.approx((0.5 + 0.125) / 2)
    assert result["tasks"]["a"] == pytest.approx(
        {"before": 0.25, "after": 0.75, "gain": 0.5, "low": 0.5, "high": 0.5, "prompts": 2}
    )
    assert result["rewards"]["jpeg"]["gain"] == pytest.approx(10 * result["overall"]["gain"])
    assert result["guidance"] == {"before": 2.0, "after": 1.0}
    assert json.loads(json.dumps(result)) == result


def test_lines_of_one_prompt_text_move_together():
    """Eight copies of one text in a task leave nothing to resample; eight texts do."""
    before, after = evaluation([0.0] * 16), evaluation([i % 4 / 3 for i in range(16)])
    spread = compare(before, after)["overall"]
    for one in (before, after):
        for line in one["prompts"]:
            line["prompt"] = f"only prompt of {line['task']}"
    joined = compare(before, after)["overall"]
    assert joined["high"] - joined["low"] == pytest.approx(0, abs=1e-12)
    assert spread["high"] - spread["low"] > 0.1


@pytest.mark.parametrize("hole", [None, float("nan")])
def test_a_prompt_without_score_leaves_both_sides(hole):
    result = compare(evaluation([0.0, 0.5, hole, 0.5]), evaluation([0.5, 0.5, 1.0, 0.5]))
    assert result["dropped"] == 1
    assert result["tasks"]["a"]["prompts"] == 1
    assert result["tasks"]["a"]["after"] == pytest.approx(0.5)


def test_a_reward_missing_on_one_side_is_not_compared():
    before, after = evaluation([0.0, 0.5]), evaluation([0.5, 0.5])
    for line in after["prompts"]:
        line["rewards"] = {}
    assert compare(before, after)["rewards"] == {}


@pytest.mark.parametrize("key", ["suite", "num_inference_steps", "images_per_prompt", "seeds"])
def test_different_questions_are_refused(key):
    before, after = evaluation([0.0, 0.5]), evaluation([0.5, 0.5])
    after[key] = "other"
    with pytest.raises(ValueError, match=key):
        compare(before, after)


def test_different_prompts_are_refused():
    before, after = evaluation([0.0, 0.5]), evaluation([0.5, 0.5])
    swapped = copy.deepcopy(after)
    swapped["prompts"].reverse()
    with pytest.raises(ValueError, match="prompt 1"):
        compare(before, swapped)
    with pytest.raises(ValueError, match="2 prompts and after 1"):
        compare(before, evaluation([0.5]))


def test_nothing_scored_is_refused():
    with pytest.raises(ValueError, match="no prompt has a score"):
        compare(evaluation([None, None]), evaluation([0.5, 0.5]))


def test_a_narrow_interval_is_not_rounded_away():
    entry = {"before": 0.0612, "after": 0.0616, "gain": 0.0004, "low": 0.0001, "high": 0.0007}
    assert headline({"overall": entry}) == "overall 0.0612 -> 0.0616 (+0.0004, 95% CI [0.0001, 0.0007])"


@pytest.mark.parametrize(
    ("before", "after", "low", "high", "text"),
    [
        (0.46, 0.56, 0.06, 0.14, "overall 0.46 -> 0.56 (+0.10, 95% CI [0.06, 0.14])"),
        (0.5, 0.478, -0.05, -0.001, "overall 0.50 -> 0.48 (-0.02, 95% CI [-0.05, 0.00])"),
        (0.5, 0.499, -0.04, 0.03, "overall 0.50 -> 0.50 (+0.00, 95% CI [-0.04, 0.03])"),
    ],
)
def test_headline(before, after, low, high, text):
    entry = {"before": before, "after": after, "gain": after - before, "low": low, "high": high}
    assert headline({"overall": entry, "level": 0.95}) == text


def test_a_subset_is_named_in_the_headline_and_a_whole_file_is_not():
    one, other = evaluation([0.5] * 4), evaluation([0.75] * 4)
    assert headline(compare(one, other)).startswith("overall 0.50")
    for total, start in ((4, "overall 0.50"), (553, "overall of 4 of 553 prompts 0.50")):
        assert headline(compare(one, other | {"prompts_available": total})).startswith(start)
