"""Keys of the methods without likelihoods: noise levels to train at, and the averaged (old) policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffalign.config import key
from diffalign.trainers.on_policy_config import OnPolicyConfig, fraction_of


@dataclass(frozen=True, kw_only=True)
class ForwardProcessConfig(OnPolicyConfig):
    """Shared by NFT and AWM."""

    timestep_fraction: float = key(
        1.0, "fraction of the noise levels that is trained", above=0, high=1, section="forward process"
    )
    timestep_selection: Literal["first", "random"] = key(
        "first", "which levels that fraction is: the noisiest, or a draw for each sample (DiffusionNFT)"
    )
    first_timestep: int = key(0, "levels before this one are never trained (AWM on GenEval and OCR: 1)", low=0)
    train_timesteps: int | None = key(
        None, "noise levels per image and update; default: the whole timestep_fraction", above=0
    )
    beta_old: float = key(0.0, "weight of the velocity distance to the averaged (old) policy", low=0)
    old_decay: float = key(0.5, "highest decay of the old policy, averaged once a rollout; 0 = a copy", low=0, below=1)
    old_decay_rate: float = key(0.001, "growth of that decay per optimiser step", low=0)
    old_decay_start: int = key(0, "optimiser steps before it grows", low=0)

    @property
    def levels(self) -> range:
        """Step indices whose noise levels may be trained."""
        if self.timestep_selection == "random":
            return range(self.first_timestep, self.num_inference_steps)
        return range(self.first_timestep, fraction_of(self.num_inference_steps, self.timestep_fraction))

    @property
    def levels_per_update(self) -> int:
        """Noise levels at which each image is trained in one update."""
        whole = fraction_of(self.num_inference_steps, self.timestep_fraction) - self.first_timestep
        return self.train_timesteps or whole

    def check(self) -> None:
        """Levels inside the schedule; then the rules of rollouts."""
        available = fraction_of(self.num_inference_steps, self.timestep_fraction) - self.first_timestep
        if available < 1 or (self.train_timesteps or 1) > available:
            raise ValueError(
                f"train_timesteps = {self.train_timesteps}, but {self.num_inference_steps} steps with "
                f"timestep_fraction = {self.timestep_fraction:g} and first_timestep = {self.first_timestep} leave "
                f"{max(available, 0)} to choose from"
            )
        if self.sde_type != "ode" and self.noise_level == 0 and self.sde_type != "memoryless":
            raise ValueError(f"noise_level = 0 makes {self.sde_type} deterministic: say sde_type = ode")
        super().check()

    def decay_at(self, step: int) -> float:
        """Share of itself that the old policy keeps after a rollout that ended at this optimiser step.

        DiffusionNFT's three released schedules are (old_decay, rate, start) = (0, -, 0), (.5, .001, 0), (.999, .0075,
        75).
        """
        return min(max(step - self.old_decay_start, 0) * self.old_decay_rate, self.old_decay)
