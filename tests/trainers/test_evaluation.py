"""Scores of a policy: the same seeds for every scale and model, whatever the batch size."""

from __future__ import annotations

import math

import pytest
import torch

from diffalign.models import adapt
from diffalign.rewards import PairwiseReward, get
from diffalign.rewards.base import FunctionReward
from diffalign.trainers.run import evaluation
from diffalign.trainers.run.evaluation import evaluate_policy
from tests.tiny_pipelines import tiny_sd, tiny_sd3
from tests.trainers.small_runs import redness

RECORDS = [
    {"prompt": "a photo of a red circle", "metadata": {"tag": "colors"}},
    {"prompt": "a photo of a green cross", "metadata": {"tag": "colors"}},
    {"prompt": "two blue square", "metadata": {"tag": "counting"}},
]


@pytest.fixture(scope="module")
def policy():
    return adapt(tiny_sd3())


def evaluate(policy, *rewards, records=RECORDS, **keys):
    named = {reward.name: reward for reward in map(get, rewards or (redness,))}
    options = {"guidance_scales": [1.0, 2.0], "num_inference_steps": 2, "images_per_prompt": 2, "progress": False}
    return evaluate_policy(policy, records, named, **{**options, **keys})


def green(images, prompts, metadata):
    return images[:, 1].mean((1, 2))


def test_every_scale_and_every_model_starts_from_the_same_noise(policy, monkeypatch):
    seen = []
    real = evaluation.rollout

    def watch(*args, **kwargs):
        out = real(*args, **kwargs)
        seen.append(out.init_noise)
        return out

    monkeypatch.setattr(evaluation, "rollout", watch)
    first, other = evaluate(policy), evaluate(adapt(tiny_sd(seed=3)))
    assert len(seen) == 4 and all(torch.equal(seen[0], noise) for noise in seen[1:])
    assert first["seeds"] == other["seeds"] and len(set(first["seeds"])) == 6
    assert evaluate(policy, seed=1)["seeds"] != first["seeds"]


def test_overall_is_the_mean_of_tasks_and_the_best_scale_has_the_highest(policy):
    found = evaluate(policy, guidance_scales=[1.0, 3.0, 8.0])
    for table in found["guidance"].values():
        assert table["overall"] == pytest.approx((table["tasks"]["colors"] + table["tasks"]["counting"]) / 2)
    overall = {float(scale): table["overall"] for scale, table in found["guidance"].items()}
    assert len(set(overall.values())) == 3
    assert found["best_guidance"] == max(overall, key=overall.get)
    scores = [line["score"] for line in found["prompts"]]
    best = found["guidance"][str(found["best_guidance"])]["tasks"]
    assert best == pytest.approx({"colors": (scores[0] + scores[1]) / 2, "counting": scores[2]})
    assert [line["prompt"] for line in found["prompts"]] == [record["prompt"] for record in RECORDS]
    worst = evaluate(policy, lambda *args: -redness(*args), guidance_scales=[1.0, 3.0, 8.0])
    assert worst["best_guidance"] == min(overall, key=overall.get)


def test_a_few_images_choose_the_scale_and_all_measure_it(policy, monkeypatch):
    drawn, real = [], evaluation.rollout
    monkeypatch.setattr(evaluation, "rollout", lambda *args, **keys: drawn.append(list(args[3])) or real(*args, **keys))
    scales = [1.0, 3.0, 8.0]
    found = evaluate(policy, images_per_prompt=3, images_per_scale=1, guidance_scales=scales)
    first = found["seeds"][::3]
    assert drawn == [first, first, first, found["seeds"]]
    whole = evaluate(policy, images_per_prompt=3, guidance_scales=scales)
    best = str(found["best_guidance"])
    assert found["guidance"][best] == whole["guidance"][best]
    assert found["prompts"] == evaluate(policy, images_per_prompt=3, guidance_scales=[float(best)])["prompts"]
    assert all(found["guidance"][scale] != whole["guidance"][scale] for scale in found["guidance"] if scale != best)
    assert (found["images_per_scale"], whole["images_per_scale"]) == (1, 3)


