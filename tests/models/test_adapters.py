"""The rollout against the plain diffusers call, and the adapter's contracts."""

from __future__ import annotations

import pytest
import torch
from diffusers import PNDMScheduler
from diffusers.guiders import AdaptiveProjectedMixGuidance

from diffalign.models import adapt, load_policy, prompt_cache
from diffalign.sampling import Policy, ddim, make_plan, ode, rollout
from tests.models import tiny
from tests.tiny_pipelines import tiny_sd, tiny_sd3

PROMPTS = ["a photo of a red circle", "two blue square"]
SEEDS = [11, 12]


def plain_call(pipeline, guidance, steps, **extra):
    generators = [torch.Generator("cpu").manual_seed(s) for s in SEEDS]
    pipeline.set_progress_bar_config(disable=True)
    out = pipeline(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generators,
        output_type="pt",
        negative_prompt=[""] * len(PROMPTS),
        **extra,
    )
    return out.images


@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize("steps", [1, 4, 10])
@pytest.mark.parametrize(
    "scheduler",
    [
        {"shift": 1.0},
        {"shift": 3.0},
        {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64},
    ],
)
def test_flow_rollout_is_the_plain_sd3_call(guidance, steps, scheduler):
    policy = adapt(tiny_sd3(**scheduler))
    images = rollout(policy, make_plan(ode(policy.schedule(steps)), guidance=guidance), PROMPTS, SEEDS).images
    theirs = plain_call(policy.pipeline, guidance, steps, max_sequence_length=policy.max_sequence_length)
    assert float((images - theirs).abs().max()) <= 1e-5


@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("steps", [1, 7, 20])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_ddim_rollout_is_the_plain_sd_call(guidance, steps, prediction, spacing):
    policy = adapt(tiny_sd(prediction_type=prediction, timestep_spacing=spacing))
    images = rollout(policy, make_plan(ddim(policy.schedule(steps), 0), guidance=guidance), PROMPTS, SEEDS).images
    assert float((images - plain_call(policy.pipeline, guidance, steps)).abs().max()) <= 1e-5


@pytest.mark.parametrize("build", [tiny_sd3, tiny_sd])
def test_prompts_matter_and_are_encoded_alone(build):
    policy = adapt(build())
    assert isinstance(policy, Policy)
    together, single = policy.encode(PROMPTS), adapt(build()).encode(PROMPTS[1:])
    for name in single:
        assert torch.equal(together[name][1:], single[name])
    plan = make_plan(ode(policy.schedule(4)))
    images = rollout(policy, plan, PROMPTS, [5, 5]).images
    assert float((images[0] - images[1]).abs().max()) > 1e-4


def test_an_encoder_runs_once_per_prompt():
    policy = adapt(tiny_sd())
    calls = []
    policy.pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        policy.encode(["a photo of a red circle", "a photo of a blue square", "a photo of a red circle"])
    assert len(calls) == 2


def test_only_the_denoiser_may_train_and_nothing_does_at_first():
    for build in (tiny_sd3, tiny_sd):
        policy = adapt(build())
        modules = [policy.denoiser, *policy.frozen_modules()]
        assert len(modules) >= 3
        assert not any(p.requires_grad for m in modules for p in m.parameters())
        assert not any(m.training for m in modules)


def test_decode_is_differentiable_and_bounded():
    policy = adapt(tiny_sd3())
    latents = torch.randn(2, *policy.latent_shape, requires_grad=True)
    images = policy.decode(latents)
    assert images.shape == (2, 3, 32, 32) and 0 <= float(images.detach().min()) and float(images.detach().max()) <= 1
    (grad,) = torch.autograd.grad(images.sum(), latents)
    assert float(grad.abs().sum()) > 0


def test_meter_counts_images_by_phase():
    policy = adapt(tiny_sd3())
    policy.denoiser.requires_grad_(True)
    cond, x, t = policy.encode(PROMPTS), torch.randn(2, *policy.latent_shape), torch.full((2,), 500.0)
    with policy.meter.phase("rollout"), torch.no_grad():
        policy.predict(x, t, cond)
        policy.predict(x, t, cond)
    with policy.meter.phase("train"):
        policy.predict(x, t, cond).sum().backward()
    assert policy.meter.drain() == {"forward/rollout": 4, "forward/train": 2, "backward/train": 2}
    assert policy.meter.drain() == {}


