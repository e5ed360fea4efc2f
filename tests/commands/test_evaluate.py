"""`diffalign evaluate`: protocol, tables, and comparison with another evaluation."""

from __future__ import annotations

import json
import math

import pytest
import torch

from diffalign import shapes
from diffalign.commands._evaluations import gains, read_evaluation, scores_table, write_evaluation
from diffalign.report import compare, headline
from diffalign.rewards import registry
from diffalign.sampling import make_plan, ode, rollout

FAST = ("--max_prompts", "3", "--images_per_prompt", "2", "--num_inference_steps", "2", "--guidance_scales", "1", "3")


@pytest.fixture
def evaluate(diffalign, tiny_model):
    """Runs `diffalign evaluate` on the tiny model."""
    return lambda *words: diffalign("evaluate", "--model", tiny_model, *words)


def evaluation(score, **changes):
    """A small evaluation of two tasks, all prompts at `score`."""
    prompts = [
        {"prompt": f"p{i}", "task": task, "score": score + 0.01 * i, "rewards": {"mine": score, "other": 1.0}}
        for i, task in enumerate(["colors", "colors", "counting", "counting"])
    ]
    table = {"overall": score, "tasks": {"colors": score, "counting": score}}
    content = {
        "suite": "mine", "num_inference_steps": 4, "images_per_prompt": 2, "seed": 3, "best_guidance": 2.0,
        "guidance": {"1.0": {"overall": 0.1, "tasks": {"colors": 0.1}}, "2.0": table}, "prompts": prompts,
        "seeds": list(range(8)),
    }  # fmt: skip
    return content | changes


def test_an_evaluation_is_written_and_printed(evaluate, tmp_path):
    outcome = evaluate(*FAST, "--output", tmp_path / "deep" / "e.json")
    assert outcome.status == 0, outcome.err
    content = read_evaluation(str(tmp_path / "deep" / "e.json"))
    assert (content["suite"], content["num_inference_steps"], content["images_per_prompt"]) == ("shapes_strict", 2, 2)
    assert list(content["guidance"]) == ["1.0", "3.0"] and len(content["prompts"]) == 3
    assert set(content["prompts"][0]["rewards"]) == {"shapes_strict", "shapes"}
    assert "6 images a column, 2 steps" in outcome.out and "g = 1" in outcome.out and "g = 3" in outcome.out


def test_the_score_is_the_reward_of_the_models_own_images(evaluate, tiny_model, tmp_path):
    from diffalign.models import load_policy

    evaluate(*FAST, "--reward_funcs", "jpeg", "--output", tmp_path / "e.json")
    content = read_evaluation(str(tmp_path / "e.json"))
    policy = load_policy(str(tiny_model))
    prompts = [line["prompt"] for line in shapes.prompts("heldout")[:3] for _ in range(2)]
    plan = make_plan(ode(policy.schedule(2)), guidance=content["best_guidance"])
    images = rollout(policy, plan, prompts, content["seeds"]).images
    wanted = registry.get("jpeg")(images, prompts, [{}] * 6).view(3, 2).mean(1)
    assert torch.allclose(torch.tensor([p["score"] for p in content["prompts"]]), wanted, atol=1e-3)


def test_a_lora_is_compared_with_the_model_below_it(evaluate, tiny_lora, tmp_path):
    fast = (*FAST, "--reward_funcs", "jpeg")
    outcome = evaluate(*fast, "--lora", tiny_lora, "--baseline", "--output", tmp_path / "after")
    assert outcome.status == 0, outcome.err
    evaluate(*fast, "--output", tmp_path / "before")
    before, after = (read_evaluation(str(tmp_path / name)) for name in ("before", "after"))
    assert outcome.out.splitlines()[-1] == headline(compare(before, after))
    assert before["prompts"] != after["prompts"]


def test_the_other_evaluation_sets_the_protocol(evaluate, tmp_path):
    words = ("--max_prompts", "3", "--prompts", "shapes:train")
    rewards = ("--reward_funcs", "shapes", "shapes_strict")
    protocol = ("--guidance_scales", "2", "--images_per_prompt", "1", "--seed", "9", "--num_inference_steps", "3")
    outcome = evaluate(*words, *rewards, *protocol, "--output", tmp_path / "e.json")
    assert outcome.status == 0, outcome.err
    outcome = evaluate(*words, "--against", tmp_path / "e.json", "--output", tmp_path / "f.json")
    assert outcome.status == 0, outcome.err
    first, second = (read_evaluation(str(tmp_path / name)) for name in ("e.json", "f.json"))
    for key in ("seed", "seeds", "num_inference_steps", "images_per_prompt", "guidance", "suite"):
        assert first[key] == second[key], key
    assert list(second["prompts"][0]["rewards"]) == ["shapes", "shapes_strict"]
    assert "+0.00, 95% CI [" in outcome.out.splitlines()[-1]


def test_few_images_may_choose_the_scale_and_the_table_says_so(evaluate, tmp_path):
    few = (*FAST, "--images_per_scale", "1", "--output", tmp_path / "e.json")
    outcome = evaluate(*few)
    assert outcome.status == 0, outcome.err
    assert "3 images a column, 2 steps; * best guidance scale, 6 images" in outcome.out
    outcome = evaluate("--max_prompts", "3", "--against", tmp_path / "e.json", "--output", tmp_path / "f.json")
    first, second = (read_evaluation(str(tmp_path / name)) for name in ("e.json", "f.json"))
    assert (second["images_per_scale"], second["guidance"]) == (1, first["guidance"])
    outcome = evaluate(*FAST, "--images_per_scale", "3")
    assert outcome.status == 2 and "images_per_scale = 3 must lie in 1..2" in outcome.err


