"""Feedback as one advantage per sample: policy gradients and methods without likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffalign.losses import (
    batch_std,
    group_advantage,
    group_filters,
    group_std,
    no_scale,
    running_advantage,
    zero_variance_share,
)
from diffalign.trainers.checks.check import Check
from diffalign.trainers.on_policy import OnPolicyTrainer
from diffalign.trainers.on_policy_config import OnPolicyConfig
from diffalign.trainers.rollouts.batch import RolloutBatch
from diffalign.trainers.rollouts.reward_flow import Columns

SCALES: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "group": (group_std, {"unbiased": True, "eps": 1e-8}),  # DanceGRPO
    "batch": (batch_std, {"unbiased": False, "eps": 1e-4}),  # Flow-GRPO with global_std
    "none": (no_scale, {}),
}
"""scale_rewards -> divisor, and its released std kind and epsilon."""

FILTERS: dict[str, Callable[[Tensor, OnPolicyConfig], Tensor]] = {
    "varied": lambda groups, _: group_filters.variance(groups),
    "not_saturated": lambda groups, config: group_filters.not_saturated(
        groups, mean_above=config.filter_mean, std_below=config.filter_std
    ),
    "unsolved_and_varied": lambda groups, config: group_filters.unsolved_and_varied(
        groups, mean_above=config.filter_mean, std_below=config.filter_std
    ),
}
"""group_filter -> (rewards (groups, G), configuration) -> (groups,) bool, True where the group is trained."""

SMALLEST = 1e-3
"""Largest advantage of a rollout below which nothing is learned: the optimiser would follow rounding errors."""


@dataclass(frozen=True)
class Advantages:
    """Feedback of a rollout.

    Attributes:
        values: (N,) advantages, 0 where a sample could not be scored or its group is left out.
        valid: (N,) bool, the samples that are trained; the others leave the denominator too.
        zero_variance: share of groups without reward spread.
        kept: share of groups that `group_filter` keeps.
    """

    values: Tensor
    valid: Tensor
    zero_variance: Tensor
    kept: Tensor


def advantage_function(config: OnPolicyConfig) -> Callable[..., Tensor]:
    """The group advantage with the divisor, std kind and epsilon of a configuration."""
    scale, released = SCALES[config.scale_rewards]
    if not released:
        return partial(group_advantage, scale=scale)
    unbiased = released["unbiased"] if config.reward_std is None else config.reward_std == "unbiased"
    eps = released["eps"] if config.reward_std_epsilon is None else config.reward_std_epsilon
    return partial(group_advantage, scale=partial(scale, unbiased=unbiased), eps=eps)


class AdvantageTrainer(OnPolicyTrainer):
    """Advantages from group statistics or per-prompt histories; see `BaseTrainer` for the arguments."""

    def feedback(self, batch: RolloutBatch, columns: Columns) -> tuple[Advantages, dict[str, Any]]:
        """Advantages of all samples, clipped; groups that the filter drops are out."""
        total = torch.stack([weight * values for values, weight in columns.values()]).sum(0)
        history = self.state.method.get("history", {})
        if self.args.advantage == "running":
            values, history = self._running(batch, columns, history)
        else:
            values = self._grouped(batch, columns)
        groups = self._groups(batch, total)
        kept = torch.ones(len(groups), dtype=torch.bool)
        if self.args.group_filter != "none":
            kept = FILTERS[self.args.group_filter](groups, self.args)
        trained = kept[:, None].expand_as(groups).flatten()
        clipped = values.clamp(-self.args.advantage_clip, self.args.advantage_clip).float()
        advantages = Advantages(
            torch.where(trained, clipped, 0),
            self.flow.usable(batch) & trained,
            zero_variance_share(groups),
            kept.float().mean(),
        )
        return advantages, {"history": history}

    def _groups(self, batch: RolloutBatch, values: Tensor) -> Tensor:
        """(N,) -> one row per group: the images of a prompt, or the branches of one x_T."""
        copies = batch.spec.copies
        by_seed = self.args.group_by == "seed" and copies > 1  # else all images of a prompt have one x_T
        return values.view(-1, copies) if by_seed else batch.by_group(values)

    def _grouped(self, batch: RolloutBatch, columns: Columns) -> Tensor:
        stacked = torch.stack([self._groups(batch, values) for values, _ in columns.values()])
        combine = self.combination.normalization.combine
        weights = [weight for _, weight in columns.values()]
        return combine(stacked, weights, advantage=advantage_function(self.args)).flatten()

    def _running(self, batch: RolloutBatch, columns: Columns, history: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """DDPO's per-prompt statistics, on the weighted sum or on each reward; and the histories after it."""
        prompts = [str(record["prompt"]) for record in batch.spec.sample_records]
        if not self.combination.normalization.each:
            columns = {"sum": (torch.stack([weight * values for values, weight in columns.values()]).sum(0), 1.0)}
        total = torch.zeros(batch.samples)
        for name, (values, weight) in columns.items():
            grown, advantages = running_advantage(
                history.get(name, {}),
                prompts,
                values,
                buffer_size=self.args.history_size,
                min_count=self.args.history_min_count,
            )
            history = {**history, name: grown}
            total = total + weight * advantages
        return self.combination.normalization.last(total[None])[0], history

    def checks(self, batch: RolloutBatch) -> Iterator[Check]:
        """Rewards, and advantages of a size that can be learned from."""
        yield from super().checks(batch)
        feedback = self.with_feedback(batch)[0].feedback
        largest = float(feedback.values.abs().max())
        yield Check(
            "advantages have a usable size",
            largest >= SMALLEST or not bool(feedback.valid.any()) or float(feedback.zero_variance) == 1,
            f"largest |advantage| {largest:.2g}",
            "The reward's scale is lost in arithmetic: bring it near 1 (reward_transforms), or set reward_std_epsilon "
            "far below its spread.",
        )

    def group_metrics(self, feedback: Advantages, rows: Tensor) -> dict[str, Any]:
        """Advantages and groups, for the log."""
        numbers: dict[str, Any] = {
            "advantage/abs_mean": feedback.values[rows].abs().mean(),
            "group/zero_std": feedback.zero_variance,
        }
        return numbers if self.args.group_filter == "none" else numbers | {"group/kept": feedback.kept}
