"""One sampler for every method: Schedule, Dynamics, StepPlan, rollout, Trajectory."""

from diffalign.sampling.dynamics import (
    Dynamics,
    StepOut,
    cps,
    dance_sde,
    ddim,
    dpmpp2m,
    flow_sde,
    memoryless,
    ode,
    renoise,
    where,
)
from diffalign.sampling.forward_process import denoise, noised
from diffalign.sampling.noise import initial_noise, noise_key, step_noise
from diffalign.sampling.plan import StepPlan, make_plan
from diffalign.sampling.policy import Cond, Policy, guided, linear_guidance, take
from diffalign.sampling.rollout import replay, rollout
from diffalign.sampling.schedule import (
    Schedule,
    flow_schedule,
    from_scheduler,
    shifted_sigmas,
    skip_tail_steps,
    vp_schedule,
)
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
    "WindowSchedule",
    "Dynamics",
    "Policy",
    "Schedule",
    "StepOut",
    "StepPlan",
    "Trajectory",
    "skip_tail_steps",
    "constant_window",
    "cps",
    "dance_sde",
    "ddim",
    "denoise",
    "dpmpp2m",
    "window_position",
    "exponential_window",
    "flow_schedule",
    "flow_sde",
    "from_scheduler",
    "guided",
    "initial_noise",
    "linear_window",
    "linear_guidance",
    "make_plan",
    "memoryless",
    "noise_key",
    "noised",
    "ode",
    "progressive_start",
    "renoise",
    "replay",
    "rollout",
    "shifted_sigmas",
    "step_noise",
    "take",
    "vp_schedule",
    "where",
    "window",
]
