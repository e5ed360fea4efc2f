"""Schedules and dynamics read from diffusers' schedulers, against the schedulers' own steps."""

from __future__ import annotations

from inspect import signature

import diffusers as d
import pytest
import torch

from diffalign.sampling import (
    ddim,
    flow_sde,
    from_scheduler,
    noised,
    ode,
    own_dynamics,
    readable,
    shift_mu,
    tcd,
    training_schedule,
    unmatched,
)

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
TRAILING = {**SD, "timestep_spacing": "trailing"}
FLOW_DPM = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
FIRST_ORDER = {"solver_order": 1, "disable_corrector": list(range(100))}


def ddim_scheduler(n: int, **config) -> d.DDIMScheduler:
    scheduler = d.DDIMScheduler(**{**SD, "set_alpha_to_one": False, "clip_sample": False, **config})
    scheduler.set_timesteps(n)
    return scheduler


def network(x, k):
    """Any fixed function of state and step."""
    return 0.4 * torch.sin(2 * x + k) + 0.1


def their_chain(scheduler, shape, seed=0, **options):
    """The pipeline's loop with a generator, and the noise that it drew."""
    generator = torch.Generator().manual_seed(seed)
    if "generator" in signature(scheduler.step).parameters:
        options["generator"] = generator
    x = torch.randn(shape, generator=generator) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for k, t in enumerate(scheduler.timesteps):
        inner = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(inner, k), t, x, return_dict=False, **options)[0]
    return x


