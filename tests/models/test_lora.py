"""LoRA: what is put on, refused, saved and reloaded."""

from __future__ import annotations

import os

import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline
from peft import LoraConfig
from safetensors.torch import save_file

from diffalign.models import adapt, add_lora, has_lora, load_lora, save_trained, trainable_parameters, trainable_state
from diffalign.models.lora import saved_lora, without_lora
from diffalign.sampling import make_plan, ode, rollout
from tests.models import tiny
from tests.tiny_pipelines import tiny_sd, tiny_sd3

PROMPTS, SEEDS = ["a photo of a red circle"] * 2, [1, 2]
BUILDS = [(tiny_sd3, StableDiffusion3Pipeline), (tiny_sd, StableDiffusionPipeline)]


def images(policy):
    return rollout(policy, make_plan(ode(policy.schedule(3))), PROMPTS, SEEDS).images


def disturb(policy, amount=0.1):
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in trainable_parameters(policy):
            parameter += amount * torch.randn(parameter.shape, generator=generator)


def with_text_encoder_lora(build):
    """A pipeline with a LoRA on denoiser and first text encoder, both doing something."""
    pipeline = build()
    policy = adapt(pipeline)
    add_lora(policy, rank=2, alpha=8)
    disturb(policy)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        pipeline.text_encoder.add_adapter(config)
    return policy


@pytest.mark.parametrize(("build", "_"), BUILDS)
def test_a_fresh_lora_changes_nothing_and_alone_is_trainable(build, _):
    policy = adapt(build())
    before = images(policy)
    add_lora(policy, rank=4, alpha=8)
    assert torch.equal(images(policy), before)
    names = [n for n, p in policy.denoiser.named_parameters() if p.requires_grad]
    assert names and all("lora_" in n for n in names)
    assert has_lora(policy)
    with pytest.raises(ValueError, match="carries a LoRA already"):
        add_lora(policy, rank=4, alpha=8)


def test_lora_initialisation_follows_the_seed():
    states = []
    for seed in (0, 0, 1):
        policy = adapt(tiny_sd3())
        add_lora(policy, rank=4, alpha=8, seed=seed)
        states.append(trainable_state(policy))
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert any(not torch.equal(states[0][n], states[2][n]) for n in states[0])