def test_one_scale_needs_no_choice_and_more_images_than_there_are_cannot_choose(policy):
    assert evaluate(policy, images_per_scale=1, guidance_scales=[2.0])["images_per_scale"] == 2
    with pytest.raises(ValueError, match=r"images_per_scale = 3 must lie in 1\.\.2"):
        evaluate(policy, images_per_scale=3)


def test_the_first_reward_is_the_target(policy):
    found = evaluate(policy, green, redness)
    assert found["suite"] == "green"
    for line in found["prompts"]:
        assert line["score"] == line["rewards"]["green"] != line["rewards"]["redness"]
    assert list(found["prompts"][0]["rewards"]) == ["green", "redness"]


@pytest.mark.parametrize("size", [1, 4, 5])
def test_the_batch_size_changes_nothing_beyond_rounding(policy, size):
    whole, cut = evaluate(policy, batch_size=64), evaluate(policy, batch_size=size)
    for a, b in zip(whole["prompts"], cut["prompts"], strict=True):
        assert a["score"] == pytest.approx(b["score"], abs=1e-6)


def test_an_image_without_a_score_leaves_the_mean(policy):
    def partly(images, prompts, metadata):
        values = torch.arange(1.0, 7.0)
        values[[1, 4, 5]] = math.nan
        return values

    found = evaluate(policy, partly, batch_size=6, guidance_scales=[1.0])
    assert [line["score"] for line in found["prompts"]] == [1.0, 3.5, None]  # null in JSON
    assert found["guidance"]["1.0"] == {"overall": pytest.approx(8 / 3), "tasks": {"colors": pytest.approx(8 / 3)}}
    with pytest.raises(ValueError, match="could not score a single image"):
        evaluate(policy, lambda images, prompts, metadata: torch.full((len(images),), math.nan))


class Darker:
    name = "darker"

    def __init__(self):
        self.prompts = []

    def compare(self, first, second, prompts, metadata):
        self.prompts.append(prompts)
        return (first.mean((1, 2, 3)) < second.mean((1, 2, 3))).float()


def test_a_reward_of_pairs_sees_whole_prompts_across_batches(policy):
    judge = Darker()
    found = evaluate(policy, PairwiseReward(judge), green, images_per_prompt=3, batch_size=2, guidance_scales=[1.0])
    assert all(line["rewards"]["darker"] == pytest.approx(0.5) for line in found["prompts"])  # wins sum to n / 2
    assert set(judge.prompts[0]) == {record["prompt"] for record in RECORDS}


def test_records_without_a_task_are_one_task(policy):
    records = [{"prompt": "a red cross", "metadata": {}}, {"prompt": "a blue cross", "metadata": {}}]
    found = evaluate(policy, records=records, guidance_scales=[1.0])
    assert list(found["guidance"]["1.0"]["tasks"]) == ["all"]


def test_nothing_to_evaluate_is_refused(policy):
    with pytest.raises(ValueError, match="got 0 and 1"):
        evaluate(policy, records=[])
    with pytest.raises(ValueError, match="got 3 and 0"):
        evaluate_policy(policy, RECORDS, {}, guidance_scales=[1.0], num_inference_steps=2)


def test_no_gradient_and_no_change_of_the_policy(policy):
    seen = []

    def watching(images, prompts, metadata):
        seen.append(images.requires_grad)
        return green(images, prompts, metadata)

    state = torch.get_rng_state()
    reward = FunctionReward(watching, differentiable=True)
    evaluate_policy(policy, RECORDS, {"w": reward}, guidance_scales=[1.0], num_inference_steps=2, progress=False)
    assert seen == [False] and torch.equal(torch.get_rng_state(), state)
