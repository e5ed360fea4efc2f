"""Noising, predictions at levels of their own, and schedules with fewer steps at the tail."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from diffalign.sampling import (
    encode_prompts,
    flow_schedule,
    from_scheduler,
    make_plan,
    noised,
    ode,
    rollout,
    shifted_sigmas,
    skip_tail_steps,
)
from diffalign.sampling.forward_process import denoise

FOUR = flow_schedule([1.0, 0.75, 0.5, 0.25, 0.0])


def test_each_sample_is_noised_to_its_own_level():
    x0, noise = torch.full((3, 1, 2, 2), 2.0), torch.full((3, 1, 2, 2), -1.0)
    found = noised(FOUR, torch.tensor([0, 2, 3]), x0, noise)
    assert found[:, 0, 0, 0].tolist() == [-1.0, 0.5, 1.25]


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_prediction_is_guided_as_the_roll_out_at_each_sample_s_own_time(toy, scale):
    plan = make_plan(ode(FOUR), record=[], guidance=scale)
    trajectory = rollout(toy, plan, ["a", "b", "a"], [0, 1, 2])
    x, k = torch.randn(trajectory.x.shape), torch.tensor([3, 0, 1])
    together = denoise(toy, plan, trajectory.conditioning, k, x)
    for row in range(3):
        cond = {name: value[trajectory.prompt_id[row]][None] for name, value in trajectory.conditioning.cond.items()}
        alone = toy.predict(x[row : row + 1], FOUR.timestep[k[row]][None], cond)
        if scale != 1:
            free = toy.predict(x[row : row + 1], FOUR.timestep[k[row]][None], trajectory.conditioning.uncond)
            alone = 3 * alone - 2 * free
        assert torch.allclose(together[row : row + 1], alone, atol=1e-5)


@pytest.mark.parametrize("both", [True, False])
def test_both_branches_carry_the_graph_unless_one_is_left_out_by_name(toy, both):
    """d(3 c - 2 u) = 3 dc - 2 du; the cheap form drops the second term, and every value stays."""
    plan = make_plan(ode(FOUR), record=[], guidance=3.0, **({} if both else {"uncond_grad": False}))
    conditioning = encode_prompts(toy, ["a", "b"])
    x, k, weights = torch.randn(2, *toy.latent_shape), torch.tensor([1, 2]), list(toy.net.parameters())
    found = torch.autograd.grad(denoise(toy, plan, conditioning, k, x).square().sum(), weights)
    t, (cond, uncond) = FOUR.timestep[k], conditioning.rows()
    free = toy.predict(x, t, uncond)
    value = 3 * toy.predict(x, t, cond) - 2 * (free if both else free.detach())
    torch.testing.assert_close(found, torch.autograd.grad(value.square().sum(), weights))


def test_compression_leaves_the_window_and_ends_where_the_schedule_ends():
    whole = flow_schedule(shifted_sigmas(25, 3.0))
    few = skip_tail_steps(whole, 4, 0.4)
    assert few.num_steps == 4 + 9  # 40 % of 21 steps, rounded up
    assert torch.equal(few.sigma[:5], whole.sigma[:5]) and torch.equal(few.timestep[:4], whole.timestep[:4])
    assert few.sigma[-1] == 0 and few.alpha[-1] == 1
    kept = set(whole.sigma.tolist())
    assert all(level in kept for level in few.sigma.tolist())
    assert torch.allclose(few.timestep, 1000 * few.sigma[:-1].float())


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_one_remaining_step_still_reaches_the_image(after):
    """Released code lays out linspace(t, 0, n) for n steps; with n = 1 that is t alone, and the image stays noise."""
    found = skip_tail_steps(FOUR, after, 0.01)
    assert found.sigma[-1] == 0 and found.num_steps == min(after + 1, 4)
    released = torch.linspace(float(FOUR.sigma[after]), 0, 1)
    assert released[-1] == FOUR.sigma[after]


def test_a_whole_fraction_changes_nothing():
    found = skip_tail_steps(FOUR, 1, 1.0)
    assert torch.equal(found.sigma, FOUR.sigma) and torch.equal(found.timestep, FOUR.timestep)


def test_what_a_schedule_carries_survives_skipping():
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(7)
    whole = replace(from_scheduler(scheduler), initial=0.5)
    few = skip_tail_steps(whole, 3, 0.5)
    assert few.initial == 0.5 and few.num_steps == 5
    assert torch.equal(few.next_sigma[:3], whole.next_sigma[:3]), "a step that is kept ends where it ended"
    assert torch.equal(few.next_sigma[3:4], whole.sigma[5:6]), "a longer one ends at the next level"


@pytest.mark.parametrize(("after", "fraction"), [(5, 0.5), (-1, 0.5), (0, 0.0), (0, 1.5)])
def test_compression_out_of_range_is_refused(after, fraction):
    with pytest.raises(ValueError, match="must lie in"):
        skip_tail_steps(FOUR, after, fraction)
