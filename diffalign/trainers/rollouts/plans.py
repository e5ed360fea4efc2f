"""Dynamics by name, and the plan of rollouts of which only the image counts."""

from __future__ import annotations

from collections.abc import Callable

import torch

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
    where,
)
from diffalign.trainers.on_policy_config import OnPolicyConfig

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


def sampling_plan(config: OnPolicyConfig, schedule: Schedule) -> StepPlan:
    """Deterministic steps, or noise as sde_type says at every step but the last; nothing is recorded."""
    table = SOLVERS[config.ode_solver](schedule)
    if config.sde_type != "ode":
        mask = torch.arange(schedule.num_steps) < schedule.num_steps - 1
        table = where(mask, DYNAMICS[config.sde_type](schedule, config.noise_level), table)
    return make_plan(table, record=[], guidance=config.guidance_scale)