def test_the_table_stars_the_best_scale_and_shows_gaps():
    lines = scores_table(evaluation(0.5)).splitlines()
    assert lines[0].split() == ["task", "g", "=", "1", "g", "=", "2*"]
    assert [line.split() for line in lines[2:5]] == [
        ["overall", "0.100", "0.500"], ["colors", "0.100", "0.500"], ["counting", "-", "0.500"]
    ]  # fmt: skip


def test_gains_are_listed_by_task_and_reward():
    text = gains(evaluation(0.25), evaluation(0.5))
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert rows["colors"][1:4] == ["0.255", "0.505", "+0.250"]
    assert rows["reward mine"][2:5] == ["0.250", "0.500", "+0.250"]
    assert "reward other" in rows and text.splitlines()[-1].startswith("overall 0.27 -> 0.5")


def test_a_score_that_could_not_be_had_is_null_in_the_file(tmp_path):
    broken = evaluation(0.5)
    broken["prompts"][0]["score"] = math.nan
    write_evaluation(broken, tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_text())["prompts"][0]["score"] is None
    assert "overall" in gains(read_evaluation(str(tmp_path / "e.json")), evaluation(0.5))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--baseline"], "name the LoRA by --lora, or the run"),
        (["--baseline", "--against", "x.json"], "not allowed with"),
        (["--against", "nowhere.json"], "No such file or directory: nowhere.json"),
        (["--reward_funcs", "shape"], "did you mean `shapes`"),
        (["--reward_funcs", "shapes", "shapes"], "two rewards are called"),
        (["--reward_funcs", "shapes", "--reward_kwargs", "{jpeg: {}}"], "must map names out of"),
        (["--guidance_scales", "high"], "'high' is not a finite number"),
        (["--device", "cuda:7"], "--device cuda:7 is not here"),
        (["--output", "."], "--output . is a folder"),
        (["--output", "/dev/null/e.json"], "/dev/null is a file, not a folder"),
        (["--reward_kwargs", "{a"], "is not valid YAML"),
        (["--prompts", "shapes:test"], "no split 'test'"),
    ],
)
def test_mistakes_are_one_line(evaluate, words, message):
    outcome = evaluate(*words)
    assert outcome.status == 2 and message in outcome.err and outcome.err.count("\n") == 1


BROKEN = [("{", "is not JSON"), ("[]", "is no evaluation"), ("{}", "is no evaluation")]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_file_that_is_no_evaluation_is_refused(evaluate, tmp_path, text, message):
    (tmp_path / "e.json").write_text(text)
    assert message in evaluate("--against", tmp_path / "e.json").err


def test_a_reward_that_the_registry_does_not_know_is_asked_for(evaluate, tmp_path):
    write_evaluation(evaluation(0.5), tmp_path / "e.json")
    outcome = evaluate("--against", tmp_path / "e.json")
    assert outcome.status == 2 and "measured mine, other: say by --reward_funcs" in outcome.err


def test_arguments_of_rewards_are_kept_for_the_next_evaluation(evaluate, tmp_path):
    words = ("--reward_funcs", "jpeg", "--reward_kwargs", "{jpeg: {quality: 30}}", "--output", tmp_path / "e.json")
    assert evaluate(*FAST, *words).status == 0
    outcome = evaluate("--max_prompts", "3", "--against", tmp_path / "e.json", "--output", tmp_path / "f.json")
    assert outcome.status == 0, outcome.err
    first, second = (read_evaluation(str(tmp_path / name)) for name in ("e.json", "f.json"))
    assert first["prompts"] == second["prompts"] and second["reward_specs"] == [["jpeg", {"quality": 30}]]


def test_evaluations_of_other_noise_are_not_compared(evaluate, tmp_path):
    write_evaluation(evaluation(0.5, suite="shapes_strict"), tmp_path / "e.json")
    outcome = evaluate(*FAST, "--reward_funcs", "shapes_strict", "--against", tmp_path / "e.json")
    assert outcome.status == 2 and "before and after differ in num_inference_steps" in outcome.err
    assert "image/s" not in outcome.err, "refused before an image was drawn"


def test_a_subset_is_called_one(evaluate, tmp_path):
    total = len(shapes.prompts("heldout"))
    outcome = evaluate(*FAST, "--output", tmp_path / "e.json")
    assert f"overall of 3 of {total} prompts" in outcome.out
    again = evaluate(*FAST, "--against", tmp_path / "e.json")
    assert again.out.splitlines()[-1].startswith(f"overall of 3 of {total} prompts 0.0")
    (tmp_path / "p.txt").write_text("a photo of a red circle\n")
    words = ("--prompts", tmp_path / "p.txt", "--images_per_prompt", "1", "--num_inference_steps", "1")
    outcome = evaluate(*words, "--guidance_scales", "1", "--reward_funcs", "jpeg")
    assert "overall  " in outcome.out and " of 1 " not in outcome.out


def test_an_evaluation_is_rescued_when_its_place_is_taken_in_the_end(evaluate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "place" / "e.json"
    body = f"import os; os.makedirs({str(place)!r}, exist_ok=True)"
    (tmp_path / "mine.py").write_text(f"def f(images, prompts, metadata):\n    {body}\n    return images[:, 0, 0, 0]\n")
    outcome = evaluate(*FAST, "--reward_funcs", tmp_path / "mine.py:f", "--output", place)
    assert outcome.status == 0 and f"the result is in {tmp_path / 'e.json'}" in outcome.err
    assert len(read_evaluation(str(tmp_path / "e.json"))["prompts"]) == 3
