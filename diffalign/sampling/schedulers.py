"""Diffusers' schedulers: the dynamics that take the same steps, and what stands in where there are none."""

from __future__ import annotations

import warnings
from typing import Any

from diffalign.sampling.dynamics import ddim, dpmpp2m, ode, renoise, tcd
from diffalign.sampling.levels import READERS
from diffalign.sampling.schedule import Schedule
from diffalign.sampling.step import Dynamics

TCD_ETA = 0.3
"""Default of TCDScheduler.step."""

SHORT_RUN = 15
"""Below so many steps DPM-Solver's `lower_order_final` takes the last one at first order."""


def own_dynamics(scheduler: Any, schedule: Schedule, eta: float | None = None) -> Dynamics | None:
    """The table that takes the same steps as the scheduler, or None when no table does.

    None: UniPC above order 1 or with its corrector, DPM-Solver of another kind than 2M of dpmsolver++, and sample
    clipping or thresholding. `unmatched` says which.

    Args:
        scheduler: the scheduler that the schedule was read from.
        schedule: its levels.
        eta: noise that a pipeline's call passes on to `step` (DDIM, TCD); default the scheduler's own.
    """
    if unmatched(scheduler):
        return None
    config, name = scheduler.config, type(scheduler).__name__
    if name in ("FlowMatchLCMScheduler", "LCMScheduler", "SCMScheduler"):
        return renoise(schedule)
    if name == "FlowMatchEulerDiscreteScheduler":
        return renoise(schedule) if config.get("stochastic_sampling") else ode(schedule)
    if name == "EulerAncestralDiscreteScheduler":
        return ddim(schedule, 1.0)
    if name == "TCDScheduler":
        return tcd(schedule, scheduler.alphas_cumprod, TCD_ETA if eta is None else eta)
    if name == "DDIMScheduler" and eta:
        return ddim(schedule, eta)
    if name == "DPMSolverMultistepScheduler" and config.solver_order == 2:
        return _dpmpp2m(config, schedule)
    return ode(schedule)


def unmatched(scheduler: Any) -> str | None:
    """The setting of a readable scheduler that no table reproduces, in words; None when there is none."""
    config, name = scheduler.config, type(scheduler).__name__
    for key in ("thresholding", "clip_sample"):
        if config.get(key):
            return f"{key} of {name}"
    if name == "FlowMatchLCMScheduler" and config.get("scale_factors"):
        return f"scale_factors of {name}, which changes the size of the latents between steps"
    if name == "DPMSolverMultistepScheduler":
        kind = (config.algorithm_type, config.solver_type, config.solver_order)
        if kind[0] != "dpmsolver++" or kind[2] > 2 or (kind[2] == 2 and kind[1] != "midpoint"):
            return f"algorithm_type {kind[0]}, solver_type {kind[1]}, solver_order {kind[2]} of {name}"
    if name == "UniPCMultistepScheduler" and not _is_first_order(scheduler):
        return f"the predictor-corrector steps of {name} (order {config.solver_order})"
    return None


def plain(scheduler: Any) -> Any:
    """A scheduler of the same class and levels without the settings that no table reproduces.

    UniPC at order 1 without corrector, DPM-Solver as 2M of dpmsolver++, no clipping, no thresholding.
    """
    if not unmatched(scheduler):
        return scheduler
    config = scheduler.config
    changes: dict[str, Any] = {}
    changes |= {key: False for key in ("thresholding", "clip_sample") if config.get(key)}
    if config.get("scale_factors"):
        changes["scale_factors"] = None
    name = type(scheduler).__name__
    if name == "DPMSolverMultistepScheduler":
        order = min(config.solver_order, 2)
        changes |= {"algorithm_type": "dpmsolver++", "solver_type": "midpoint", "solver_order": order}
    if name == "UniPCMultistepScheduler":
        changes |= {"solver_order": 1, "disable_corrector": list(range(config.num_train_timesteps))}
    return type(scheduler).from_config(config, **changes)


def readable(scheduler: Any) -> Any:
    """The scheduler itself, or, with a warning, one on the same noise table whose levels can be read.

    A flow scheduler is replaced by FlowMatchEulerDiscreteScheduler, any other by DDIMScheduler.
    """
    name = type(scheduler).__name__
    if name in READERS:
        return scheduler
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    flow = name.startswith("FlowMatch") or scheduler.config.get("prediction_type") == "flow_prediction"
    if flow:
        found = FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)
    else:
        found = DDIMScheduler.from_config(scheduler.config, clip_sample=False, thresholding=False)
    warnings.warn(
        f"the pipeline's {name} has no table of steps here: sampling uses {type(found).__name__} on its noise table "
        "instead, so images differ from the plain pipeline's. The pipeline, and what is saved, keep their scheduler",
        stacklevel=2,
    )
    return found


def _dpmpp2m(config: Any, schedule: Schedule) -> Dynamics:
    """2M with the scheduler's first-order last step."""
    table = dpmpp2m(schedule)
    short = config.lower_order_final and schedule.num_steps < SHORT_RUN
    if short or config.euler_at_final or config.final_sigmas_type == "zero":
        table.history[-1] = 0
    return table


def _is_first_order(scheduler: Any) -> bool:
    config, steps = scheduler.config, scheduler.num_inference_steps or 0
    return config.solver_order == 1 and set(range(steps)) <= set(config.disable_corrector)
