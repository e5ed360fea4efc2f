"""The step plan of a policy-gradient roll-out, from the configuration."""

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
    flow_sde,
    make_plan,
    memoryless,
    ode,
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


def training_plan(config: RunConfig, schedule: Schedule, start: int) -> StepPlan:
    """Stochastic steps in the window (or everywhere), the ODE elsewhere; the earliest stochastic steps are recorded.

    Args:
        config: the run configuration.
        schedule: the levels of a training roll-out.
        start: first step of the window, ignored without one.

    Raises:
        ValueError: no step is left to train.
    """
    size = config.sde_window_size
    total = schedule.num_steps
    mask = torch.ones(total, dtype=torch.bool) if size is None else window(total, start, size)
    if not config.sde_last_step:
        mask[-1] = False
    table = where(mask, DYNAMICS[config.sde_type](schedule, config.noise_level), ode(schedule))
    steps = [k for k in range(total) if table.stochastic[k]]
    if not steps:
        raise ValueError(
            f"no step of {table.name} is stochastic: with {total} steps and sde_last_step = {config.sde_last_step} "
            "nothing is left to train; use more steps, another window, or sde_last_step = true"
        )
    recorded = steps[: max(math.floor(len(steps) * config.timestep_fraction + 1e-9), 1)]
    fork = {} if config.prefix_branches == 1 else {steps[0]: config.prefix_branches}
    return make_plan(table, record=recorded, fork=fork, guidance=config.guidance_scale, uncond_grad=config.uncond_grad)


def evaluation_plan(schedule: Schedule, guidance: float) -> StepPlan:
    """The deterministic sampler that every evaluation uses."""
    return make_plan(ode(schedule), record=[], guidance=guidance)