@pytest.mark.parametrize(("build", "pipeline"), BUILDS)
@pytest.mark.parametrize("alpha", [4, 16])  # alpha != rank is the case that goes wrong without metadata
def test_saved_lora_reloads_in_plain_diffusers_at_the_same_strength(build, pipeline, alpha, tmp_path):
    policy = adapt(build())
    add_lora(policy, rank=4, alpha=alpha)
    disturb(policy)
    expected = images(policy)
    save_trained(policy, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    fresh = build()
    assert type(fresh) is pipeline
    fresh.load_lora_weights(tmp_path)
    torch.testing.assert_close(images(adapt(fresh)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("build", "_"), BUILDS)
def test_a_loaded_lora_goes_on_training(build, _, tmp_path):
    policy = adapt(build())
    add_lora(policy, rank=4, alpha=16)
    disturb(policy)
    save_trained(policy, tmp_path)
    again = adapt(build())
    load_lora(again, tmp_path)
    assert trainable_parameters(again), "a loaded LoRA that stays frozen trains nothing"
    torch.testing.assert_close(images(again), images(policy), rtol=0, atol=1e-6)
    disturb(again)
    assert not torch.allclose(images(again), images(policy), atol=1e-3)
    with pytest.raises(ValueError, match="holds no pytorch_lora_weights"):
        load_lora(adapt(build()), tmp_path / "..")


@pytest.mark.parametrize("build", [tiny_sd, tiny.sdxl, tiny_sd3, tiny.flux])
def test_layers_of_a_text_encoder_are_loaded_frozen_and_saved_again(build, tmp_path):
    first = with_text_encoder_lora(build)
    save_trained(first, tmp_path / "a")
    without_text = adapt(build())
    again = adapt(build())
    before = again.encode(PROMPTS[:1])["prompt_embeds"]
    load_lora(again, tmp_path / "a")
    assert not torch.equal(again.encode(PROMPTS[:1])["prompt_embeds"], before) or build is tiny.flux
    assert not any(p.requires_grad for p in again.pipeline.text_encoder.parameters())
    assert torch.allclose(images(again), images(first), atol=1e-5)
    assert not torch.allclose(images(without_text), images(first), atol=1e-2)
    save_trained(again, tmp_path / "b")  # training goes on from the first file: nothing of it may be lost
    fresh = build()
    fresh.load_lora_weights(tmp_path / "b")
    assert torch.allclose(images(adapt(fresh)), images(first), atol=1e-5)


def saved(build, folder, **options):
    policy = adapt(build())
    add_lora(policy, rank=2, alpha=8, **options)
    disturb(policy)
    return save_trained(policy, folder)


@pytest.mark.parametrize(
    ("made", "used", "words"),
    [
        (tiny_sd, tiny_sd3, "no layers of transformer .SD3Transformer2DModel.; its first is unet.down_blocks.0"),
        (tiny_sd3, tiny_sd, "no layers of unet .UNet2DConditionModel.; its first is transformer.transformer_blocks.0"),
        (tiny.sdxl, tiny_sd, "size mismatch for mid_block.attentions.0"),
    ],
)
def test_a_lora_of_another_model_is_refused_by_name(made, used, words, tmp_path):
    folder = saved(made, tmp_path)
    policy = adapt(used())
    before = images(policy)
    with pytest.raises(ValueError, match=f"does not fit this model: .*{words}"):
        load_lora(policy, folder)
    assert not has_lora(policy) and torch.equal(images(policy), before)


def test_a_lora_of_a_deeper_model_is_refused(tmp_path):
    folder = saved(tiny_sd3, tmp_path)
    policy = adapt(tiny_sd3())
    del policy.denoiser.transformer_blocks[1]
    with pytest.raises(ValueError, match=r"7 of its layers are not in .*; the first is transformer_blocks\.1\.attn"):
        load_lora(policy, folder)


def test_a_file_of_kohya_is_read(tmp_path):
    policy = adapt(tiny.sd())
    state = {}
    for name, module in policy.denoiser.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            key = "lora_unet_" + name.replace(".", "_")
            state[f"{key}.lora_down.weight"] = torch.randn(2, module.in_features)
            state[f"{key}.lora_up.weight"] = torch.randn(module.out_features, 2)
            state[f"{key}.alpha"] = torch.tensor(7.0)
    save_file(state, tmp_path / "style.safetensors")
    before = images(policy)
    load_lora(policy, tmp_path / "style.safetensors")
    assert len(trainable_parameters(policy)) == 2 * len(state) // 3
    assert not torch.allclose(images(policy), before, atol=1e-2)


def test_a_fresh_lora_is_loaded_with_a_warning(tmp_path):
    policy = adapt(tiny_sd3())
    add_lora(policy, rank=2, alpha=8)
    save_trained(policy, tmp_path)
    with pytest.warns(UserWarning, match="changes nothing"):
        load_lora(adapt(tiny_sd3()), tmp_path)


def test_target_modules_that_match_nothing_are_named():
    policy = adapt(tiny_sd3())
    with pytest.raises(ValueError, match="match no module of SD3Transformer2DModel: `to_qq`; did you mean `to_q`"):
        add_lora(policy, rank=2, alpha=8, targets=["to_q", "to_qq"])
    assert not has_lora(policy)
    add_lora(policy, rank=2, alpha=8, targets=["transformer_blocks.0.attn.to_q"])
    assert len(trainable_parameters(policy)) == 2


@pytest.mark.parametrize("build", [tiny_sd, tiny_sd3])
def test_without_lora_is_the_bare_model(build):
    policy = adapt(build())
    bare = images(policy)
    add_lora(policy, rank=2, alpha=8)
    disturb(policy)
    trained = images(policy)
    with pytest.raises(RuntimeError, match="on purpose"), without_lora(policy):
        assert torch.equal(images(policy), bare)
        raise RuntimeError("on purpose")
    assert torch.equal(images(policy), trained) and not torch.equal(trained, bare)


def hunyuan():
    """Its pipeline has no LoRA loader, its denoiser has."""
    pipeline = tiny.hunyuan_image()
    tiny.start_after_template(pipeline)
    return pipeline


@pytest.mark.parametrize("build", [tiny.sd, tiny.sd3, tiny.pixart, hunyuan])
def test_a_saved_lora_is_compared_with_the_trained_one_and_leaves_no_trace(build, tmp_path):
    policy = adapt(build(), height=32, width=32)
    bare = images(policy)
    add_lora(policy, rank=2, alpha=8)
    disturb(policy)
    trained = images(policy)
    save_trained(policy, tmp_path)
    disturb(policy, 0.3)
    moved, names = images(policy), {n for n, p in policy.denoiser.named_parameters() if p.requires_grad}
    assert not torch.allclose(moved, trained, atol=1e-3)
    with saved_lora(policy, tmp_path):
        assert torch.allclose(images(policy), trained, atol=1e-5)
    assert torch.equal(images(policy), moved)
    assert {n for n, p in policy.denoiser.named_parameters() if p.requires_grad} == names
    assert not any("saved" in n for n, _ in policy.denoiser.named_parameters())
    with without_lora(policy):
        assert torch.equal(images(policy), bare)


@pytest.mark.parametrize(
    ("build", "file"), [(tiny.pixart, "adapter_model.safetensors"), (hunyuan, "pytorch_lora_weights.safetensors")]
)
def test_training_goes_on_without_a_loader_of_the_pipeline(build, file, tmp_path):
    first = adapt(build(), height=32, width=32)
    add_lora(first, rank=2, alpha=8)
    disturb(first)
    save_trained(first, tmp_path)
    assert (tmp_path / file).stat().st_mode & 0o077
    again = adapt(build(), height=32, width=32)
    load_lora(again, tmp_path)
    assert torch.allclose(images(again), images(first), atol=1e-6) and trainable_parameters(again)


def test_equal_tensors_give_equal_files_with_the_mode_of_the_umask(tmp_path):
    policy = adapt(tiny_sd())
    add_lora(policy, rank=2, alpha=8)
    mask = os.umask(0o027)
    try:
        paths = [save_trained(policy, tmp_path / str(i)) / "pytorch_lora_weights.safetensors" for i in range(8)]
    finally:
        os.umask(mask)
    assert len({path.read_bytes() for path in paths}) == 1
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o640}
