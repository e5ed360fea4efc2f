"""Keys of the methods that draw prompts and train on rewards of the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from diffalign.config import RunConfig, key

DEFAULT_REWARDS = ["shapes"]


@dataclass(frozen=True, kw_only=True)
class RewardConfig(RunConfig):
    """Prompts to draw, rewards to optimise, and how several rewards are combined."""

    prompts_per_rollout: int = key(16, "prompts (groups) per rollout", above=0, section="prompts and rewards")
    task_weights: dict[str, float] = key({}, "share of each task (metadata tag) among drawn prompts; default uniform")
    reward_funcs: list[str] = key(DEFAULT_REWARDS, "reward names, or file.py:function")
    reward_weights: list[float] | None = key(None, "one weight per reward; default 1")
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = key(
        "sum_then_normalize",
        "several rewards: weigh then normalise, or normalise each then weigh (MixGRPO); GDPO, which TRL means by this "
        "name, is reward_combination: {normalize: gdpo}",
    )
    reward_transforms: dict[str, Any] = key({}, "per reward a list of transforms: clamp, affine, rank, normalize, ...")
    reward_combination: dict[str, Any] = key({}, "{rule: name, option: value}; default the sum by reward_weights")
    reward_routes: dict[str, dict[str, Any]] = key({}, "per reward {metadata key: values, prompt: regex} it is for")
    async_scoring: bool = key(True, "score images beside the rollout, in one thread per reward; same scores")
    max_failed_rewards: float = key(
        1.0, "share of a rollout a counted reward may fail on; above it the run stops", above=0, high=1
    )

    @property
    def trained_rewards(self) -> list[str]:
        """Names of the rewards that are optimised."""
        return self.reward_funcs

    @property
    def rewards_given(self) -> bool:
        """False with the default: `Trainer(reward_funcs=...)` may name others, and checks again."""
        return self.reward_funcs != DEFAULT_REWARDS

    def check(self) -> None:
        """Rewards and their weights; then the common rules."""
        if not self.reward_funcs:
            raise ValueError("reward_funcs is empty: name at least one reward (`diffalign rewards list`)")
        if (
            self.rewards_given
            and self.reward_weights is not None
            and len(self.reward_weights) != len(self.reward_funcs)
        ):
            raise ValueError(f"{len(self.reward_weights)} reward_weights for {len(self.reward_funcs)} reward_funcs")
        if self.reward_weights is not None and not any(self.reward_weights):
            raise ValueError("all reward_weights are 0: nothing would be learned")
        weights = self.task_weights.values()
        if weights and (min(weights) < 0 or max(weights) == 0):
            raise ValueError(f"task_weights = {self.task_weights} must not be negative, and not all zero")
        super().check()
