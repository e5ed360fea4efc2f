"""Diffusers' schedulers: their levels as a `Schedule`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from diffalign.sampling.schedule import Schedule, flow_schedule, vp_schedule

PREDICTION_NAMES = {"flow_prediction": "flow", "trigflow": "v_prediction"}
"""Prediction types of diffusers under our names; the others are the same."""


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


def training_schedule(scheduler: Any) -> Schedule:
    """Every level that the model was trained at, noise first: what offline methods draw their levels from.

    On a variance-preserving path step k is timestep N - 1 - k of the noise table (Diffusion-DPO: k uniform). On a flow
    path the levels are 1 to 1 / N with the scheduler's own shift, as in diffusers' training scripts.

    Args:
        scheduler: a diffusers scheduler; no timesteps need to be set.

    Raises:
        ValueError: a scheduler without such a table (SCM).
    """
    config, name = scheduler.config, type(scheduler).__name__
    count = int(config.num_train_timesteps)
    if name == "SCMScheduler":
        raise ValueError("SCMScheduler has no table of training levels: its model is distilled over continuous time")
    if name.startswith("FlowMatch") or config.get("use_flow_sigmas"):
        dynamic = config.get("use_dynamic_shifting")  # then the shift belongs to an image size, not to the table
        shift = 1.0 if dynamic else float(config.get("flow_shift") or config.get("shift") or 1.0)
        sigma = torch.linspace(1, 1 / count, count, dtype=torch.float64)
        sigma = shift * sigma / (1 + (shift - 1) * sigma)
        return flow_schedule(torch.cat([sigma, sigma.new_zeros(1)]), num_train_timesteps=count)
    bars = scheduler.alphas_cumprod.double().flip(0)
    timesteps = torch.arange(count - 1, -1, -1)
    return vp_schedule(torch.cat([bars, bars.new_ones(1)]), timesteps, _prediction(scheduler))


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
