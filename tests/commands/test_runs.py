"""Commands that are given a run: its configuration fills in what was not said, its checkpoints are models."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from diffalign.commands._evaluations import read_evaluation
from diffalign.models import load_lora, load_policy
from diffalign.sampling import make_plan, ode, rollout

PROMPT = "a photo of a red circle"


@pytest.fixture
def generate(diffalign, tmp_path):
    """Draws one image; the outcome and its pixels (H, W, 3)."""

    def run(*words, name="out"):
        outcome = diffalign("generate", PROMPT, "--images_per_prompt", "1", "--output", tmp_path / name, *words)
        path = tmp_path / name / "00000/samples/0000.png"
        return outcome, np.asarray(Image.open(path)).astype(int) if path.is_file() else None

    return run


def drawn(policy, guidance, steps, negative=""):
    """The same image by the sampler alone."""
    plan = make_plan(ode(policy.schedule(steps)), guidance=guidance)
    (image,) = rollout(policy, plan, [PROMPT], [0], negative_prompt=negative).images
    return (image * 255).round().permute(1, 2, 0).int().numpy()


def test_model_sampling_and_negative_prompt_come_from_the_run(generate, lora_run, tiny_model):
    outcome, image = generate("--lora", lora_run)
    assert outcome.status == 0, outcome.err
    (line,) = [line for line in outcome.out.splitlines() if line.startswith(f"from {lora_run / 'config.yaml'}: ")]
    for part in (f"model {tiny_model}", "guidance_scale 3.0", "num_inference_steps 3", "negative_prompt blue square"):
        assert part in line
    policy = load_policy(str(tiny_model))
    load_lora(policy, lora_run, trainable=False)
    assert np.abs(image - drawn(policy, 3.0, 3, "blue square")).max() <= 1
    assert np.abs(image - drawn(policy, 3.0, 3)).max() > 1


def test_an_option_wins_over_the_run(generate, lora_run, tiny_model):
    words = ("--guidance_scale", "1.5", "--num_inference_steps", "2", "--negative_prompt", "")
    outcome, image = generate("--lora", lora_run, *words)
    assert "guidance_scale" not in outcome.out and f"model {tiny_model}" in outcome.out
    policy = load_policy(str(tiny_model))
    load_lora(policy, lora_run, trainable=False)
    assert np.abs(image - drawn(policy, 1.5, 2)).max() <= 1


def test_the_last_checkpoint_of_a_lora_is_what_was_saved(generate, lora_run):
    _, saved = generate("--lora", lora_run)
    outcome, last = generate("--lora", lora_run / "checkpoint-2", name="last")
    assert outcome.status == 0 and f"from {lora_run / 'checkpoint-2' / 'state.json'}: model" in outcome.out
    _, first = generate("--lora", lora_run / "checkpoint-1", name="first")
    assert np.abs(last - saved).max() <= 1 and np.abs(first - saved).max() > 1


def test_full_fine_tuning_is_a_model_and_its_checkpoint_the_same_average(generate, full_run):
    outcome, saved = generate("--model", full_run)
    assert outcome.status == 0 and "guidance_scale 3.0" in outcome.out
    outcome, last = generate("--model", full_run / "checkpoint-2", name="last")
    assert outcome.status == 0, outcome.err
    _, first = generate("--model", full_run / "checkpoint-1", name="first")
    assert np.abs(last - saved).max() <= 1 and np.abs(first - saved).max() > 1


def test_an_evaluation_follows_the_run_and_its_options(diffalign, lora_run, tmp_path):
    words = ("--lora", lora_run, "--images_per_prompt", "1", "--output", tmp_path / "e.json")
    outcome = diffalign("evaluate", *words, "--baseline")
    assert outcome.status == 0, outcome.err
    found = read_evaluation(str(tmp_path / "e.json"))
    assert list(found["guidance"]) == ["1.0", "3.0"] and found["num_inference_steps"] == 2
    assert found["negative_prompt"] == "blue square" and found["images_per_prompt"] == 1
    assert len(found["prompts"]) == 3 and found["suite"] == "jpeg_compressibility"
    assert "reward_funcs jpeg" in outcome.out and "prompts shapes:heldout" in outcome.out
    assert "warning" not in outcome.err
    assert "overall of 3 of " in outcome.out.splitlines()[-1]


def test_an_evaluation_made_while_training_is_followed_by_the_rewards_of_its_run(diffalign, lora_run, tmp_path):
    """It names `jpeg` as the reward calls itself, which the registry does not know."""
    words = ("evaluate", "--lora", lora_run, "--images_per_prompt", "1", "--reward_funcs", "jpeg")
    assert diffalign(*words, "--output", tmp_path / "e.json").status == 0
    found = read_evaluation(str(tmp_path / "e.json"))
    del found["reward_specs"]
    (tmp_path / "e.json").write_text(json.dumps(found))
    outcome = diffalign("evaluate", "--lora", lora_run, "--against", tmp_path / "e.json")
    assert outcome.status == 0, outcome.err
    assert "warning: every score" in outcome.err and "+0.00, 95% CI" in outcome.out.splitlines()[-1]


def test_the_model_before_full_fine_tuning_is_its_baseline(diffalign, full_run, tmp_path):
    outcome = diffalign("evaluate", "--model", full_run / "checkpoint-2", "--baseline", "--images_per_prompt", "1")
    assert outcome.status == 0, outcome.err
    assert "before training:" in outcome.out and "warning" not in outcome.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "{lora}"], "trained a LoRA: give it as --lora {lora}"),
        (["--lora", "{full}"], "trained all weights, no LoRA: give it as --model {full}"),
        (["--lora", "{full}/checkpoint-1"], "trained all weights"),
        (["--lora", "{cut}"], "the run did not finish; name its last checkpoint, {cut}/checkpoint-2"),
        (["--lora", "{empty}"], "it has no checkpoint either"),
        (["--lora", "{empty}/checkpoint-9"], "no such folder"),
        (["--lora", "{damaged}/checkpoint-1"], "is damaged"),
        (["--lora", "{moved}"], "the model is the one that {moved}/config.yaml names; --model gives another"),
    ],
)
def test_a_run_that_cannot_be_used_says_what_can(generate, lora_run, full_run, tmp_path, words, message):
    places = {"lora": lora_run, "full": full_run}
    for name in ("cut", "empty", "damaged", "moved"):
        places[name] = shutil.copytree(lora_run, tmp_path / name)
    for name in ("cut", "empty"):
        (places[name] / "pytorch_lora_weights.safetensors").unlink()
    for path in places["empty"].glob("checkpoint-*"):
        shutil.rmtree(path)
    weights = places["damaged"] / "checkpoint-1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    config = places["moved"] / "config.yaml"
    config.write_text(config.read_text().replace("tiny-sd3", "gone-sd3"))
    outcome, image = generate(*(word.format(**places) for word in words))
    assert outcome.status == 2 and message.format(**places) in outcome.err and image is None


def test_a_folder_of_a_lora_without_a_run_has_nothing_to_say(generate, tiny_model, tiny_lora):
    outcome, _ = generate("--model", tiny_model, "--lora", tiny_lora, "--num_inference_steps", "2")
    assert outcome.status == 0 and "from " not in outcome.out and "guidance_scale 7.0" in outcome.out


def test_a_lora_that_changes_nothing_is_warned_about(diffalign, tiny_model, tmp_path):
    from diffalign.models import add_lora, save_trained

    policy = load_policy(str(tiny_model))
    add_lora(policy, rank=2, alpha=4.0)  # B is zero before training
    save_trained(policy, tmp_path / "fresh")
    fast = ("--max_prompts", "2", "--images_per_prompt", "1", "--num_inference_steps", "2", "--guidance_scales", "1")
    words = ("evaluate", "--model", tiny_model, *fast, "--reward_funcs", "jpeg")
    outcome = diffalign(*words, "--lora", tmp_path / "fresh", "--baseline", "--output", tmp_path / "e.json")
    assert outcome.status == 0 and "warning: the training changes none of 2 images" in outcome.err
    outcome = diffalign(*words, "--against", tmp_path / "e.json")
    assert "warning: every score of every prompt is the same" in outcome.err
