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
    compressed,
    flow_schedule,
    from_scheduler,
    shifted_sigmas,
    vp_schedule,
)
from diffalign.sampling.trajectory import Trajectory
from diffalign.sampling.windows import (
    Dwell,
    constant_dwell,
    dwelling,
    exponential_dwell,
    linear_dwell,
    progressive_start,
    window,
)

__all__ = [
    "Cond",
    "Dwell",
    "Dynamics",
    "Policy",
    "Schedule",
    "StepOut",
    "StepPlan",
    "Trajectory",
    "compressed",
    "constant_dwell",
    "cps",
    "dance_sde",
    "ddim",
    "denoise",
    "dpmpp2m",
    "dwelling",
    "exponential_dwell",
    "flow_schedule",
    "flow_sde",
    "from_scheduler",
    "guided",
    "initial_noise",
    "linear_dwell",
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
