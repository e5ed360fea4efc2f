"""Diffusers' schedulers: their levels as a `Schedule`, and the dynamics that take the same steps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from diffalign.sampling.dynamics import Dynamics, ddim, dpmpp2m, ode, renoise, tcd
from diffalign.sampling.schedule import Schedule, vp_schedule

PREDICTION_NAMES = {"flow_prediction": "flow", "trigflow": "v_prediction"}
"""Prediction types of diffusers under our names; the others are the same."""

TCD_ETA = 0.3
"""Default of TCDScheduler.step."""

SHORT_RUN = 15
"""Below so many steps DPM-Solver's `lower_order_final` takes the last one at first order."""


def from_scheduler(scheduler: Any) -> Schedule:
    """Read a diffusers scheduler whose timesteps have been set (shift and mu included).

    Args:
        scheduler: one of the classes of `READERS` after ``set_timesteps``.

    Raises:
        ValueError: a scheduler of another kind, one whose timesteps are not set, or levels that no step can leave.
    """
    name = type(scheduler).__name__
    if name not in READERS:
        raise ValueError(
            f"no schedule can be read from {name}; valid: {', '.join(READERS)}. "
            "For a Stable Diffusion pipeline: pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)"
        )
    if getattr(scheduler, "num_inference_steps", None) is None:
        raise ValueError(f"{name} has no timesteps yet: call set_timesteps (the model adapter's `schedule(n)` does)")
    schedule = READERS[name](scheduler)
    if schedule.prediction == "epsilon" and float(schedule.alpha[0]) == 0:
        raise ValueError(
            f"{name} starts at zero signal (rescale_betas_zero_snr), where predicted noise says nothing about the "
            "image: use prediction_type v_prediction or sample, or leave the table as it is"
        )
    return schedule


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


def shift_mu(tokens: int, config: Mapping[str, Any], top: float = 1.15) -> float:
    """Shift exponent of a flow scheduler for an image of so many tokens.

    The line through (base_image_seq_len, base_shift) and (max_image_seq_len, max_shift) of the config.

    Args:
        tokens: image tokens.
        config: scheduler configuration; absent keys are 256, .5, 4096 and `top`.
        top: `max_shift` where the config has none (SD3: 1.16).
    """
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, last = config.get("base_shift", 0.5), config.get("max_shift", top)
    slope = (last - base) / (high - low)
    return float(tokens * slope + (base - slope * low))


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


def _prediction(scheduler: Any) -> str:
    kind = str(scheduler.config.prediction_type)
    return PREDICTION_NAMES.get(kind, kind)


def _timesteps(scheduler: Any) -> Tensor:
    return scheduler.timesteps.detach().cpu()  # type: ignore[no-any-return]


def _flow_match(scheduler: Any) -> Schedule:
    sigma = scheduler.sigmas.detach().cpu().double()
    return Schedule(1 - sigma, sigma, _timesteps(scheduler).float(), "flow")


def _ddim(scheduler: Any) -> Schedule:
    """DDIM steps to t - stride, on the table or else its final constant, whatever its next timestep is."""
    timesteps, table = _timesteps(scheduler).long(), scheduler.alphas_cumprod.double()
    ends = timesteps - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    final = torch.as_tensor(scheduler.final_alpha_cumprod).double()
    bars = torch.where(ends >= 0, table[ends.clamp(min=0)], final)
    schedule = vp_schedule(torch.cat([table[timesteps], bars[-1:]]), timesteps, _prediction(scheduler))
    if torch.equal(ends[:-1], timesteps[1:]):
        return schedule
    return _with_ends(schedule, bars)


def _with_ends(schedule: Schedule, bars: Tensor) -> Schedule:
    ends = bars.sqrt(), (1 - bars).sqrt()
    return Schedule(schedule.alpha, schedule.sigma, schedule.timestep, schedule.prediction, ends=ends)


def _sigmas(scheduler: Any) -> Schedule:
    """DPM-Solver, UniPC: flow sigmas, or noise-to-signal ratios of a variance-preserving path."""
    ratio = scheduler.sigmas.detach().cpu().double()
    if scheduler.config.get("use_flow_sigmas"):
        return Schedule(1 - ratio, ratio, _timesteps(scheduler), _prediction(scheduler))
    alpha = 1 / (1 + ratio**2).sqrt()
    return Schedule(alpha, ratio * alpha, _timesteps(scheduler), _prediction(scheduler))


def _euler(scheduler: Any) -> Schedule:
    """Variance-exploding variables, whose `scale_model_input` is the change to ours; x_T as the pipeline scales it."""
    found = _sigmas(scheduler)
    initial = float(scheduler.init_noise_sigma) / math.sqrt(1 + float(scheduler.sigmas[0]) ** 2)
    return Schedule(found.alpha, found.sigma, found.timestep, found.prediction, initial=initial)


def _lcm(scheduler: Any) -> Schedule:
    bars = scheduler.alphas_cumprod.double()[_timesteps(scheduler).long()]
    return vp_schedule(torch.cat([bars, torch.ones(1).double()]), _timesteps(scheduler), _prediction(scheduler))


def _tcd(scheduler: Any) -> Schedule:
    """Ends on the first level of the table."""
    table, timesteps = scheduler.alphas_cumprod.double(), _timesteps(scheduler)
    return vp_schedule(torch.cat([table[timesteps.long()], table[:1]]), timesteps, _prediction(scheduler))


def _scm(scheduler: Any) -> Schedule:
    """TrigFlow: x = cos(t) x0 + sin(t) eps for x in units of sigma_data."""
    t = _timesteps(scheduler).double()
    return Schedule(t.cos(), t.sin(), _timesteps(scheduler)[:-1].float(), _prediction(scheduler))


READERS: dict[str, Callable[[Any], Schedule]] = {
    "FlowMatchEulerDiscreteScheduler": _flow_match,
    "FlowMatchLCMScheduler": _flow_match,
    "DDIMScheduler": _ddim,
    "EulerDiscreteScheduler": _euler,
    "EulerAncestralDiscreteScheduler": _euler,
    "DPMSolverMultistepScheduler": _sigmas,
    "UniPCMultistepScheduler": _sigmas,
    "LCMScheduler": _lcm,
    "TCDScheduler": _tcd,
    "SCMScheduler": _scm,
}
"""Scheduler class -> reader of its levels."""
