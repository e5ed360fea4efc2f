"""Every family against its plain pipeline: images, replay, gradients, LoRA."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from torch.utils.checkpoint import checkpoint

from diffalign.models import adapt, add_lora, save_trained, trainable_parameters
from diffalign.models.families import families
from diffalign.models.selfcheck import LIMIT, PipelineNoise, plain_call_gap
from diffalign.sampling import ddim, flow_sde, make_plan, replay, rollout
from tests.models.matrix import MATRIX

PROMPTS = ["a red circle", "a photo of two blue square and a green triangle left of three red cross"]
SEEDS = [11, 12]
ROWS = pytest.mark.parametrize("name", MATRIX)
MAIN_ROWS = pytest.mark.parametrize("name", [name for name, row in MATRIX.items() if not row.variant])


def adapted(pipeline, name, size=0):
    row = MATRIX[name]
    height, width = row.sizes[size]
    return adapt(pipeline, height=height, width=width, **row.options)


def our_images(policy, steps, scale, negative=""):
    plan = make_plan(policy.own_dynamics(steps), guidance=scale, record=[])
    noise = PipelineNoise(policy.latent_shape, SEEDS)
    with torch.no_grad():
        return rollout(policy, plan, PROMPTS, SEEDS, negative_prompt=negative, noise=noise).images


def their_images(policy, row, scale, negative=""):
    """One prompt a call: what a prompt gives must not depend on its companions."""
    arguments = policy.call_arguments(scale, negative) | row.call
    images = []
    for prompt, seed in zip(PROMPTS, SEEDS, strict=True):
        generator = torch.Generator().manual_seed(seed)
        out = policy.pipeline(
            prompt=prompt, num_inference_steps=row.steps, generator=generator, output_type="pt", **arguments
        )
        images.append(out[0])
    found = torch.cat(images)
    return found if len(policy.image_shape) == found.dim() - 1 else found[:, 0]  # a video of one frame


def test_every_family_has_a_row(shared):
    covered = {type(shared(name)).__name__ for name in MATRIX}
    assert covered == set(families())


@ROWS
@pytest.mark.parametrize(("size", "guided"), [(0, False), (0, True), (1, True)])
def test_roll_out_is_the_plain_call(name, size, guided, shared):
    row = MATRIX[name]
    negative = row.negative if size else ""
    if guided and row.scale is None:
        pytest.skip("no unconditional branch")
    policy = adapted(shared(name), name, size)
    scale = row.scale if guided else 1.0
    ours, theirs = our_images(policy, row.steps, scale, negative), their_images(policy, row, scale, negative)
    assert ours.shape[1:] == policy.image_shape == theirs.shape[1:]
    assert float((ours - theirs).abs().max()) <= 1e-4
    assert float((ours[0] - ours[1]).abs().max()) > 1e-3, "the prompt does not matter"
    if guided:
        assert float((ours - our_images(policy, row.steps, 1.0)).abs().max()) > 1e-3, "guidance does not matter"


@MAIN_ROWS
def test_half_precision_differs_by_rounding_alone(name, reloaded):
    row, pipeline = MATRIX[name], reloaded(name, torch.bfloat16)
    policy = adapted(pipeline, name)
    gap = plain_call_gap(policy, PROMPTS[0], seed=3, guidance=row.scale or 1.0)
    assert policy.denoiser.dtype == torch.bfloat16 and 0 < gap.mean < LIMIT


@MAIN_ROWS
def test_replay_has_ratio_one(name, shared):
    """Steps with and without guidance, one step for all samples and one for each."""
    row, policy = MATRIX[name], adapted(shared(name), name)
    schedule = policy.schedule(4)
    scale = row.scale or 1.0
    table = flow_sde(schedule, 0.7) if schedule.is_flow else ddim(schedule, 1.0)
    with torch.no_grad():
        trajectory = rollout(policy, make_plan(table, guidance=[scale, 1.0, scale, scale]), PROMPTS * 2, [1, 2, 3, 4])
        for k in trajectory.steps:
            assert torch.equal(replay(policy, trajectory, k).log_prob, trajectory.log_probs[k])
        k = torch.tensor([0, 1, 2, 1])
        mixed = replay(policy, trajectory, k).log_prob
    recorded = torch.stack([trajectory.log_probs[int(step)][i] for i, step in enumerate(k)])
    assert float((mixed - recorded).abs().max()) <= 1e-6


@MAIN_ROWS
def test_images_have_a_gradient_in_latents_and_encode_back(name, shared):
    policy = adapted(shared(name), name)
    latents = torch.randn(1, *policy.latent_shape, requires_grad=True)
    images = policy.decode(latents)
    assert tuple(images.shape) == (1, *policy.image_shape)
    (grad,) = torch.autograd.grad(images.sum(), latents)
    assert float(grad.abs().sum()) > 0
    assert policy.encode_images(images.detach()).shape == latents.shape
    torch.testing.assert_close(policy._normalised(policy._denormalised(latents)), latents, rtol=1e-4, atol=1e-4)


@MAIN_ROWS
def test_a_saved_lora_gives_the_same_images_in_a_plain_pipeline(name, reloaded, tmp_path):
    policy = adapted(reloaded(name), name)
    before = our_images(policy, 2, 1.0)
    add_lora(policy, rank=2, alpha=7.0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trainable_parameters(policy):
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    trained = our_images(policy, 2, 1.0)
    assert float((trained - before).abs().max()) > 1e-3
    save_trained(policy, tmp_path)
    plain = reloaded(name)
    if hasattr(plain, "load_lora_weights"):
        plain.load_lora_weights(tmp_path)
    elif hasattr(plain.transformer, "load_lora_adapter"):
        plain.transformer.load_lora_adapter(tmp_path, prefix=None, use_safetensors=True)
    else:
        PeftModel.from_pretrained(plain.transformer, tmp_path)
    assert float((our_images(adapted(plain, name), 2, 1.0) - trained).abs().max()) <= 1e-5


@MAIN_ROWS
def test_gradient_checkpointing_changes_nothing(name, reloaded):
    policy = adapted(reloaded(name), name)
    if not policy.checkpointing:
        pytest.skip("the family says that it does")
    add_lora(policy, rank=2, alpha=7.0)
    cond, x = policy.encode(PROMPTS), torch.randn(2, *policy.latent_shape)
    t = policy.schedule(4).timestep[1].expand(2)

    def gradients():
        value = policy.predict(x, t, cond)
        return value.detach(), torch.autograd.grad(value.square().sum(), trainable_parameters(policy))

    blocks = []

    def counted(block, *arguments, **options):
        blocks.append(block)
        return checkpoint(block, *arguments, use_reentrant=False, **options)

    value, plain = gradients()
    policy.denoiser.enable_gradient_checkpointing(counted)
    again, checked = gradients()
    assert blocks, "nothing was recomputed"
    torch.testing.assert_close(again, value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(checked, plain, rtol=1e-4, atol=1e-6)
