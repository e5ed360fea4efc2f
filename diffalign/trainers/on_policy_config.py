"""Keys of the methods that roll out, score, and learn from their own samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from diffalign.config import key
from diffalign.trainers.reward_config import RewardConfig


@dataclass(frozen=True, kw_only=True)
class OnPolicyConfig(RewardConfig):
    """Rollouts of groups of images, and the updates that each rollout is used for."""

    sde_type: Literal["flow_sde", "dance_sde", "cps", "ddim", "memoryless", "ode"] = key(
        "flow_sde",
        "step noise: flow_sde(a), dance_sde(eta), cps(a), ddim(eta), memoryless, ode",
        section="rollouts",
    )
    noise_level: float = key(0.7, "a or eta of sde_type", low=0)
    ode_solver: Literal["euler", "dpmpp2m"] = key("euler", "deterministic steps of rollouts: Euler or DPM-Solver++ 2M")
    same_initial_noise: bool = key(False, "one x_T for the whole group (DanceGRPO)")
    num_generations: int = key(16, "images per prompt: the group size", above=0, aliases=["group_size"])
    updates_per_rollout: int = key(2, "optimiser steps the images of one rollout are shared out to", above=0)
    num_iterations: int = key(1, "passes over each rollout", above=0)
    advantage: Literal["group", "running"] = key(
        "group", "group statistics (GRPO) or per-prompt history (DDPO)", section="advantages"
    )
    scale_rewards: Literal["group", "batch", "none"] = key(
        "batch", "divisor of centred rewards: std of the group, std of the batch, or none"
    )
    reward_std: Literal["unbiased", "population"] | None = key(
        None, "std over n - 1 or over n; default unbiased for group (DanceGRPO), population for batch (Flow-GRPO)"
    )
    reward_std_epsilon: float | None = key(
        None, "added to that std; default 1e-8 for group, 1e-4 for batch (released Flow-GRPO: 1e-4 for both)", low=0
    )
    advantage_clip: float = key(5.0, "advantages are clipped to +- this", above=0)
    group_by: Literal["prompt", "seed"] = key(
        "prompt", "a group: the images of a prompt, or the branches of one x_T (TempFlow-GRPO)"
    )
    group_filter: Literal["none", "varied", "not_saturated", "unsolved_and_varied"] = key(
        "none", "groups trained: all, those with spread, those not (good and uniform), those neither good nor uniform"
    )
    filter_mean: float = key(0.9, "group_filter: a group whose mean reward is above this is good")
    filter_std: float = key(0.05, "group_filter: a group whose reward std is below this is uniform", low=0)
    history_size: int = key(32, "rewards kept per prompt by advantage = running", above=0)
    history_min_count: int = key(16, "rewards a prompt needs before its own statistics are used", above=0)
    beta: float = key(0.0, "weight of the KL to the reference policy (adapter off)", low=0)

    @property
    def branches(self) -> int:
        """Samples that share one trajectory up to a fork; only some methods fork."""
        return 1

    def check(self) -> None:
        """Groups and noise; then the rules of rewards."""
        if self.advantage == "group" and self.num_generations < 2:
            raise ValueError(
                f"num_generations = {self.num_generations}: a group of one has advantage 0 and nothing is learned; "
                "use at least 2, or advantage = running (per-prompt history)"
            )
        if self.advantage == "running" and self.history_min_count > self.history_size:
            raise ValueError(
                f"history_min_count = {self.history_min_count} is never reached with "
                f"history_size = {self.history_size}: keep at least as many rewards as are needed"
            )
        if self.same_initial_noise and self.num_generations < 2:
            raise ValueError("same_initial_noise needs num_generations >= 2")
        if self.same_initial_noise and self.sde_type == "ode":
            raise ValueError(
                "same_initial_noise with sde_type = ode makes one image many times: drop one of the two, or use step "
                "noise"
            )
        if self.group_by == "seed" and self.branches < 2 and not self.same_initial_noise:
            raise ValueError(
                "group_by = seed compares images of one x_T, and here each has its own: set prefix_branches (with "
                "sde_window_size) or same_initial_noise"
            )
        if self.group_filter != "none" and self.advantage == "running":
            raise ValueError("group_filter needs groups: advantage = running compares a prompt with its own past")
        super().check()


def fraction_of(steps: int, fraction: float) -> int:
    """Whole steps in a fraction of a schedule, rounded down, at least one."""
    return max(math.floor(steps * fraction + 1e-9), 1)