def our_chain(table, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, previous = torch.randn(shape, generator=generator) * table.schedule.initial, None
    for k in range(table.num_steps):
        noise = torch.randn(shape, generator=generator) if table.c[k] > 0 else None
        out = table.step(network(x, k), k, x, noise=noise, x0_prev=previous)
        x, previous = out.next_x, out.x0_hat
    return x


@pytest.mark.parametrize("n", [1, 4, 7, 20])
@pytest.mark.parametrize(
    ("scheduler", "config"),
    [
        (d.FlowMatchEulerDiscreteScheduler, {"shift": 3.0}),
        (d.EulerDiscreteScheduler, {**SD, "timestep_spacing": "leading"}),
        (d.EulerDiscreteScheduler, TRAILING),
        (d.EulerDiscreteScheduler, {**SD, "timestep_spacing": "linspace"}),
        (d.EulerDiscreteScheduler, {**TRAILING, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
        (d.EulerDiscreteScheduler, {**TRAILING, "prediction_type": "sample"}),
        (d.EulerDiscreteScheduler, {**SD, "use_karras_sigmas": True}),
        (d.EulerAncestralDiscreteScheduler, TRAILING),
        (d.DPMSolverMultistepScheduler, {}),
        (d.DPMSolverMultistepScheduler, {"final_sigmas_type": "sigma_min"}),
        (d.DPMSolverMultistepScheduler, {"euler_at_final": True, "use_karras_sigmas": True}),
        (d.DPMSolverMultistepScheduler, {"solver_order": 1}),
        (d.DPMSolverMultistepScheduler, FLOW_DPM),
        (d.UniPCMultistepScheduler, FIRST_ORDER),
        (d.UniPCMultistepScheduler, {**FLOW_DPM, **FIRST_ORDER}),
        (d.LCMScheduler, {}),
        (d.TCDScheduler, SD),
    ],
)
def test_own_dynamics_take_the_scheduler_s_steps(scheduler, config, n):
    made = scheduler(**config)
    made.set_timesteps(n)
    table = own_dynamics(made, from_scheduler(made))
    theirs, ours = their_chain(made, (2, 3, 4)), our_chain(table, (2, 3, 4))
    if scheduler in (d.EulerDiscreteScheduler, d.EulerAncestralDiscreteScheduler):
        assert float(made.sigmas[-1]) == 0  # there both sets of variables are one
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=5e-4 * max(1.0, float(theirs.std())))


@pytest.mark.parametrize("n", [1, 2, 4])
def test_trigflow_is_renoising_in_units_of_sigma_data(n):
    made = d.SCMScheduler(prediction_type="trigflow", sigma_data=0.5)
    made.set_timesteps(n, max_timesteps=1.5708, intermediate_timesteps=1.3 if n == 2 else None)
    table = own_dynamics(made, from_scheduler(made))
    assert table.name == "renoise"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, generator=generator) * 0.5
    for k, t in enumerate(made.timesteps[:-1]):
        x, clean = made.step(0.5 * network(x / 0.5, k), t, x, generator=generator, return_dict=False)
    torch.testing.assert_close(our_chain(table, (2, 3)), clean / 0.5, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "made", [d.FlowMatchLCMScheduler(shift=3.0), d.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)]
)
def test_stochastic_flow_schedulers_renoise(made):
    made.set_timesteps(5)
    table = own_dynamics(made, from_scheduler(made))
    x, output = torch.randn(2, 3), torch.randn(2, 3)
    torch.manual_seed(3)
    theirs = made.step(output, made.timesteps[0], x, return_dict=False)[0]
    torch.manual_seed(3)
    torch.testing.assert_close(table.step(output, 0, x, noise=torch.randn(2, 3)).next_x, theirs)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("n", [1, 4, 7, 15, 30, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("to_one", [False, True])
def test_ddim_steps_equal_the_scheduler_s_own(prediction, n, spacing, to_one):
    """Also where its chain does not meet its next timestep: trailing or linspace with n not dividing 1000."""
    scheduler = ddim_scheduler(n, prediction_type=prediction, timestep_spacing=spacing, set_alpha_to_one=to_one)
    schedule = from_scheduler(scheduler)
    x = torch.randn(2, 3, 4, 4)
    for k, t in enumerate(scheduler.timesteps):
        output, z = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
        theirs = scheduler.step(output, t, x, eta=0.0).prev_sample
        torch.testing.assert_close(ode(schedule).step(output, k, x).next_x, theirs, rtol=1e-4, atol=1e-5)
        noisy = scheduler.step(output, t, x, eta=1.0, variance_noise=z).prev_sample
        torch.testing.assert_close(ddim(schedule, 1.0).step(output, k, x, noise=z).next_x, noisy, rtol=1e-4, atol=1e-5)
        x = theirs


def test_stable_diffusion_s_ddim_does_not_end_at_zero_noise():
    assert float(from_scheduler(ddim_scheduler(20)).sigma[-1]) == pytest.approx(0.0292, abs=1e-4)
    assert float(from_scheduler(ddim_scheduler(20, set_alpha_to_one=True)).sigma[-1]) == 0


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_tcd_at_any_stochasticity(eta):
    made = d.TCDScheduler(**SD)
    made.set_timesteps(4)
    table = tcd(from_scheduler(made), made.alphas_cumprod, eta)
    assert float(table.c[-1]) == 0 and bool(table.consistent.all())
    x, output = torch.randn(2, 3), torch.randn(2, 3)
    theirs = made.step(output, made.timesteps[0], x, eta=eta, generator=torch.Generator().manual_seed(1))[0]
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(table.step(output, 0, x, noise=noise).next_x, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [4, 10, 50])
@pytest.mark.parametrize("scheduler", [d.DPMSolverMultistepScheduler, d.UniPCMultistepScheduler])
def test_flow_sde_starts_with_noise_a_from_levels_just_below_one(scheduler, n):
    """Sana's first level is .9997 and UniPC's 1 - 1e-6: without the floor their first c is 7.2 and 131 at n = 10."""
    made = scheduler(**FLOW_DPM)
    made.set_timesteps(n)
    schedule = from_scheduler(made)
    assert 0.99 < float(schedule.sigma[0]) < 1
    table = flow_sde(schedule, 0.7)
    assert float(table.c[0]) == pytest.approx(0.7, abs=0.02)
    assert float(table.noise_level[0]) == pytest.approx(float(schedule.sigma[1]), abs=0.3)
    assert float(table.noise_level.max()) < 1.5
    late = flow_sde(from_scheduler(made), 0.0)
    assert not late.stochastic.any()


def test_the_floor_of_flow_sde_is_that_of_a_schedule_from_one():
    made = d.DPMSolverMultistepScheduler(**FLOW_DPM)
    made.set_timesteps(10)
    near = from_scheduler(made)
    exact = d.FlowMatchEulerDiscreteScheduler()
    exact.set_timesteps(sigmas=[1.0, *near.sigma[1:-1].tolist()])
    found, released = flow_sde(near, 0.7), flow_sde(from_scheduler(exact), 0.7)
    torch.testing.assert_close(found.c[1:], released.c[1:], rtol=1e-4, atol=1e-5)
    assert float(found.c[0]) == pytest.approx(float(released.c[0]), rel=5e-3)


def test_x_t_of_trailing_euler_is_sigma_zero_noise():
    for spacing, value in (("trailing", 0.9977), ("leading", 1.0)):
        made = d.EulerDiscreteScheduler(**{**SD, "timestep_spacing": spacing})
        made.set_timesteps(4)
        schedule = from_scheduler(made)
        assert schedule.initial == pytest.approx(value, abs=1e-4)
        assert spacing == "leading" or schedule.initial == pytest.approx(float(schedule.sigma[0]), abs=1e-6)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (d.DDIMScheduler(thresholding=True, clip_sample=False), "thresholding of DDIMScheduler"),
        (d.DDIMScheduler(), "clip_sample of DDIMScheduler"),
        (d.UniPCMultistepScheduler(), "predictor-corrector"),
        (d.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), "sde-dpmsolver"),
        (d.DPMSolverMultistepScheduler(solver_type="heun"), "heun"),
        (d.FlowMatchLCMScheduler(scale_factors=[0.5]), "size of the latents"),
    ],
)
def test_what_no_table_reproduces_is_said(made, words):
    made.set_timesteps(4)
    assert words in unmatched(made)
    assert own_dynamics(made, from_scheduler(made)) is None


