"""Which steps of a rollout are stochastic, recorded and trained by the policy gradient."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from diffalign.sampling import (
    Dynamics,
    Schedule,
    StepPlan,
    WindowSchedule,
    constant_window,
    exponential_window,
    linear_window,
    make_plan,
    ode,
    skip_tail_steps,
    where,
    window,
    window_position,
)
from diffalign.trainers.policy_gradient_config import PolicyGradientConfig
from diffalign.trainers.rollouts.plans import DYNAMICS, SOLVERS
from diffalign.trainers.rollouts.spec import STEPS, WINDOW, stream

WINDOW_SCHEDULES: dict[str, WindowSchedule] = {
    "progressive": constant_window,
    "decay": linear_window,
    "exp_decay": exponential_window,
}
"""sde_window_schedule -> rollouts at each position; `random` draws the position instead."""


def window_start(config: PolicyGradientConfig, index: int) -> int:
    """First stochastic step of rollout `index`, one for all of its samples: drawn, or in the schedule's order."""
    starts = config.window_starts()
    if config.sde_window_schedule == "random":
        return starts[int(torch.randint(len(starts), (1,), generator=stream(config.seed, WINDOW, index)))]
    stay = WINDOW_SCHEDULES[config.sde_window_schedule]
    return window_position(index, starts, config.num_inference_steps, config.sde_window_every, stay)


def training_plan(config: PolicyGradientConfig, schedule: Schedule, start: int) -> StepPlan:
    """Stochastic steps in the window (or everywhere), deterministic ones elsewhere; trainable steps are recorded.

    Args:
        config: the run configuration.
        schedule: the levels of a training rollout.
        start: first step of the window, ignored without one.

    Raises:
        ValueError: no step is left to train.
    """
    if config.sde_window_size is not None and config.post_window_fraction < 1:
        schedule = skip_tail_steps(schedule, start + config.sde_window_size, config.post_window_fraction)
    table = _table(config, schedule, start)
    steps = _stochastic_steps(table)
    if not steps:
        raise ValueError(
            f"no step of {table.name} is stochastic: with {schedule.num_steps} steps and sde_last_step = "
            f"{config.sde_last_step} nothing is left to train; use more steps, another window, or sde_last_step = true"
        )
    recorded = _recorded(config, steps)
    fork = {} if config.branches == 1 else {steps[0]: config.branches}
    return make_plan(table, record=recorded, fork=fork, guidance=config.guidance_scale, uncond_grad=config.uncond_grad)


def step_choice(config: PolicyGradientConfig, index: int, samples: int, steps: int, count: int) -> Tensor:
    """(samples, count) long: which of `steps` recorded steps each sample trains, in its own order (DanceGRPO)."""
    keys = torch.rand(samples, steps, generator=stream(config.seed, STEPS, index))
    return keys.argsort(1)[:, :count]


def trained_mask(config: PolicyGradientConfig, schedule: Schedule) -> Tensor:
    """(T,) bool: the stochastic steps that some rollout trains, over which step weights have mean 1.

    Over a window alone a window of one step would always weigh 1, and noise-aware weights would do nothing.
    """
    mask = torch.zeros(schedule.num_steps, dtype=torch.bool)
    for start in config.window_starts():
        mask[_recorded(config, _stochastic_steps(_table(config, schedule, start)))] = True
    return mask


def full_noise(config: PolicyGradientConfig, schedule: Schedule) -> Tensor:
    """(T,) c of every step, were it stochastic."""
    return DYNAMICS[config.sde_type](schedule, config.noise_level).c


def _recorded(config: PolicyGradientConfig, steps: list[int]) -> list[int]:
    return steps if config.timestep_selection == "random" else steps[: config.trained_steps(len(steps))]


def _stochastic_steps(table: Dynamics) -> list[int]:
    return [k for k in range(table.num_steps) if table.stochastic[k]]


def _table(config: PolicyGradientConfig, schedule: Schedule, start: int) -> Dynamics:
    """Noise in the window; the ODE solver elsewhere, a multistep one only after the window (MixGRPO-Flash)."""
    size, total = config.sde_window_size, schedule.num_steps
    mask = torch.ones(total, dtype=torch.bool) if size is None else window(total, start, size)
    if not config.sde_last_step:
        mask[-1] = False
    solver = SOLVERS[config.ode_solver](schedule)
    if size is not None:
        after = torch.arange(total) >= start + size
        solver = replace(where(after, solver, ode(schedule)), name=solver.name)
    return where(mask, DYNAMICS[config.sde_type](schedule, config.noise_level), solver)
