"""Schedules read from diffusers, and their refusals."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from diffalign.sampling import ddim, flow_schedule, from_scheduler, ode, shifted_sigmas, vp_schedule
from diffalign.sampling.schedule import Schedule

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": False}


def ddim_scheduler(n: int, **config) -> DDIMScheduler:
    scheduler = DDIMScheduler(**{**SD, "steps_offset": 1, "clip_sample": False, **config})
    scheduler.set_timesteps(n)
    return scheduler


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("n", [1, 4, 7, 20, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_steps_equal_the_scheduler_s_own(prediction, n, spacing):
    if spacing == "trailing" and 1000 % n:
        pytest.skip("diffusers' own trailing chain does not meet its next timestep when steps do not divide 1000")
    scheduler = ddim_scheduler(n, prediction_type=prediction, timestep_spacing=spacing)
    schedule = from_scheduler(scheduler)
    x = torch.randn(2, 3, 4, 4)
    for k, t in enumerate(scheduler.timesteps):
        output = torch.randn(2, 3, 4, 4)
        theirs = scheduler.step(output, t, x, eta=0.0).prev_sample
        torch.testing.assert_close(ode(schedule).step(output, k, x).next_x, theirs, rtol=1e-5, atol=1e-5)
        x = theirs


def test_ddim_variance_equals_the_scheduler_s_own():
    scheduler = ddim_scheduler(10)
    schedule, x, output, z = from_scheduler(scheduler), torch.randn(2, 8), torch.randn(2, 8), torch.randn(2, 8)
    for k, t in enumerate(scheduler.timesteps):
        theirs = scheduler.step(output, t, x, eta=1.0, variance_noise=z).prev_sample
        torch.testing.assert_close(ddim(schedule, 1.0).step(output, k, x, noise=z).next_x, theirs, rtol=1e-5, atol=1e-5)


def test_stable_diffusion_s_ddim_does_not_end_at_zero_noise():
    assert float(from_scheduler(ddim_scheduler(20)).sigma[-1]) == pytest.approx(0.0292, abs=1e-4)
    assert float(from_scheduler(ddim_scheduler(20, set_alpha_to_one=True)).sigma[-1]) == 0


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_steps_equal_the_scheduler_s_own(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(6)
    schedule, x = from_scheduler(scheduler), torch.randn(2, 8)
    assert torch.equal(schedule.timestep, scheduler.timesteps)
    for k, t in enumerate(scheduler.timesteps):
        v = torch.randn(2, 8)
        theirs = scheduler.step(v, t, x).prev_sample
        torch.testing.assert_close(ode(schedule).step(v, k, x).next_x, theirs, rtol=1e-5, atol=1e-5)


def test_once_shifted_sigmas():
    grid = shifted_sigmas(16, 3.0)
    assert grid[[0, -1]].tolist() == [1, 0]
    assert grid[[1, -3, -2]].tolist() == pytest.approx([0.978, 0.300, 0.167], abs=5e-4)
    torch.testing.assert_close(shifted_sigmas(5, 1.0), torch.linspace(1, 0, 6, dtype=torch.float64))


def test_variance_preserving_identity():
    schedule = vp_schedule([0.1, 0.5, 0.99], [900, 500], "epsilon")
    torch.testing.assert_close(schedule.alpha**2 + schedule.sigma**2, torch.ones(3, dtype=torch.float64))
    assert not schedule.is_flow and flow_schedule([1, 0.5, 0]).is_flow


def test_refusals():
    with pytest.raises(ValueError, match="set_timesteps"):
        from_scheduler(DDIMScheduler())
    euler = EulerDiscreteScheduler()
    euler.set_timesteps(4)
    with pytest.raises(ValueError, match=r"DDIMScheduler\.from_config"):
        from_scheduler(euler)
    with pytest.raises(ValueError, match="must fall"):
        flow_schedule([0.5, 1.0, 0])
    with pytest.raises(ValueError, match="valid: flow"):
        vp_schedule([0.1, 0.2], [1], "eps")
    with pytest.raises(ValueError, match=r"T\+1"):
        Schedule(torch.ones(3), torch.tensor([1.0, 0.5, 0]), torch.ones(3), "flow")