@pytest.mark.parametrize(
    ("made", "stand_in"),
    [
        (d.PNDMScheduler(**SD, skip_prk_steps=True), d.DDIMScheduler),
        (d.FlowMatchHeunDiscreteScheduler(shift=3.0), d.FlowMatchEulerDiscreteScheduler),
    ],
)
def test_a_scheduler_that_cannot_be_read_is_replaced_with_a_warning(made, stand_in):
    with pytest.warns(UserWarning, match=f"{type(made).__name__} .* {stand_in.__name__}"):
        found = readable(made)
    found.set_timesteps(5)
    assert type(found) is stand_in and own_dynamics(found, from_scheduler(found)).name == "ode"
    own = d.EulerDiscreteScheduler()
    assert readable(own) is own


@pytest.mark.parametrize("t", [0, 17, 500, 999])
def test_training_levels_of_a_noise_table_are_those_of_add_noise(t):
    scheduler, x0, noise = d.DDPMScheduler(**{**SD, "steps_offset": 0}), torch.randn(2, 3), torch.randn(2, 3)
    schedule = training_schedule(d.EulerDiscreteScheduler(**SD))
    k = torch.tensor([999 - t] * 2)
    assert schedule.num_steps == 1000 and schedule.timestep[k].tolist() == [t, t]
    torch.testing.assert_close(noised(schedule, k, x0, noise), scheduler.add_noise(x0, noise, torch.tensor([t, t])))


@pytest.mark.parametrize("config", [{"shift": 3.0}, {"shift": 3.0, "use_dynamic_shifting": True}])
def test_training_levels_of_a_flow_are_those_of_the_fresh_scheduler(config):
    scheduler = d.FlowMatchEulerDiscreteScheduler(**config)
    schedule = training_schedule(scheduler)
    torch.testing.assert_close(schedule.sigma[:-1].float(), scheduler.sigmas)
    torch.testing.assert_close(schedule.timestep, scheduler.timesteps)
    assert float(schedule.sigma[-1]) == 0
    with pytest.raises(ValueError, match="SCMScheduler"):
        training_schedule(d.SCMScheduler())


def test_mu_is_a_line_in_tokens():
    assert shift_mu(256, {}) == pytest.approx(0.5) and shift_mu(4096, {}) == pytest.approx(1.15)
    assert shift_mu(4096, {}, top=1.16) == pytest.approx(1.16)
    config = {"base_image_seq_len": 0, "max_image_seq_len": 100, "base_shift": 0.0, "max_shift": 1.0}
    assert shift_mu(25, config) == pytest.approx(0.25)


def test_refusals():
    with pytest.raises(ValueError, match="set_timesteps"):
        from_scheduler(d.DDIMScheduler())
    with pytest.raises(ValueError, match=r"PNDMScheduler; valid: .*DDIMScheduler\.from_config"):
        from_scheduler(d.PNDMScheduler())
    dark = ddim_scheduler(4, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.raises(ValueError, match="zero signal"):
        from_scheduler(dark)