def test_an_unreadable_scheduler_is_replaced_for_sampling_alone(tmp_path):
    pipeline = tiny_sd()
    pipeline.scheduler = PNDMScheduler.from_config(pipeline.scheduler.config, skip_prk_steps=True)
    with pytest.warns(UserWarning, match="PNDMScheduler .* DDIMScheduler"):
        policy = adapt(pipeline)
    assert policy.schedule(4).num_steps == 4 and policy.own_dynamics(4).name == "ode"
    policy.pipeline.save_pretrained(tmp_path)
    assert type(type(pipeline).from_pretrained(tmp_path).scheduler) is PNDMScheduler


def test_settings_that_no_table_reproduces_are_announced():
    with pytest.warns(UserWarning, match="thresholding of DDIMScheduler"):
        policy = adapt(tiny_sd(thresholding=True))
    assert policy.own_dynamics(3).name == "ode"


def test_resolution_changes_the_latents():
    policy = adapt(tiny_sd3(), resolution=16)
    assert policy.latent_shape == (4, 4, 4)
    plan = make_plan(ode(policy.schedule(2)))
    assert rollout(policy, plan, PROMPTS, SEEDS).images.shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match="height 30 must be a multiple of 8 .* nearest is 32"):
        adapt(tiny_sd3(), resolution=30)


def test_unknown_models_and_families(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="no model_index.json"):
        load_policy(str(tmp_path))
    with pytest.raises(ValueError, match="not a shipped checkpoint"):
        load_policy("shapes-flaw")

    class OtherPipeline:
        pass

    with pytest.raises(
        ValueError, match=r"no adapter for OtherPipeline.*StableDiffusion3Pipeline, .*one file in diffalign/models"
    ):
        adapt(OtherPipeline())
    with pytest.raises(ValueError, match="max_sequence_length"):
        adapt(tiny_sd(), max_sequence_length=16)
    with pytest.raises(ValueError, match="no option heigth; did you mean `height`.*valid: .*latent_dtype"):
        adapt(tiny_sd3(), heigth=32)
    with pytest.raises(ValueError, match="takes no guidance as an input"):
        adapt(tiny_sd(), embedded_guidance=3.5)
    with pytest.raises(ValueError, match="makes single images"):
        adapt(tiny_sd(), frames=5)
    with pytest.raises(ValueError, match=r"use diffalign\.models\.adapt"):
        load_policy(tiny_sd())


def test_pipelines_that_lack_a_piece_or_want_an_image():
    missing = tiny_sd()
    missing.text_encoder = None
    with pytest.raises(ValueError, match="has no text_encoder"):
        adapt(missing)
    missing = tiny_sd3()
    missing.vae = None
    with pytest.raises(ValueError, match="has no vae"):
        adapt(missing)
    inpainting = tiny_sd()
    inpainting.unet.register_to_config(in_channels=9)
    with pytest.raises(ValueError, match="takes 9 channels and the VAE has 4"):
        adapt(inpainting)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_guidance_of_one_or_less_is_the_conditional_branch_as_in_diffusers(scale):
    policy = adapt(tiny_sd3())
    images = rollout(policy, make_plan(ode(policy.schedule(3)), guidance=scale), PROMPTS, SEEDS).images
    theirs = plain_call(policy.pipeline, scale, 3, max_sequence_length=policy.max_sequence_length)
    assert float((images - theirs).abs().max()) <= 1e-5


def test_storage_and_weights_may_have_dtypes_of_their_own(tmp_path):
    tiny_sd3().save_pretrained(tmp_path)
    half = load_policy(str(tmp_path), dtype=torch.bfloat16)
    assert half.dtype == half.denoiser.dtype == torch.bfloat16
    mixed = load_policy(str(tmp_path), dtype=torch.bfloat16, denoiser_dtype=torch.float32)
    assert mixed.dtype == mixed.denoiser.dtype == torch.float32 and mixed.pipeline.vae.dtype == torch.bfloat16
    wide = load_policy(str(tmp_path), dtype=torch.bfloat16, latent_dtype=torch.float32)
    assert wide.dtype == torch.float32 and wide.denoiser.dtype == torch.bfloat16
    assert rollout(wide, make_plan(ode(wide.schedule(2))), PROMPTS, SEEDS).x.dtype == torch.float32


