"""What rewards say about samples when it is one advantage each: policy gradients and methods without likelihoods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffalign.config import RunConfig
from diffalign.losses import (
    batch_std,
    group_advantage,
    group_filters,
    group_std,
    no_scale,
    running_advantage,
    zero_variance_share,
)
from diffalign.trainers.base import BaseTrainer
from diffalign.trainers.batch import Batch

# eps is what the released code of each adds to the standard deviation: DanceGRPO (group), Flow-GRPO (batch).
SCALES: dict[str, Callable[..., Tensor]] = {
    "group": partial(group_advantage, scale=group_std, eps=1e-8),
    "batch": partial(group_advantage, scale=batch_std, eps=1e-4),
    "none": partial(group_advantage, scale=no_scale),
}
FILTERS: dict[str, Callable[[Tensor, RunConfig], Tensor]] = {
    "varied": lambda groups, _: group_filters.variance(groups),
    "not_saturated": lambda groups, config: group_filters.not_saturated(
        groups, mean_above=config.filter_mean, std_below=config.filter_std
    ),
    "unsolved_and_varied": lambda groups, config: group_filters.unsolved_and_varied(
        groups, mean_above=config.filter_mean, std_below=config.filter_std
    ),
}
"""group_filter -> (rewards (groups, G), configuration) -> (groups,) bool, True where the group is trained."""


@dataclass(frozen=True)
class Advantages:
    """What the rewards of a roll-out say.

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


class AdvantageTrainer(BaseTrainer):
    """Advantages from group statistics or per-prompt histories; see `BaseTrainer` for the arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.advantage == "running" and self.args.history_min_count > self.args.history_size:
            raise ValueError(
                f"history_min_count = {self.args.history_min_count} is never reached with "
                f"history_size = {self.args.history_size}: keep at least as many rewards as are needed"
            )

    def feedback(self, batch: Batch) -> Advantages:
        """Advantages of all samples, clipped; groups that the filter drops are out."""
        columns = self.flow.combined(batch)
        total = torch.stack([weight * values for values, weight in columns.values()]).sum(0)
        values = self._running(batch, columns) if self.args.advantage == "running" else self._grouped(batch, columns)
        groups = self._groups(batch, total)
        kept = torch.ones(len(groups), dtype=torch.bool)
        if self.args.group_filter != "none":
            kept = FILTERS[self.args.group_filter](groups, self.args)
        trained = kept[:, None].expand_as(groups).flatten()
        clipped = values.clamp(-self.args.advantage_clip, self.args.advantage_clip).float()
        return Advantages(
            torch.where(trained, clipped, 0),
            self.flow.usable(batch) & trained,
            zero_variance_share(groups),
            kept.float().mean(),
        )

    def _groups(self, batch: Batch, values: Tensor) -> Tensor:
        """(N,) -> one row per group: the images of a prompt, or the branches of one x_T."""
        copies = batch.spec.copies
        by_seed = self.args.group_by == "seed" and copies > 1  # else all images of a prompt have one x_T
        return values.view(-1, copies) if by_seed else batch.by_group(values)

    def _grouped(self, batch: Batch, columns: dict[str, tuple[Tensor, float]]) -> Tensor:
        stacked = torch.stack([self._groups(batch, values) for values, _ in columns.values()])
        combine = self.combination.normalization.combine
        weights = [weight for _, weight in columns.values()]
        return combine(stacked, weights, advantage=SCALES[self.args.scale_rewards]).flatten()

    def _running(self, batch: Batch, columns: dict[str, tuple[Tensor, float]]) -> Tensor:
        """DDPO's per-prompt statistics, on the weighted sum or on each reward."""
        prompts = [str(record["prompt"]) for record in batch.spec.sample_records]
        if not self.combination.normalization.each:
            columns = {"sum": (torch.stack([weight * values for values, weight in columns.values()]).sum(0), 1.0)}
        total = torch.zeros(batch.spec.samples)
        for name, (values, weight) in columns.items():
            history, advantages = running_advantage(
                self.state.history.get(name, {}),
                prompts,
                values,
                buffer_size=self.args.history_size,
                min_count=self.args.history_min_count,
            )
            self.state.history = {**self.state.history, name: history}
            total = total + weight * advantages
        return self.combination.normalization.last(total[None])[0]

    def group_numbers(self, feedback: Advantages, chunk: Tensor) -> dict[str, Any]:
        """What the log says about advantages and groups."""
        numbers: dict[str, Any] = {
            "advantage/abs_mean": feedback.values[chunk].abs().mean(),
            "group/zero_std": feedback.zero_variance,
        }
        return numbers if self.args.group_filter == "none" else numbers | {"group/kept": feedback.kept}
