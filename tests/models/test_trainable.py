"""Full fine-tuning, the reference policy, averaged copies, and what is written to disk."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline

from diffalign.models import (
    Reference,
    WeightCopy,
    adapt,
    add_lora,
    load_trainable_state,
    save_trained,
    train_all,
    trainable_parameters,
    trainable_state,
)
from diffalign.sampling import make_plan, ode, rollout
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


@pytest.mark.parametrize(("build", "_"), BUILDS)
@pytest.mark.parametrize("lora", [True, False])
def test_reference_is_the_policy_before_training(build, _, lora):
    policy = adapt(build())
    before = images(policy)
    if lora:
        add_lora(policy, rank=4, alpha=8)
    else:
        train_all(policy)
    reference = Reference(policy, needed=True)
    disturb(policy)
    trained = images(policy)
    assert not torch.allclose(trained, before, atol=1e-3)
    with reference.active():
        assert torch.equal(images(policy), before)
    assert torch.equal(images(policy), trained)
    with pytest.raises(RuntimeError, match="inside"), reference.active():
        raise RuntimeError("inside")
    assert torch.equal(images(policy), trained)


def test_full_fine_tuning_without_kl_keeps_no_copy():
    policy = adapt(tiny_sd())
    train_all(policy)
    with pytest.raises(ValueError, match="no reference was kept"), Reference(policy, needed=False).active():
        pass


@pytest.mark.parametrize("widened", [False, True])
def test_full_fine_tuning_of_a_half_precision_model_trains_fp32_weights(widened):
    pipeline = tiny_sd3()
    pipeline.transformer.to(torch.bfloat16)
    policy = adapt(pipeline)
    if widened:
        policy.denoiser.float()
    train_all(policy)
    assert {p.dtype for p in trainable_parameters(policy)} == {torch.float32}
    assert policy.dtype == torch.bfloat16 and images(policy).isfinite().all()


def test_full_fine_tuning_saves_a_pipeline_folder(tmp_path):
    policy = adapt(tiny_sd3())
    train_all(policy)
    disturb(policy)
    save_trained(policy, tmp_path)
    loaded = adapt(StableDiffusion3Pipeline.from_pretrained(tmp_path))
    torch.testing.assert_close(images(loaded), images(policy), rtol=0, atol=1e-6)


def test_state_round_trip_and_refusal():
    policy = adapt(tiny_sd3())
    add_lora(policy, rank=4, alpha=8)
    disturb(policy)
    state, kept = trainable_state(policy), images(policy)
    disturb(policy)
    load_trainable_state(policy, state)
    assert torch.equal(images(policy), kept)
    other = adapt(tiny_sd())
    add_lora(other, rank=4, alpha=8)
    with pytest.raises(ValueError, match="another model or configuration"):
        load_trainable_state(other, state)


@pytest.mark.parametrize("lora", [True, False])
def test_a_copy_predicts_inside_and_the_policy_after_it(lora):
    policy = adapt(tiny_sd3())
    if lora:
        add_lora(policy, rank=4, alpha=8.0)
    else:
        train_all(policy)
    copy, before = WeightCopy(policy), images(policy)
    disturb(policy)
    moved = images(policy)
    assert not torch.equal(moved, before)
    with pytest.raises(RuntimeError, match="on purpose"), copy.active():
        assert torch.equal(images(policy), before)
        raise RuntimeError("on purpose")
    assert torch.equal(images(policy), moved)


def test_a_copy_averages_and_comes_back_from_its_state():
    policy = adapt(tiny_sd3())
    add_lora(policy, rank=4, alpha=8.0)
    start = [p.detach().clone() for p in trainable_parameters(policy)]
    copy = WeightCopy(policy)
    disturb(policy)
    now = [p.detach().clone() for p in trainable_parameters(policy)]
    copy.average(0.25)
    assert all(torch.allclose(h, 0.25 * a + 0.75 * b) for h, a, b in zip(copy.weights, start, now, strict=True))
    saved = copy.state_dict()
    assert not copy.equals_policy()
    copy.average(0.0)
    assert copy.equals_policy()
    assert all(torch.equal(h, b) for h, b in zip(copy.weights, now, strict=True))
    copy.load_state_dict(saved)
    assert all(torch.equal(h, s) for h, s in zip(copy.weights, saved, strict=True))
    assert not torch.equal(saved[0], now[0])
    with pytest.raises(ValueError, match="do not fit"):
        copy.load_state_dict(saved[1:])
