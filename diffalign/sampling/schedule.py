"""Noise schedules: ``x_k = alpha_k * x0 + sigma_k * eps`` on T+1 levels, noise first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffalign.sampling.prediction import PREDICTIONS


@dataclass(frozen=True)
class Schedule:
    """The levels a sampler walks through, from noise (index 0) to image (index T).

    Attributes:
        alpha: (T+1,) float64, signal level, rising.
        sigma: (T+1,) float64, noise level, falling; ``sigma[T]`` is what the scheduler itself ends at (0 for flow
            models, .029 for Stable Diffusion's DDIM).
        timestep: (T,) what the network is given at each step, in the scheduler's own units and dtype.
        prediction: what the network returns: "flow" (eps - x0), "epsilon", "v_prediction" or "sample".
        initial: x_T is `initial` times standard normal noise (below 1 for Euler schedulers with trailing spacing).
        ends: (alpha, sigma), (T,) each, of the level where every step ends, if that is not the next step's own:
            diffusers' DDIM with trailing or linspace spacing steps to a level that its next timestep does not name.
    """

    alpha: Tensor
    sigma: Tensor
    timestep: Tensor
    prediction: str
    initial: float = 1.0
    ends: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction {self.prediction!r} is unknown; valid: {', '.join(PREDICTIONS)}")
        if self.alpha.shape != self.sigma.shape or self.alpha.shape[0] != self.timestep.shape[0] + 1:
            raise ValueError(
                f"a schedule of T steps needs T+1 alphas and sigmas and T timesteps; got {tuple(self.alpha.shape)}, "
                f"{tuple(self.sigma.shape)} and {tuple(self.timestep.shape)}"
            )
        if not bool(self.alpha.isfinite().all() and self.sigma.isfinite().all()):
            raise ValueError(
                f"levels must be finite; got sigma {self.sigma.tolist()}. A shift far outside of the scheduler's range "
                "(an image much larger than the model is made for) does this"
            )
        falls = self.sigma.diff()
        # The last step alone may stay: DDIM's linspace spacing names the last level twice.
        if bool((falls[:-1] >= 0).any() or (falls[-1:] > 0).any()):
            raise ValueError(f"sigma must fall from step to step; got {self.sigma.tolist()}")

    @property
    def num_steps(self) -> int:
        """T, the number of steps."""
        return int(self.timestep.shape[0])

    @property
    def next_alpha(self) -> Tensor:
        """(T,) signal level at the end of each step."""
        return self.alpha[1:] if self.ends is None else self.ends[0]

    @property
    def next_sigma(self) -> Tensor:
        """(T,) noise level at the end of each step."""
        return self.sigma[1:] if self.ends is None else self.ends[1]

    @property
    def is_flow(self) -> bool:
        """True for the straight path ``alpha + sigma = 1``."""
        return bool(((self.alpha + self.sigma - 1).abs() < 1e-5).all())

    @property
    def log_snr_half(self) -> Tensor:
        """(T+1,) lambda = log(alpha / sigma), -inf at pure noise and +inf at the clean end."""
        return self.alpha.log() - self.sigma.log()


def flow_schedule(sigmas: Sequence[float] | Tensor, *, num_train_timesteps: int = 1000) -> Schedule:
    """The straight path ``alpha = 1 - sigma`` of flow matching.

    Args:
        sigmas: (T+1,) falling noise levels, 1 to 0.
        num_train_timesteps: the network is given ``num_train_timesteps * sigma``.
    """
    sigma = torch.as_tensor(sigmas, dtype=torch.float64)
    return Schedule(1 - sigma, sigma, (sigma[:-1] * num_train_timesteps).float(), "flow")


def vp_schedule(alpha_bars: Sequence[float] | Tensor, timesteps: Sequence[int] | Tensor, prediction: str) -> Schedule:
    """A variance-preserving path: ``alpha = sqrt(alpha_bar)``, ``sigma = sqrt(1 - alpha_bar)``.

    Args:
        alpha_bars: (T+1,) rising cumulative products; the last one belongs to the final image.
        timesteps: (T,) integers given to the network.
        prediction: "epsilon", "v_prediction" or "sample".
    """
    bar = torch.as_tensor(alpha_bars, dtype=torch.float64)
    return Schedule(bar.sqrt(), (1 - bar).sqrt(), torch.as_tensor(timesteps), prediction)


def shifted_sigmas(num_steps: int, shift: float = 1.0) -> Tensor:
    """Linear sigmas from 1 to 0 moved towards noise once: ``shift s / (1 + (shift - 1) s)``.

    Shape (num_steps + 1,) float64. This is DanceGRPO's and MixGRPO's grid; diffusers shifts its low end twice.
    """
    sigma = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
    return shift * sigma / (1 + (shift - 1) * sigma)


def skip_tail_steps(schedule: Schedule, after: int, fraction: float) -> Schedule:
    """The same levels up to step `after`, and only a fraction of the steps that follow (MixGRPO-Flash, 2507.21802).

    The levels that stay are spread evenly over those that were there, and the last one always stays: released code
    lays out one point fewer, which at one remaining step ends on noise.

    Args:
        schedule: the levels.
        after: index of the first level that may be left out behind.
        fraction: share of the remaining T - after steps that is kept, rounded up.

    Raises:
        ValueError: after outside the schedule, or fraction outside (0, 1].
    """
    total = schedule.num_steps
    if not 0 <= after <= total or not 0 < fraction <= 1:
        raise ValueError(f"after = {after} must lie in 0..{total}, fraction = {fraction} in (0, 1]")
    kept = math.ceil((total - after) * fraction - 1e-9)
    late = torch.linspace(after, total, kept + 1, dtype=torch.float64).round().long()
    levels = torch.cat([torch.arange(after), late])
    steps = levels[:-1]
    ends = schedule.ends
    if ends is not None:  # a step that still ends at its old neighbour keeps its own end
        old = levels[1:] == steps + 1
        pairs = zip((schedule.alpha, schedule.sigma), ends, strict=True)
        alpha, sigma = (torch.where(old, end[steps], level[levels[1:]]) for level, end in pairs)
        ends = alpha, sigma
    return replace(
        schedule,
        alpha=schedule.alpha[levels],
        sigma=schedule.sigma[levels],
        timestep=schedule.timestep[steps],
        ends=ends,
    )
