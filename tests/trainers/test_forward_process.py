"""DiffusionNFT and AWM as trainers: gradients by hand, the old policy, levels and noise, resume, refusals."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from diffalign.models import adapt
from diffalign.trainers import NFTTrainer, preflight
from diffalign.trainers.forward_process import levels
from diffalign.trainers.run.distilled import sign_of_distillation
from tests.tiny_pipelines import tiny_sd, tiny_sd3
from tests.trainers.small_runs import disturb, events, gap, gradient, same, snapshot

NFT = {"method": "nft", "sde_type": "ode", "num_inference_steps": 4}
AWM = {"method": "awm", "sde_type": "ode", "num_inference_steps": 4, "epsilon": 1.0}


def with_rewards(batch, values):
    return dataclasses.replace(batch, rewards={"redness": torch.tensor(values)})


def velocity(trainer, micro, k, x):
    """The conditional branch, called directly on the model."""
    t = micro.trajectory.plan.dynamics.schedule.timestep[k]
    prompts = [micro.trajectory.prompts[int(i)] for i in micro.trajectory.prompt_id]
    return trainer.policy.predict(x, t, trainer.policy.encode(prompts))


def points(trainer, batch, monkeypatch):
    """Every (micro-batch, x, k, noise, x0) that the trainer noises in one pass, by looking over its shoulder."""
    seen = []
    original = type(trainer)._point

    def spy(self, trajectory, k, draw):
        found = original(self, trajectory, k, draw)
        seen.append((trajectory, found))
        return found

    monkeypatch.setattr(type(trainer), "_point", spy)
    return seen


def test_nft_takes_the_signed_step_that_its_paper_derives(make, monkeypatch):
    """At the old policy dL/dv = A 2 t (v - u) / (D mean|v - u|), A the clipped advantage."""
    trainer = make(**NFT, scale_rewards="none")
    disturb(trainer)
    trainer.old.average(0.0)
    batch = with_rewards(trainer.collect(0), [1.0, 2.0, 3.0, 6.0, 0.0, 2.0, 0.0, 0.0])
    seen = points(trainer, batch, monkeypatch)
    found = gradient(trainer, batch)
    advantages = torch.tensor([-2, -1, 0, 3, -0.5, 1.5, -0.5, -0.5])
    micros = {id(m.trajectory): m for m in batch.mine.values()}
    assert len(seen) == 2 * 4
    for trajectory, point in seen:
        micro = micros[id(trajectory)]
        v = velocity(trainer, micro, point.k, point.x)
        miss = (v - (point.noise - point.x0)).detach()
        size = miss.abs().mean((1, 2, 3))
        factor = advantages[micro.rows] * 2 * point.t / (miss[0].numel() * size)
        (v * miss * factor.view(-1, 1, 1, 1)).sum().div(8 * 4).backward()
    expected = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainer.parameters]
    assert gap(found, expected) < 1e-4


def test_awm_is_signed_flow_matching_in_its_first_update(make, monkeypatch):
    trainer = make(**AWM, scale_rewards="none", awm_weighting="uniform", advantage_clip=4.0)
    disturb(trainer)
    batch = with_rewards(trainer.collect(0), [1.0, 2.0, 3.0, 6.0, 0.0, 2.0, 0.0, 0.0])
    seen = points(trainer, batch, monkeypatch)
    found = gradient(trainer, batch)
    advantages = torch.tensor([-2, -1, 0, 3, -0.5, 1.5, -0.5, -0.5]) / 4
    micros = {id(m.trajectory): m for m in batch.mine.values()}
    for trajectory, point in seen:
        micro = micros[id(trajectory)]
        v = velocity(trainer, micro, point.k, point.x)
        error = ((v - (point.noise - point.x0)) ** 2).mean((1, 2, 3))
        (advantages[micro.rows] * error).sum().div(8 * 4).backward()
    expected = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainer.parameters]
    assert gap(found, expected) < 1e-4


def test_images_are_noised_to_the_level_that_the_network_is_told(make, monkeypatch):
    trainer = make(**NFT)
    batch = trainer.collect(0)
    seen = points(trainer, batch, monkeypatch)
    gradient(trainer, batch)
    for trajectory, point in seen:
        t = point.t.view(-1, 1, 1, 1)
        assert torch.allclose(point.x, (1 - t) * trajectory.x + t * point.noise, atol=1e-6)
        assert torch.allclose(trajectory.plan.dynamics.schedule.timestep[point.k], 1000 * point.t, atol=1e-3)
        assert not torch.equal(point.noise[0], point.noise[1])


@pytest.mark.parametrize("method", [NFT, AWM], ids=["nft", "awm"])
def test_micro_batches_and_order_change_nothing(make, method):
    found = []
    for size in (8, 2):
        trainer = make(**method, per_device_train_batch_size=size, name=f"size{size}")
        disturb(trainer)
        found.append(gradient(trainer, trainer.collect(0)))
    assert gap(*found) < 1e-4


def test_nft_samples_from_the_old_policy_and_awm_from_its_own(make):
    plain = make(**NFT, name="plain").collect(0).rewards["redness"]
    for keys, kept in ((NFT, True), (AWM, False)):
        trainer = make(**keys, name=keys["method"])
        disturb(trainer, 0.3)
        assert torch.equal(trainer.collect(0).rewards["redness"], plain) is kept


def test_the_old_policy_follows_once_per_rollout(make, folder):
    trainer = make(**NFT, old_decay=0.9, old_decay_rate=0.25, old_decay_start=1, max_train_steps=4)
    start = [p.detach().clone() for p in trainer.parameters]
    after = []
    average = trainer.old.average
    trainer.old.average = lambda decay: (after.append(decay), average(decay))
    trainer.train()
    assert after == [0.25, 0.75], "steps 2 and 4"
    assert not any(torch.equal(h, p) for h, p in zip(trainer.old.weights, trainer.parameters, strict=True) if h.any())
    assert not all(torch.equal(h, s) for h, s in zip(trainer.old.weights, start, strict=True))
    assert [line["distance/old"] > 0 for line in events(folder)] == [False, True, True, True]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((0.0, 0.001, 0), [0.0, 0.0, 0.0, 0.0]),
        ((0.5, 0.001, 0), [0.0, 0.074, 0.2, 0.5]),
        ((0.999, 0.0075, 75), [0.0, 0.0, 0.9375, 0.999]),
    ],
)
def test_the_three_released_schedules_of_the_old_policy(make, settings, expected):
    names = ("old_decay", "old_decay_rate", "old_decay_start")
    args = make(**NFT, **dict(zip(names, settings, strict=True))).args
    assert [args.decay_at(step) for step in (0, 74, 200, 1000)] == pytest.approx(expected)


def test_awm_ratios_are_taken_to_the_weights_that_sampled(make, folder):
    make(**AWM, num_iterations=2, learning_rate=3e-2, max_train_steps=4).train()
    lines = events(folder)
    assert [line["dlogp"] > 0 for line in lines] == [False, True, True, True]
    assert "forward/old" not in lines[0] and lines[1]["forward/old"] == lines[1]["forward/train"]


def test_a_narrow_clip_holds_awm_after_its_first_update(make, folder):
    keys = {**AWM, "epsilon": 1e-6, "num_iterations": 3, "updates_per_rollout": 1, "adam_beta1": 0.0}
    trainer = make(**keys, max_train_steps=3, learning_rate=3e-2, adam_weight_decay=0.0)
    trainer.train()
    wide = make(**{**keys, "epsilon": 1.0}, max_train_steps=3, learning_rate=3e-2, name="wide")
    wide.train()
    narrow, free = (events(folder), events(folder.parent / "wide"))
    assert narrow[0]["grad_norm"] == pytest.approx(free[0]["grad_norm"], rel=1e-3)
    assert narrow[1]["grad_norm"] < free[1]["grad_norm"]


@pytest.mark.parametrize("key", ["beta", "beta_old"])
def test_pulls_towards_the_reference_and_the_old_policy(make, folder, key):
    def constant(images, prompts, metadata):
        return torch.zeros(len(images))

    keys = {**AWM, key: 1.0, "learning_rate": 3e-3, "adam_weight_decay": 0.0, "old_decay": 0.99}
    trainer = make(rewards=constant, **keys, old_decay_rate=10.0, max_train_steps=12)
    disturb(trainer)
    trainer.train()
    seen = [line["kl" if key == "beta" else "distance/old"] for line in events(folder)]
    assert seen[0] > 0 and sum(seen[-2:]) < 0.6 * sum(seen[:2]), seen


@pytest.mark.parametrize("method", [{**NFT, "beta": 0.01}, {**AWM, "beta_old": 0.5}], ids=["nft", "awm"])
def test_a_resumed_run_is_the_uninterrupted_one(make, method):
    whole = make(**method, max_train_steps=4, name="whole")
    whole.train()
    make(**method, max_train_steps=2, name="half").train()
    rest = make(**method, max_train_steps=4, name="half")
    rest.train(resume_from_checkpoint="latest")
    assert same(snapshot(whole), snapshot(rest))
    assert all(torch.equal(a, b) for a, b in zip(whole.old.weights, rest.old.weights, strict=True))


@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "full"])
@pytest.mark.parametrize("method", [{**NFT, "beta": 0.1, "guidance_scale": 2.0}, {**AWM, "beta_old": 1.0}])
def test_a_sound_run_passes_the_preflight(make, method, rank):
    checks = preflight(make(**method, lora_r=rank), full=True)
    assert [check for check in checks if not check.passed] == []
    assert "the old policy starts as the policy" in [check.name for check in checks]


def test_samples_without_a_score_leave_numerator_and_denominator(make):
    trainer = make(**AWM, scale_rewards="none", per_device_train_batch_size=8, updates_per_rollout=1)
    disturb(trainer)
    batch = trainer.collect(0)
    values = [1.0, math.nan, 3.0, 6.0, 0.0, 2.0, 0.0, 0.0]
    found = gradient(trainer, with_rewards(batch, values))
    same_mean = [1.0, 10 / 3, 3.0, 6.0, 0.0, 2.0, 0.0, 0.0]  # advantage 0 instead of no score
    other = gradient(trainer, with_rewards(batch, same_mean))
    assert gap([7 * g for g in found], [8 * g for g in other]) < 1e-4


def test_levels_are_strata_of_the_first_part_or_a_random_choice(make):
    args = make(**{**AWM, "num_inference_steps": 10}, train_timesteps=3, timestep_fraction=0.9).args
    strata = levels(args, 0, range(200), [0] * 200)
    for column, allowed in enumerate(([0, 1, 2], [3, 4, 5], [6, 7, 8])):
        assert set(strata[:, column].tolist()) == set(allowed)
    drawn = levels(
        dataclasses.replace(args, timestep_selection="random", train_timesteps=None), 0, range(200), [0] * 200
    )
    assert drawn.shape == (200, 9) and all(len(set(row)) == 9 for row in drawn.tolist())
    assert set(drawn.flatten().tolist()) == set(range(10))
    one = levels(args, 0, [7], [1])
    assert torch.equal(levels(args, 0, [3, 7], [0, 1])[1:], one), "a sample's levels do not depend on its companions"
    later = levels(args, 1, range(200), [0] * 200)
    assert not torch.equal(later, strata) and not torch.equal(levels(args, 0, range(200), [1] * 200), strata)


def test_only_flow_models(make):
    with pytest.raises(ValueError, match="nft is for flow models; this one predicts epsilon"):
        make(tiny_sd(), **NFT)


@pytest.mark.parametrize("name", ["stabilityai/sdxl-turbo", "black-forest-labs/FLUX.1-schnell", "x/SD3-Lightning"])
def test_a_distilled_model_is_warned_about(make, name):
    pipeline = tiny_sd3()
    pipeline.register_to_config(_name_or_path=name)
    with pytest.warns(UserWarning, match="few-step distilled model"):
        make(pipeline, **NFT)


def test_other_models_are_not(make, recwarn):
    pipeline = tiny_sd3()
    pipeline.register_to_config(_name_or_path="stabilityai/stable-diffusion-3.5-medium")
    assert isinstance(make(pipeline, **NFT), NFTTrainer)
    assert not [w for w in recwarn if "distilled" in str(w.message)]
    assert sign_of_distillation(adapt(tiny_sd3())) is None
