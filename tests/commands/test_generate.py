"""`diffalign generate`: the images are the pipeline's own, in GenEval's folders."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from diffalign.commands.generate import plan_samples

PROMPTS = ["a photo of a red circle", "a photo of two blue square"]


def picture(path):
    return np.asarray(Image.open(path)).astype(int)


def plain(folder, prompt, seed, *, guidance, steps, lora=None):
    """What diffusers alone draws, (H, W, 3) in 0..255."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder)
    if lora is not None:
        pipeline.load_lora_weights(lora)
    pipeline.set_progress_bar_config(disable=True)
    length = pipeline.tokenizer_3.model_max_length
    image = pipeline(
        prompt, guidance_scale=guidance, num_inference_steps=steps, negative_prompt="", max_sequence_length=length,
        generator=torch.Generator().manual_seed(seed), output_type="np",
    ).images[0]  # fmt: skip
    return (image * 255).round().astype(int)


@pytest.fixture
def generate(diffalign, tiny_model, tmp_path):
    """Runs `diffalign generate` on the tiny model; the outcome and the folder."""

    def run(*words):
        return diffalign(
            "generate", *words, "--model", tiny_model, "--output", tmp_path / "out", "--num_inference_steps", "3"
        ), tmp_path / "out"

    return run


def test_the_folders_are_genevals(generate, tmp_path):
    lines = [{"tag": "counting", "include": [{"class": "circle", "count": 1}], "prompt": p} for p in PROMPTS]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome, out = generate("--prompts", tmp_path / "p.jsonl", "--images_per_prompt", "3", "--batch_size", "2")
    assert outcome.status == 0, outcome.err
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    per_prompt = ["grid.png", "metadata.jsonl", "samples/0000.png", "samples/0001.png", "samples/0002.png"]
    assert found == [f"{i:05d}/{name}" for i in range(2) for name in per_prompt] + ["grid.png"]
    for i, line in enumerate(lines):
        assert json.loads((out / f"{i:05d}" / "metadata.jsonl").read_text()) == line
    assert picture(out / "00000/samples/0000.png").shape == (32, 32, 3)
    assert "6 images of 2 prompts" in outcome.out
    assert picture(out / "grid.png").shape[0] > picture(out / "00000/grid.png").shape[0] > 32


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_an_image_is_the_one_diffusers_draws(generate, tiny_model, guidance):
    outcome, out = generate(*PROMPTS, "--seed", "11", "--images_per_prompt", "2", "--guidance_scale", str(guidance))
    assert outcome.status == 0, outcome.err
    theirs = plain(tiny_model, PROMPTS[1], 11 + 3, guidance=guidance, steps=3)
    ours = picture(out / "00001/samples/0001.png")
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - picture(out / "00001/samples/0000.png")).max() > 1


def test_images_do_not_depend_on_the_batch(generate):
    _, out = generate(PROMPTS[0], "--images_per_prompt", "3", "--batch_size", "3")
    together = [picture(path) for path in sorted(out.rglob("samples/*.png"))]
    generate(PROMPTS[0], "--images_per_prompt", "3", "--batch_size", "1", "--overwrite")
    alone = [picture(path) for path in sorted(out.rglob("samples/*.png"))]
    assert max(np.abs(a - b).max() for a, b in zip(together, alone, strict=True)) <= 1


def test_a_lora_is_put_on(generate, tiny_model, tiny_lora):
    _, out = generate(PROMPTS[0], "--images_per_prompt", "1", "--lora", tiny_lora)
    ours = picture(out / "00000/samples/0000.png")
    assert np.abs(ours - plain(tiny_model, PROMPTS[0], 0, guidance=2.0, steps=3, lora=tiny_lora)).max() <= 1
    assert np.abs(ours - plain(tiny_model, PROMPTS[0], 0, guidance=2.0, steps=3)).max() > 8


def test_images_are_not_overwritten_unasked(generate):
    generate(PROMPTS[0], "--images_per_prompt", "1")
    outcome, out = generate(PROMPTS[0], "--images_per_prompt", "1", "--seed", "5")
    assert outcome.status == 2 and "holds images already" in outcome.err
    before = picture(out / "00000/samples/0000.png")
    assert generate(PROMPTS[0], "--images_per_prompt", "1", "--seed", "5", "--overwrite")[0].status == 0
    assert np.abs(before - picture(out / "00000/samples/0000.png")).max() > 1


def test_every_image_has_its_own_seed_and_keeps_it_when_prompts_are_added():
    records = [{"prompt": p, "metadata": {}} for p in "aabc"]
    samples = plan_samples(records, 3, seed=100)
    assert sorted(s.seed for s in samples) == list(range(100, 112))
    assert plan_samples(records[:2], 3, seed=100) == samples[:6]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give prompts as arguments or a file"),
        (["a", "--prompts", "shapes:train"], "one of the two"),
        (["a", "--seed", "-1"], "must not be negative"),
        (["a", "--images_per_prompt", "0"], "not a whole number above 0"),
        (["a", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["--prompts", "nowhere.txt"], "no prompt file nowhere.txt"),
        (["a", "--lora", "nowhere"], "--lora nowhere: no such folder"),
        (["a", "--resolution", "30"], "multiple of 8"),
    ],
)
def test_mistakes_are_one_line(generate, words, message):
    outcome, out = generate(*words)
    assert outcome.status == 2 and message in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err and not list(out.glob("*"))


def test_a_folder_without_a_model_or_a_lora_is_named(diffalign, tiny_model, tmp_path):
    outcome = diffalign("generate", "a", "--model", tmp_path, "--output", tmp_path / "out")
    assert outcome.status == 2 and "no model_index.json" in outcome.err
    outcome = diffalign("generate", "a", "--model", tiny_model, "--lora", tmp_path, "--output", tmp_path / "out")
    assert outcome.status == 2 and "pytorch_lora_weights.safetensors" in outcome.err
