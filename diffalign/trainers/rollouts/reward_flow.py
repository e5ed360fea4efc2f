"""The rewards of a rollout: scored beside it, gathered from all processes, combined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from diffalign import rewards as registry
from diffalign.rewards import Combination, Pending, Reward, Scorer
from diffalign.rewards.scoring import count_failures
from diffalign.trainers.reward_config import RewardConfig
from diffalign.trainers.rollouts.batch import MicroBatch, RolloutBatch
from diffalign.trainers.rollouts.spec import Record, RolloutSpec
from diffalign.trainers.run.batch import gather_rows
from diffalign.trainers.run.evaluation import decoded

Columns = dict[str, tuple[Tensor, float]]
"""Reward name -> ((N,) values, weight): the input of advantages."""

ReferenceScoresOf = Mapping[str, Tensor]
"""Reward name -> (P, M) scores of the frozen model's samples."""

NORMALIZE = {"sum_then_normalize": "sum", "normalize_then_sum": "each"}
"""multi_objective_aggregation -> the same as `normalize` of reward_combination, which goes before it."""


def combination(args: RewardConfig, rewards: Mapping[str, Reward], records: list[Record]) -> Combination:
    """How the rewards of a configuration are combined.

    Raises:
        ValueError: an unknown rule, transform, option or reward, or routes that do not fit the prompts.
    """
    made = registry.Combination(
        list(rewards),
        args.reward_weights,
        rule={"normalize": NORMALIZE[args.multi_objective_aggregation], **args.reward_combination},
        transforms=args.reward_transforms,
        routes=args.reward_routes,
        aliases=dict(zip(args.reward_funcs, rewards, strict=True)),
    )
    made.check_prompts(records)
    compared = [name for name in made.reference_samples if rewards[name].scope != "pointwise"]
    if compared:
        raise ValueError(f"{compared[0]} compares images already: it cannot be shaped against reference samples")
    return made


class RewardFlow:
    """Scores the images of rollouts.

    Args:
        rewards: by name, in the order of their weights.
        combined: how they are combined.
        accelerator: the processes.
        image_shape: of one decoded image.
        asynchronous: score beside the rollout.
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        combined: Combination,
        accelerator: Accelerator,
        *,
        image_shape: tuple[int, ...],
        asynchronous: bool,
    ) -> None:
        self.rewards, self.combination, self.accelerator = rewards, combined, accelerator
        self.image_shape = image_shape
        self._scorer = Scorer(rewards, asynchronous=asynchronous)
        self._pointwise = [name for name, reward in rewards.items() if reward.scope == "pointwise"]

    def submit(self, spec: RolloutSpec, micro: MicroBatch) -> Pending:
        """Give the images of a micro-batch to the rewards that score each image by itself."""
        records = spec.sample_records
        return self._submit(self._pointwise, decoded(micro.trajectory), [records[int(i)] for i in micro.rows])

    def _submit(self, names: list[str], images: Tensor, records: list[Record]) -> Pending:
        return self._scorer.submit(names, images, [r["prompt"] for r in records], [r["metadata"] for r in records])

    def gather(
        self, spec: RolloutSpec, mine: Mapping[int, MicroBatch], pending: Mapping[int, Pending]
    ) -> dict[str, Tensor]:
        """(N,) scores by name, equal on every process, when all are there.

        Args:
            spec: the global list.
            mine: micro-batches of this process.
            pending: their scores, as far as they were submitted; the others are scored now.
        """
        found = [(pending[n] if n in pending else self.submit(spec, micro)).result() for n, micro in mine.items()]
        rows = torch.cat([micro.rows for micro in mine.values()]) if mine else torch.zeros(0, dtype=torch.long)
        out = {}
        for name in self._pointwise:
            own = torch.cat([scores[name] for scores in found]) if found else torch.zeros(0)
            out[name] = gather_rows(self.accelerator, own, rows, spec.samples).cpu()
        if len(out) < len(self.rewards):
            out |= self._groupwise(spec, mine, rows)
        return {name: out[name] for name in self.rewards}  # their weights come in this order

    def _groupwise(self, spec: RolloutSpec, mine: Mapping[int, MicroBatch], rows: Tensor) -> dict[str, Tensor]:
        """Rewards that compare the images of a prompt see all samples in global order."""
        images = torch.zeros(0, *self.image_shape)
        if mine:  # else this process had no micro-batch
            images = torch.cat([decoded(micro.trajectory) for micro in mine.values()])
        everything = gather_rows(self.accelerator, images, rows, spec.samples)
        size = spec.samples // len(spec.records)
        tagged: list[Record] = [
            {**record, "metadata": {**record["metadata"], "group_id": row // size}}
            for row, record in enumerate(spec.sample_records)
        ]
        names = [name for name in self.rewards if name not in self._pointwise]
        return {name: values.cpu() for name, values in self._submit(names, everything, tagged).result().items()}

    def combined(
        self, batch: RolloutBatch, references: ReferenceScoresOf, state: dict[str, dict[str, Any]]
    ) -> tuple[Columns, dict[str, dict[str, Any]]]:
        """The input of advantages, and the running moments and multipliers after this rollout."""
        out, after = self.combination(
            {name: batch.by_group(values) for name, values in batch.rewards.items()},
            list(batch.spec.records),
            references=dict(references),
            state=state,
        )
        rows = zip(out.names, out.rewards, out.weights, strict=True)
        return {name: (values.flatten(), weight) for name, values, weight in rows}, after

    def usable(self, batch: RolloutBatch) -> Tensor:
        """(N,) bool: the samples that can be learned from."""
        by_group = {name: batch.by_group(values) for name, values in batch.rewards.items()}
        return self.combination.usable(by_group, list(batch.spec.records)).flatten()

    def routed_scores(self, batch: RolloutBatch) -> dict[str, Tensor]:
        """Reward name -> its values for the prompts it is for: all of them, but for routed rewards."""
        records = list(batch.spec.records)
        return {
            name: batch.by_group(values)[self.combination.routed(name, records)].flatten()
            for name, values in batch.rewards.items()
        }

    def numbers(self, batch: RolloutBatch, multipliers: Mapping[str, float]) -> dict[str, Any]:
        """Statistics of the rewards of a rollout for the log."""
        numbers: dict[str, Any] = {}
        scores = self.routed_scores(batch)
        failures = count_failures(scores)
        for name, values in scores.items():
            known = values[~values.isnan()]
            numbers[f"reward/{name}/mean"] = known.mean() if len(known) else float("nan")
            numbers[f"reward/{name}/std"] = known.std() if len(known) > 1 else float("nan")
            numbers[f"reward/{name}/nan"] = failures[name]
        return numbers | {f"reward/{name}/multiplier": value for name, value in multipliers.items()}

    def check_failure_rate(self, batch: RolloutBatch, limit: float) -> str | None:
        """A sentence about the first counted reward that failed on more than this share of its samples, or None."""
        for name, values in self.routed_scores(batch).items():
            failed = float(values.isnan().float().mean()) if len(values) else 0.0
            if name in self.combination.weights and failed > limit:
                return (
                    f"{name} could not score {int(values.isnan().sum())} of {len(values)} images, more than "
                    f"max_failed_rewards = {limit:g} allows"
                )
        return None
