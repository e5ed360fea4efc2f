"""The step plans of roll-outs and evaluations, from the configuration."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from diffalign.config import RunConfig
from diffalign.sampling import (
    Dynamics,
    Schedule,
    StepPlan,
    cps,
    dance_sde,
    ddim,
    dpmpp2m,
    flow_sde,
    make_plan,
    memoryless,
    ode,
    skip_tail_steps,
    where,
    window,
)

DYNAMICS: dict[str, Callable[[Schedule, float], Dynamics]] = {
    "flow_sde": flow_sde,
    "dance_sde": dance_sde,
    "cps": cps,
    "ddim": ddim,
    "memoryless": lambda schedule, _: memoryless(schedule),
}
"""sde_type -> dynamics of (schedule, noise_level)."""

SOLVERS: dict[str, Callable[[Schedule], Dynamics]] = {"euler": ode, "dpmpp2m": dpmpp2m}
"""ode_solver -> deterministic dynamics."""


def training_plan(config: RunConfig, schedule: Schedule, start: int) -> StepPlan:
    """Stochastic steps in the window (or everywhere), deterministic ones elsewhere; what may be trained is recorded.

    Args:
        config: the run configuration.
        schedule: the levels of a training roll-out.
        start: first step of the window, ignored without one.

    Raises:
        ValueError: no step is left to train.
    """
    if config.sde_window_size is not None and config.post_window_fraction < 1:
        schedule = skip_tail_steps(schedule, start + config.sde_window_size, config.post_window_fraction)
    table = _table(config, schedule, start)
    steps = [k for k in range(schedule.num_steps) if table.stochastic[k]]
    if not steps:
        raise ValueError(
            f"no step of {table.name} is stochastic: with {schedule.num_steps} steps and sde_last_step = "
            f"{config.sde_last_step} nothing is left to train; use more steps, another window, or sde_last_step = true"
        )
    recorded = steps if config.timestep_selection == "random" else steps[: trained_steps(config, len(steps))]
    fork = {} if config.prefix_branches == 1 else {steps[0]: config.prefix_branches}
    return make_plan(table, record=recorded, fork=fork, guidance=config.guidance_scale, uncond_grad=config.uncond_grad)


def sampling_plan(config: RunConfig, schedule: Schedule) -> StepPlan:
    """A roll-out of which only the image counts: deterministic, or with noise as sde_type says; nothing is recorded."""
    table = SOLVERS[config.ode_solver](schedule) if config.sde_type == "ode" else _table(config, schedule, 0)
    return make_plan(table, record=[], guidance=config.guidance_scale)


def evaluation_plan(schedule: Schedule, guidance: float) -> StepPlan:
    """The deterministic sampler that every evaluation uses."""
    return make_plan(ode(schedule), record=[], guidance=guidance)


def trained_steps(config: RunConfig, steps: int) -> int:
    """How many of so many steps `timestep_fraction` trains; at least one."""
    return max(math.floor(steps * config.timestep_fraction + 1e-9), 1)


def visited(config: RunConfig, schedule: Schedule, starts: range) -> torch.Tensor:
    """(T,) bool: the stochastic steps that some roll-out trains, over which step weights have mean 1.

    Over a window alone a window of one step would weigh 1 wherever it stands, and noise-aware weights would do nothing.
    """
    mask = torch.zeros(schedule.num_steps, dtype=torch.bool)
    for start in starts:
        steps = [k for k in range(schedule.num_steps) if bool(_table(config, schedule, start).stochastic[k])]
        mask[steps if config.timestep_selection == "random" else steps[: trained_steps(config, len(steps))]] = True
    return mask


def full_noise(config: RunConfig, schedule: Schedule) -> torch.Tensor:
    """(T,) c of every step, were it stochastic."""
    return DYNAMICS[config.sde_type](schedule, config.noise_level).c


def _table(config: RunConfig, schedule: Schedule, start: int) -> Dynamics:
    size, total = config.sde_window_size, schedule.num_steps
    mask = torch.ones(total, dtype=torch.bool) if size is None else window(total, start, size)
    if not config.sde_last_step:
        mask[-1] = False
    return where(mask, DYNAMICS[config.sde_type](schedule, config.noise_level), SOLVERS[config.ode_solver](schedule))
