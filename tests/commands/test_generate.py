"""`diffalign generate`: the images are the pipeline's own, in GenEval's folders."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from diffalign.commands._drawing import check_finite, plan_samples
from tests.tiny_pipelines import tiny_sd3

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
    assert found == [f"{i:05d}/{name}" for i in range(2) for name in per_prompt] + [
        "generate.json", "grid.png"
    ]  # fmt: skip
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
    assert np.abs(ours - plain(tiny_model, PROMPTS[0], 0, guidance=7.0, steps=3, lora=tiny_lora)).max() <= 1
    assert np.abs(ours - plain(tiny_model, PROMPTS[0], 0, guidance=7.0, steps=3)).max() > 8


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_images_are_not_overwritten_unasked(generate):
    generate(PROMPTS[0], "--images_per_prompt", "1")
    outcome, out = generate(PROMPTS[0], "--images_per_prompt", "1", "--seed", "5")
    assert outcome.status == 2 and "holds images already" in outcome.err
    before = picture(out / "00000/samples/0000.png")
    assert generate(PROMPTS[0], "--images_per_prompt", "1", "--seed", "5", "--overwrite")[0].status == 0
    assert np.abs(before - picture(out / "00000/samples/0000.png")).max() > 1


def test_overwriting_leaves_no_image_of_the_earlier_call(generate):
    _, out = generate(*PROMPTS, "a", "--images_per_prompt", "3")
    assert len(files(out)) == 2 + 3 * 5
    (out / ".note").write_text("hidden files are nobody's")
    outcome, _ = generate(PROMPTS[0], "--images_per_prompt", "2", "--overwrite")
    assert outcome.status == 0, outcome.err
    new = {"grid.png", "generate.json", "00000/grid.png", "00000/metadata.jsonl"}
    assert files(out) == new | {"00000/samples/0000.png", "00000/samples/0001.png", ".note"}
    assert not (out / "00001").exists()


@pytest.mark.parametrize("words", [(), ("--overwrite",)])
@pytest.mark.parametrize("name", ["holiday.png", "00000/samples/0009.png"])
def test_files_of_others_are_never_mixed_with_nor_removed(generate, words, name):
    _, out = generate(PROMPTS[0], "--images_per_prompt", "1")
    (out / name).write_bytes(b"mine")
    before = files(out)
    outcome, _ = generate(PROMPTS[1], "--images_per_prompt", "1", *words)
    assert outcome.status == 2 and f"did not write, first {name}" in outcome.err
    assert files(out) == before and (out / name).read_bytes() == b"mine"


def test_a_list_cannot_name_files_outside_its_folder(generate, tmp_path):
    _, out = generate(PROMPTS[0], "--images_per_prompt", "1")
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    manifest = json.loads((out / "generate.json").read_text())
    manifest["files"] += ["../precious.txt", str(precious)]
    (out / "generate.json").write_text(json.dumps(manifest))
    assert generate(PROMPTS[0], "--images_per_prompt", "1", "--overwrite")[0].status == 0
    assert precious.read_text() == "mine"
    (out / "generate.json").write_text("{")
    assert "generate.json is damaged" in generate(PROMPTS[0], "--overwrite")[0].err


def broken_model(folder, part):
    """A tiny model whose denoiser or VAE gives NaN."""
    pipeline = tiny_sd3()
    module = pipeline.transformer if part == "denoiser" else pipeline.vae.decoder
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(torch.nan)
    pipeline.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("stage", ["denoiser", "VAE"])
def test_images_that_are_not_finite_are_an_error_and_cost_nothing(generate, diffalign, tmp_path, stage):
    _, out = generate(PROMPTS[0], "--images_per_prompt", "1")
    before = {name: (out / name).read_bytes() for name in files(out)}
    model = broken_model(tmp_path / "broken", stage)
    words = ("--images_per_prompt", "2", "--num_inference_steps", "2", "--overwrite", "--dtype", "bfloat16")
    outcome = diffalign("generate", PROMPTS[0], *words, "--model", model, "--output", out)
    assert outcome.status == 2
    assert f"the {stage} gave 00000/samples/0000.png (seed 0), 00000/samples/0001.png (seed 1)" in outcome.err
    assert "try --dtype float32" in outcome.err
    assert {name: (out / name).read_bytes() for name in files(out)} == before


def test_each_image_is_charged_to_the_stage_that_broke_it():
    images, latents = torch.rand(3, 3, 4, 4), torch.rand(3, 2, 2, 2)
    latents[0, 0, 0, 0] = torch.inf
    images[[0, 2], 0, 0, 0] = torch.nan
    samples = plan_samples([{"prompt": "a", "metadata": {}}], 3, 0)
    with pytest.raises(
        ValueError, match=r"denoiser gave 00000/samples/0000.png .*; the VAE gave 00000/samples/0002"
    ) as error:
        check_finite(samples, latents, images, torch.float32)
    assert "0001" not in str(error.value) and "--dtype" not in str(error.value)


def test_a_prompt_typed_under_an_ascii_locale_keeps_its_letters(generate):
    outcome, out = generate("caf\udcc3\udca9", "--images_per_prompt", "1")  # how Python hands it over there
    assert outcome.status == 0, outcome.err
    assert json.loads((out / "00000/metadata.jsonl").read_text(encoding="utf-8"))["prompt"] == "caf\u00e9"
    assert json.loads((out / "generate.json").read_text(encoding="utf-8"))["settings"]["guidance_scale"] == 7.0


def test_home_is_expanded_in_every_path(generate, diffalign, tiny_model, tiny_lora, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text(PROMPTS[0])
    (tmp_path / "model").symlink_to(tiny_model)
    (tmp_path / "lora").symlink_to(tiny_lora)
    words = ("--model", "~/model", "--lora", "$HOME/lora", "--num_inference_steps", "1", "--images_per_prompt", "1")
    outcome = diffalign("generate", "--prompts", "~/p.txt", *words, "--output", "${HOME}/images")
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "images/00000/samples/0000.png").is_file()
    assert not list(tmp_path.glob("~*")) + list(tmp_path.glob("$*"))


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
        (["a", "--guidance_scale", "nan"], "not a finite number"),
        (["a", "--device", "gpu"], "--device gpu is not here"),
        (["a", "--lr", "3"], "unknown option --lr;"),
        (["a", "--cfg", "3"], "did you mean `--guidance_scale`"),
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
