"""Tables of two scalars per step, (kappa, c): one for every sampler of the field.

Two families fill ``x' = alpha' x0_hat + kappa eps_hat + c noise`` (dt = sigma' - sigma < 0):

* Euler-Maruyama of a marginal-preserving SDE with diffusion s: ``kappa = sigma' - s^2 |dt| / (2 sigma)``,
  ``c = s sqrt(|dt|)`` (Flow-GRPO 2505.05470, DanceGRPO 2505.07818, Adjoint Matching 2409.08861);
* level-preserving: ``kappa = sqrt(sigma'^2 - c^2)`` for a chosen c (DDIM 2010.02502, Flow-CPS 2509.05952, re-noising).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffalign.sampling.schedule import Schedule
from diffalign.sampling.step import Dynamics

NEARLY_ONE = 0.99
"""A first level above this starts from noise."""


def ode(schedule: Schedule) -> Dynamics:
    """Deterministic Euler / DDIM(0) step: kappa = sigma', c = 0."""
    sigma = schedule.next_sigma.clone()
    return Dynamics(schedule, sigma, torch.zeros_like(sigma), torch.zeros_like(sigma), "ode")


def ddim(schedule: Schedule, eta: float = 1.0) -> Dynamics:
    """DDIM with noise eta (2010.02502), on any (alpha, sigma); eta = 1 is the exact DDPM posterior.

    ``c = eta (sigma'/sigma) sqrt(sigma^2 - (alpha/alpha')^2 sigma'^2)``.
    """
    _check_range("eta", eta, 0, 1)
    alpha, sigma, end = schedule.alpha[:-1], schedule.sigma[:-1], schedule.next_sigma
    inner = sigma**2 - (alpha / schedule.next_alpha) ** 2 * end**2
    return _level_preserving(schedule, eta * end / sigma * inner.clamp(min=0).sqrt(), f"ddim({eta:g})")


def cps(schedule: Schedule, a: float = 0.8) -> Dynamics:
    """Coefficients-preserving sampling (2509.05952): ``c = sigma' sin(a pi / 2)``.

    Leaves the schedule's noise level, not the data distribution: the bias does not vanish with more steps.
    """
    _check_range("a", a, 0, 1)
    return _level_preserving(schedule, schedule.next_sigma * math.sin(a * math.pi / 2), f"cps({a:g})")


def renoise(schedule: Schedule) -> Dynamics:
    """Consistency re-noising: all of the noise is fresh (c = sigma', kappa = 0)."""
    return _level_preserving(schedule, schedule.next_sigma.clone(), "renoise")


def tcd(schedule: Schedule, alpha_bars: Tensor, eta: float = 0.3) -> Dynamics:
    """Trajectory consistency sampling (2402.19159) with stochasticity eta, as diffusers' TCDScheduler.

    A step goes to level s = floor((1 - eta) t') of the noise table and is noised again to t':
    ``c = sqrt(1 - alpha_bar(t') / alpha_bar(s))``. The last step adds no noise.

    Args:
        schedule: levels of a TCDScheduler; its timesteps are indices of the table.
        alpha_bars: (N,) cumulative products of the whole table.
        eta: 0 is deterministic, 1 re-noises from the clean prediction.
    """
    _check_range("eta", eta, 0, 1)
    target = schedule.timestep[1:].long()
    bars = alpha_bars.double()
    ratio = bars[target] / bars[((1 - eta) * target).floor().long()]
    c = torch.cat([(1 - ratio).clamp(min=0).sqrt(), torch.zeros(1, dtype=torch.float64)])
    return _level_preserving(schedule, c, f"tcd({eta:g})")


def flow_sde(schedule: Schedule, a: float = 0.7) -> Dynamics:
    """Flow-GRPO's SDE (2505.05470): s = a sqrt(sigma / (1 - sigma)).

    A first level at or just below 1 (Sana's is .9997, UniPC's 1 - 1e-6) would divide by nothing: there the denominator
    uses sigma_1, as released code does at sigma = 1, and the first step has noise a on every such schedule.
    """
    _check_range("a", a, 0)
    _require_flow(schedule, "flow_sde")
    sigma = schedule.sigma
    floor = 1 - sigma[:-1]
    if sigma[0] > NEARLY_ONE:
        floor[0] = 1 - sigma[1]
    return _euler_maruyama(schedule, a * (sigma[:-1] / floor).sqrt(), f"flow_sde({a:g})")


def dance_sde(schedule: Schedule, eta: float = 0.3) -> Dynamics:
    """DanceGRPO's SDE (2505.07818): the same formula with a constant s = eta."""
    _check_range("eta", eta, 0)
    _require_flow(schedule, "dance_sde")
    return _euler_maruyama(schedule, torch.full_like(schedule.sigma[1:], eta), f"dance_sde({eta:g})")


def memoryless(schedule: Schedule) -> Dynamics:
    """The memoryless SDE of Adjoint Matching (2409.08861): Flow-SDE with a = sqrt(2)."""
    _require_flow(schedule, "memoryless")
    return replace(flow_sde(schedule, math.sqrt(2)), name="memoryless")


def dpmpp2m(schedule: Schedule) -> Dynamics:
    """DPM-Solver++ 2M (2211.01095), deterministic; first order at the first step and where lambda is infinite."""
    table = ode(schedule)
    h = schedule.log_snr_half.diff()
    ratio = h[1:] / (2 * h[:-1])
    history = torch.cat([torch.zeros(1, dtype=ratio.dtype), torch.nan_to_num(ratio, nan=0, posinf=0, neginf=0)])
    return replace(table, history=history, name="dpmpp2m")


def where(mask: Sequence[bool] | Tensor, inside: Dynamics, outside: Dynamics) -> Dynamics:
    """A mixed table: rows of ``inside`` where mask is true, of ``outside`` elsewhere (windows).

    Args:
        mask: (T,) bool.
        inside: dynamics on the same schedule as ``outside``.
        outside: see ``inside``.

    Raises:
        ValueError: mask of another length, or different schedules.
    """
    m = torch.as_tensor(mask, dtype=torch.bool)
    if m.shape != inside.c.shape:
        raise ValueError(f"the mask has {m.numel()} entries, the schedule {inside.num_steps} steps")
    if not torch.equal(inside.schedule.sigma, outside.schedule.sigma):
        raise ValueError(f"{inside.name} and {outside.name} stand on different schedules: build both from one")
    return Dynamics(
        inside.schedule,
        kappa=torch.where(m, inside.kappa, outside.kappa),
        c=torch.where(m, inside.c, outside.c),
        history=torch.where(m, inside.history, outside.history),
        name=f"where({inside.name}, {outside.name})",
    )


def _euler_maruyama(schedule: Schedule, s: Tensor, name: str) -> Dynamics:
    sigma, dt = schedule.sigma, -schedule.sigma.diff()
    kappa = sigma[1:] - s**2 * dt / (2 * sigma[:-1])
    return Dynamics(schedule, kappa, s * dt.sqrt(), torch.zeros_like(s), name)


def _level_preserving(schedule: Schedule, c: Tensor, name: str) -> Dynamics:
    kappa = (schedule.next_sigma**2 - c**2).clamp(min=0).sqrt()
    return Dynamics(schedule, kappa, c, torch.zeros_like(c), name)


def _require_flow(schedule: Schedule, name: str) -> None:
    if not schedule.is_flow:
        raise ValueError(f"{name} is defined on flow schedules (alpha + sigma = 1); on this one use ddim(eta)")


def _check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} = {value} is outside [{low:g}, {high:g}]")
