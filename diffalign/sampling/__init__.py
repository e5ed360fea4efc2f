"""One sampler for every method: Schedule, Dynamics, StepPlan, rollout, Trajectory."""

from diffalign.sampling.conditioning import Conditioning, encode_prompts, predict_at
from diffalign.sampling.dynamics import (
    cps,
    dance_sde,
    ddim,
    dpmpp2m,
    flow_sde,
    memoryless,
    ode,
    renoise,
    tcd,
    where,
)
from diffalign.sampling.forward_process import denoise, noised
from diffalign.sampling.levels import from_scheduler, shift_mu, training_schedule
from diffalign.sampling.noise import initial_noise, noise_key, step_noise
from diffalign.sampling.plan import StepPlan, make_plan
from diffalign.sampling.policy import (
    Cond,
    Policy,
    linear_guidance,
    norm_capped,
    norm_rescaled,
    std_rescaled,
    take,
)
from diffalign.sampling.rollout import replay, rollout
from diffalign.sampling.schedule import (
    Schedule,
    flow_schedule,
    shifted_sigmas,
    skip_tail_steps,
    vp_schedule,
)
from diffalign.sampling.schedulers import own_dynamics, plain, readable, unmatched
from diffalign.sampling.step import Dynamics, StepOut
from diffalign.sampling.trajectory import Trajectory
from diffalign.sampling.windows import (
    WindowSchedule,
    constant_window,
    exponential_window,
    linear_window,
    progressive_start,
    window,
    window_position,
)

__all__ = [
    "Cond",
    "Conditioning",
    "Dynamics",
    "Policy",
    "Schedule",
    "StepOut",
    "StepPlan",
    "Trajectory",
    "WindowSchedule",
    "constant_window",
    "cps",
    "dance_sde",
    "ddim",
    "denoise",
    "dpmpp2m",
    "encode_prompts",
    "exponential_window",
    "flow_schedule",
    "flow_sde",
    "from_scheduler",
    "initial_noise",
    "linear_guidance",
    "linear_window",
    "make_plan",
    "memoryless",
    "noise_key",
    "noised",
    "norm_capped",
    "norm_rescaled",
    "ode",
    "own_dynamics",
    "plain",
    "predict_at",
    "progressive_start",
    "readable",
    "renoise",
    "replay",
    "rollout",
    "shift_mu",
    "shifted_sigmas",
    "skip_tail_steps",
    "std_rescaled",
    "step_noise",
    "take",
    "tcd",
    "training_schedule",
    "unmatched",
    "vp_schedule",
    "where",
    "window",
    "window_position",
]
