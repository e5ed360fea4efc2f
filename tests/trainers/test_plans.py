"""The step plan of a rollout, from the configuration."""

from __future__ import annotations

import pytest
import torch

from diffalign.models import adapt
from diffalign.sampling import flow_schedule, shifted_sigmas
from diffalign.trainers import PolicyGradientConfig
from diffalign.trainers.policy_gradient_plan import training_plan
from diffalign.trainers.rollouts.plans import DYNAMICS
from diffalign.trainers.run.evaluation import evaluation_plan
from tests.tiny_pipelines import tiny_sd

FLOW10 = flow_schedule(shifted_sigmas(10, 3.0))


def plan(schedule=FLOW10, start=0, **keys):
    return training_plan(PolicyGradientConfig(num_inference_steps=schedule.num_steps, **keys), schedule, start)


@pytest.fixture(scope="module")
def ddim_levels():
    return adapt(tiny_sd()).schedule(10)


def test_by_default_all_steps_but_the_last_are_stochastic_and_trained():
    found = plan()
    assert found.recorded == tuple(range(9))
    assert found.dynamics.c[:9].min() > 0 and found.dynamics.c[9] == 0
    assert found.branches == 1 and max(found.guidance) <= 1


def test_released_flow_grpo_adds_noise_at_the_last_step_and_does_not_train_it():
    found = plan(sde_last_step=True, timestep_fraction=0.99)
    assert found.recorded == tuple(range(9))
    assert found.dynamics.c[9] > 0


def test_ddpo_on_stable_diffusion_trains_every_step(ddim_levels):
    found = plan(ddim_levels, sde_type="ddim", noise_level=1.0, sde_last_step=True)
    assert found.recorded == tuple(range(10)) and found.dynamics.c.min() > 0
    assert plan(ddim_levels, sde_type="ddim", noise_level=1.0).recorded == tuple(range(9))


def test_a_window_is_stochastic_inside_and_the_ode_outside():
    found = plan(start=3, sde_window_size=2)
    assert found.recorded == (3, 4)
    assert torch.equal(found.dynamics.c > 0, torch.tensor([k in (3, 4) for k in range(10)]))
    whole, ode = plan().dynamics, evaluation_plan(FLOW10, 1.0).dynamics
    assert torch.equal(found.dynamics.kappa[3:5], whole.kappa[3:5])
    assert torch.equal(found.dynamics.kappa[:3], ode.kappa[:3]) and torch.equal(found.dynamics.kappa[5:], ode.kappa[5:])


def test_flow_grpo_fast_forks_where_its_window_starts():
    found = plan(start=4, sde_window_size=2, prefix_branches=6, num_generations=12)
    assert found.fork == (1, 1, 1, 1, 6, 1, 1, 1, 1, 1) and found.branches == 6
    assert found.recorded == (4, 5)


@pytest.mark.parametrize(("fraction", "count"), [(1.0, 8), (0.5, 4), (0.6, 4), (0.01, 1)])
def test_a_fraction_of_the_stochastic_steps_is_trained_the_earliest_first(fraction, count):
    found = plan(flow_schedule(shifted_sigmas(9)), timestep_fraction=fraction)
    assert found.recorded == tuple(range(count))
    assert int((found.dynamics.c > 0).sum()) == 8


def test_guidance_and_the_graph_of_its_branch_are_passed_on():
    found = plan(guidance_scale=3.5)
    assert found.guidance == (3.5,) * 10 and found.uncond_grad
    assert not plan(guidance_scale=3.5, uncond_grad=False).uncond_grad


def test_every_noise_type_is_another_table():
    levels = {"cps": 0.8, "dance_sde": 0.3}
    tables = {name: plan(sde_type=name, noise_level=levels.get(name, 0.7)).dynamics for name in DYNAMICS}
    assert all(bool(table.stochastic[:9].all()) for table in tables.values())
    distinct = {tuple(table.c.tolist()) for table in tables.values()}
    assert len(distinct) == len(DYNAMICS)
    assert {field for field in ("flow_sde", "dance_sde", "cps", "ddim", "memoryless")} == set(DYNAMICS)


def test_more_noise_is_more_noise():
    assert bool((plan(noise_level=0.9).dynamics.c[:9] > plan(noise_level=0.3).dynamics.c[:9]).all())


def test_flow_noise_on_stable_diffusion_is_refused(ddim_levels):
    with pytest.raises(ValueError, match=r"flow_sde is defined on flow schedules.*use ddim"):
        plan(ddim_levels)


def test_a_plan_that_trains_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing is left to train"):
        plan(start=9, sde_window_size=1, sde_window_range=[9, 10])
    with pytest.raises(ValueError, match="nothing is left to train"):
        plan(flow_schedule([1.0, 0.0]))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sde_type": "ode"}, "no density"),
        ({"noise_level": 0.0}, "deterministic"),
        ({"sde_window_size": 11}, "does not lie in the schedule of 10"),
        ({"sde_window_size": 2, "sde_window_range": [5, 10]}, "starts up to 8 fit"),
        ({"sde_window_size": 2, "sde_window_range": [4, 4]}, "rising"),
        ({"sde_window_range": [0, 4]}, "without sde_window_size"),
        ({"prefix_branches": 4}, "needs a window"),
        ({"prefix_branches": 3, "sde_window_size": 2}, "multiple of"),
        ({"num_generations": 1}, "a group of one"),
        ({"timestep_fraction": 0.0}, "timestep_fraction"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_loaded(keys, message):
    with pytest.raises(ValueError, match=message):
        PolicyGradientConfig(num_inference_steps=10, **keys)


def test_evaluation_is_the_ode_and_keeps_nothing():
    found = evaluation_plan(FLOW10, 2.0)
    assert not bool(found.dynamics.stochastic.any()) and found.recorded == () and found.guidance == (2.0,) * 10
