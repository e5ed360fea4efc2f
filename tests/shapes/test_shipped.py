from __future__ import annotations

import json
import warnings

import pytest
import torch

from diffalign.evaluation import geneval
from diffalign.shapes import checkpoint, detect
from diffalign.shapes.shipped import FOLDER, NAMES


@pytest.fixture(scope="module")
def load():
    """Loads a shipped pipeline once."""
    pipelines = {}

    def get(name: str):
        if not (FOLDER / name / "model_index.json").is_file():
            pytest.skip(f"{name} is not in this checkout")
        if name not in pipelines:
            diffusers = pytest.importorskip("diffusers")
            with warnings.catch_warnings():
                warnings.simplefilter("error", FutureWarning)
                pipelines[name] = diffusers.DiffusionPipeline.from_pretrained(checkpoint(name))
            pipelines[name].set_progress_bar_config(disable=True)
        return pipelines[name]

    return get


def modules(pipe) -> list[torch.nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean `shapes-flow`"):
        checkpoint("shape-flow")
    with pytest.raises(ValueError, match="did you mean `shapes-unet`"):
        checkpoint("unet")


def test_a_missing_folder_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr("diffalign.shapes.shipped.FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="scripts/make_shapes"):
        checkpoint("shapes-flow")


@pytest.mark.parametrize("name", NAMES)
def test_size_and_precision(load, name):
    pipe = load(name)
    assert sum(p.numel() for part in modules(pipe) for p in part.parameters()) <= 3_000_000
    assert {p.dtype for part in modules(pipe) for p in part.parameters()} == {torch.float32}
    assert sum(file.stat().st_size for file in checkpoint(name).rglob("*")) <= 13_000_000
    assert not [file for file in checkpoint(name).rglob("*") if file.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


@pytest.mark.parametrize("name", NAMES)
def test_folders_hold_no_path_of_the_machine_that_made_them(load, name):
    load(name)
    for file in checkpoint(name).rglob("*.json"):
        text = file.read_text()
        assert "/work" not in text and "/tmp" not in text and "/home" not in text, file
        assert json.loads(text) is not None


@pytest.mark.parametrize("name", NAMES)
def test_text_encoders_pool_where_the_text_ends(load, name):
    pipe = load(name)
    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder
    assert encoder.config.eos_token_id == tokenizer.eos_token_id != 2
    ids = [tokenizer(t, padding="max_length", return_tensors="pt").input_ids for t in ("a photo of a ring", "a ring")]
    assert not torch.allclose(encoder(ids[0])[0], encoder(ids[1])[0])
    assert tokenizer.unk_token_id not in tokenizer("a photo of three crosses right of a purple diamond").input_ids


def calls(pipe) -> dict:
    return {"max_sequence_length": 16} if hasattr(pipe, "transformer") else {}


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_followed_far_better_than_chance(load, name):
    pipe = load(name)
    colors = ("red", "white", "blue", "yellow")
    texts = [f"a photo of a {color} {label}" for color in colors for label in ("square", "circle", "diamond")]
    noise = torch.randn(len(texts), 8, 8, 8, generator=torch.Generator().manual_seed(0))
    images = pipe(
        texts,
        latents=noise,
        guidance_scale=3.0,
        num_inference_steps=8,
        height=32,
        width=32,
        output_type="pt",
        **calls(pipe),
    ).images
    hits = [any(d.color == text.split()[4] for d in found) for text, found in zip(texts, detect(images), strict=True)]
    assert sum(hits) >= len(texts) / 2


def test_truth_survives_the_autoencoder(load, heldout):
    lines, _, images = heldout
    vae = load("shapes-flow").vae
    with torch.no_grad():
        decoded = [vae.decode(vae.encode(part * 2 - 1).latent_dist.mode()).sample for part in images[:288].split(96)]
    verdicts = [geneval.correct(d, line) for d, line in zip(detect(torch.cat(decoded) / 2 + 0.5), lines, strict=False)]
    tasks = geneval.summary(lines[:288], verdicts)["tasks"]
    assert min(tasks.values()) >= 0.9, tasks


def test_latent_noise_decodes_to_no_objects(load):
    vae = load("shapes-flow").vae
    noise = torch.randn(128, 8, 8, 8, generator=torch.Generator().manual_seed(0)) / vae.config.scaling_factor
    with torch.no_grad():
        images = vae.decode(noise).sample / 2 + 0.5
    false = sum(d.score > geneval.THRESHOLD for found in detect(images) for d in found)
    assert false / len(images) <= 0.02


def test_latents_have_unit_variance(load, heldout):
    vae = load("shapes-flow").vae
    with torch.no_grad():
        latents = vae.encode(heldout[2][:96] * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1, abs=0.1)


def test_shapes_flow_says_in_one_pass_what_its_teacher_says_with_guidance(load):
    student, teacher = load("shapes-flow"), load("shapes-flow-guided")
    texts = ["a photo of two red circles", "a photo of a ring", "a photo of a heart left of a cross"] * 8
    for one, other in ((student.text_encoder, teacher.text_encoder), (student.vae, teacher.vae)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    with torch.no_grad():
        tokens, none, pooled, empty = teacher.encode_prompt(texts, None, None, max_sequence_length=16)
        x = torch.randn(len(texts), 8, 8, 8, generator=torch.Generator().manual_seed(0))
        t = torch.full((len(texts),), 1000.0)  # pure noise: what the model was taught there needs no picture
        conditional, unconditional = (
            teacher.transformer(x, words, pool, t, return_dict=False)[0]
            for words, pool in ((tokens, pooled), (none, empty))
        )
        said = student.transformer(x, tokens, pooled, t, return_dict=False)[0]
    guided = torch.lerp(unconditional, conditional, 4.0)
    assert (said - guided).norm() < 0.5 * (conditional - guided).norm()