@pytest.mark.parametrize("build", [tiny_sd3, tiny_sd])
def test_encoding_is_the_inverse_of_what_decoding_does_to_latents(build):
    policy = adapt(build())
    images = torch.rand(2, *policy.image_shape)
    latents = policy.encode_images(images)
    assert latents.shape == (2, *policy.latent_shape) and torch.equal(latents, policy.encode_images(images))
    drawn = [policy.encode_images(images, sample=True, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    raw = policy.pipeline.vae.encode(images * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(policy._denormalised(latents), raw, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="the policy draws"):
        policy.encode_images(images[:, :, :8])


def test_the_prompt_cache_is_bounded_in_bytes(monkeypatch):
    policy = adapt(tiny_sd())
    row = sum(v.numel() * v.element_size() for v in policy.encode(PROMPTS[:1]).values())
    monkeypatch.setattr(prompt_cache, "PROMPT_CACHE_BYTES", 2 * row)
    calls = []
    policy.pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    for prompt in ("a red circle", "a blue circle", "a green circle", "a blue circle"):
        policy.encode([prompt])
    assert len(calls) == 3
    policy.cache_prompts(["a", "b", "c", "d"])
    assert len(calls) == 3, "the cache is full"


def test_rows_of_unequal_length_are_padded_at_the_end():
    short = {"text": torch.ones(1, 2, 3), "mask": torch.ones(1, 2, dtype=torch.bool), "pooled": torch.ones(1, 4)}
    long = {"text": torch.ones(1, 5, 3), "mask": torch.ones(1, 5, dtype=torch.bool), "pooled": torch.ones(1, 4)}
    found = prompt_cache.stacked([short, long])
    assert found["text"].shape == (2, 5, 3) and found["text"].sum(dim=(1, 2)).tolist() == [6, 15]
    assert found["mask"].tolist() == [[True] * 2 + [False] * 3, [True] * 5]


def test_a_saved_folder_loads_as_the_same_policy(tmp_path):
    first = adapt(tiny_sd3())
    first.pipeline.save_pretrained(tmp_path)
    second = load_policy(str(tmp_path))
    plan = make_plan(ode(first.schedule(3)))
    assert torch.equal(rollout(first, plan, PROMPTS, SEEDS).images, rollout(second, plan, PROMPTS, SEEDS).images)


def test_guidance_on_a_model_without_an_unconditional_branch_is_refused():
    policy = adapt(tiny.flux2(), height=32, width=32)
    assert policy.embedded_guidance == 4.0, "the default of the pipeline's call"
    with pytest.raises(ValueError, match=r"no unconditional branch .its embedded_guidance is 4"):
        rollout(policy, make_plan(ode(policy.schedule(2)), guidance=3.0), PROMPTS, SEEDS)
    with pytest.raises(ValueError, match="knows no negative prompt"):
        adapt(tiny.klein(), height=32, width=32).encode(["blue"], negative=True)


def test_sizes_that_the_pipeline_would_change_are_refused():
    kandinsky, hidream = tiny.kandinsky5(), tiny.hidream()
    tiny.two_sizes(kandinsky)
    tiny.smaller_area(hidream)
    with pytest.raises(ValueError, match="32 x 32 is not one of this model's sizes: 32 x 48, 64 x 32, 1024 x 1024"):
        adapt(kandinsky, height=32, width=32)
    with pytest.raises(ValueError, match="16 x 32: the pipeline would draw 16 x 40"):
        adapt(hidream, height=16, width=32)


def test_guidance_that_depends_on_earlier_steps_is_announced():
    guided = tiny.hunyuan_image(guider=AdaptiveProjectedMixGuidance())
    with pytest.warns(UserWarning, match="linear guidance at the guidance scale instead"):
        adapt(guided, height=32, width=32)
    with pytest.raises(ValueError, match="time of the next step"):
        adapt(tiny.hunyuan_image(use_meanflow=True), height=32, width=32)


def test_videos_have_frames_of_a_legal_number():
    assert adapt(tiny.wan(), height=32, width=32, frames=5).image_shape == (5, 3, 32, 32)
    with pytest.raises(ValueError, match="frames = 4 must be 1 more than a multiple of 4; the nearest is 5"):
        adapt(tiny.wan(), height=32, width=32, frames=4)
    with pytest.raises(ValueError, match=r"Wan 2\.2"):
        adapt(tiny.wan(boundary_ratio=0.9), height=32, width=32)
