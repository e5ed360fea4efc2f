"""The rewards of a run on their way: scored beside the roll-out, gathered from all processes, combined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffalign import rewards as registry
from diffalign.config import RunConfig
from diffalign.rewards import Pending, Reward, Scorer
from diffalign.rewards.scoring import count_failures
from diffalign.trainers.batch import Batch, MicroBatch, gather_rows
from diffalign.trainers.evaluation import decoded
from diffalign.trainers.reference_scores import ReferenceScores
from diffalign.trainers.rollout_spec import Record, RolloutSpec

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer

NORMALIZE = {"sum_then_normalize": "sum", "normalize_then_sum": "each"}
"""multi_objective_aggregation -> the same as `normalize` of reward_combination, which goes before it."""
Columns = dict[str, tuple[Tensor, float]]
"""Reward name -> ((N,) values, weight): what advantages are made of."""


def combination(args: RunConfig, rewards: Mapping[str, Reward], records: list[Record]) -> registry.Combination:
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
    """Scores, gathers and combines.

    Args:
        trainer: the run, with its rewards and its combination.
    """

    def __init__(self, trainer: BaseTrainer) -> None:
        self.trainer = trainer
        self._scorer = Scorer(trainer.rewards, asynchronous=trainer.args.async_scoring)
        self._alone = [name for name, reward in trainer.rewards.items() if reward.scope == "pointwise"]
        self._references = ReferenceScores(trainer)

    def hand_over(self, listed: RolloutSpec, micro: MicroBatch) -> Pending:
        """Give the images of a micro-batch to the rewards that score each alone."""
        records = listed.sample_records
        return self._submit(self._alone, decoded(micro.trajectory), [records[int(i)] for i in micro.rows])

    def _submit(self, names: list[str], images: Tensor, records: list[Record]) -> Pending:
        return self._scorer.submit(names, images, [r["prompt"] for r in records], [r["metadata"] for r in records])

    def gather(
        self, listed: RolloutSpec, mine: Mapping[int, MicroBatch], pending: Mapping[int, Pending]
    ) -> dict[str, Tensor]:
        """(N,) scores by name, equal on every process, when all are there.

        Args:
            listed: the global list.
            mine: micro-batches of this process.
            pending: their scores, as far as they were handed over; the others are scored now.
        """
        found = [(pending[n] if n in pending else self.hand_over(listed, micro)).result() for n, micro in mine.items()]
        rows = torch.cat([micro.rows for micro in mine.values()]) if mine else torch.zeros(0, dtype=torch.long)
        out = {}
        for name in self._alone:
            own = torch.cat([scores[name] for scores in found]) if found else torch.zeros(0)
            out[name] = gather_rows(self.trainer.accelerator, own, rows, listed.samples).cpu()
        if len(out) < len(self.trainer.rewards):
            out |= self._together(listed, mine, rows)
        return {name: out[name] for name in self.trainer.rewards}  # their weights come in this order

    def _together(self, listed: RolloutSpec, mine: Mapping[int, MicroBatch], rows: Tensor) -> dict[str, Tensor]:
        """Rewards that compare the images of a prompt see all samples in global order."""
        trainer = self.trainer
        images = torch.zeros(0, *trainer.policy.image_shape)
        if mine:  # else this process had no micro-batch
            images = torch.cat([decoded(micro.trajectory) for micro in mine.values()])
        everything = gather_rows(trainer.accelerator, images, rows, listed.samples)
        size = trainer.args.num_generations
        tagged: list[Record] = [
            {**record, "metadata": {**record["metadata"], "group_id": row // size}}
            for row, record in enumerate(listed.sample_records)
        ]
        names = [name for name in trainer.rewards if name not in self._alone]
        return {name: values.cpu() for name, values in self._submit(names, everything, tagged).result().items()}

    def combined(self, batch: Batch) -> Columns:
        """What advantages are made of; running moments and multipliers go on by one roll-out."""
        trainer, records = self.trainer, list(batch.spec.records)
        out, state = trainer.combination(
            {name: batch.by_group(values) for name, values in batch.rewards.items()},
            records,
            references=self._references.of(records),
            state=trainer.state.rewards,
        )
        trainer.state.rewards = state
        rows = zip(out.names, out.rewards, out.weights, strict=True)
        return {name: (values.flatten(), weight) for name, values, weight in rows}

    def usable(self, batch: Batch) -> Tensor:
        """(N,) bool: the samples that can be learned from."""
        by_group = {name: batch.by_group(values) for name, values in batch.rewards.items()}
        return self.trainer.combination.usable(by_group, list(batch.spec.records)).flatten()

    def routed_scores(self, batch: Batch) -> dict[str, Tensor]:
        """Reward name -> its values where it was asked: everywhere, but for routed rewards."""
        records, combination = list(batch.spec.records), self.trainer.combination
        return {
            name: batch.by_group(values)[combination.routed(name, records)].flatten()
            for name, values in batch.rewards.items()
        }

    def numbers(self, batch: Batch) -> dict[str, Any]:
        """What the log says about the rewards of a roll-out, and of the multipliers as they stand after it."""
        numbers: dict[str, Any] = {}
        asked = self.routed_scores(batch)
        failures = count_failures(asked)
        for name, values in asked.items():
            known = values[~values.isnan()]
            numbers[f"reward/{name}/mean"] = known.mean() if len(known) else float("nan")
            numbers[f"reward/{name}/std"] = known.std() if len(known) > 1 else float("nan")
            numbers[f"reward/{name}/nan"] = failures[name]
        for name, value in self.trainer.state.rewards.get("multipliers", {}).items():
            numbers[f"reward/{name}/multiplier"] = value
        return numbers

    def check_failure_rate(self, batch: Batch) -> None:
        """End the run, saved, when a reward that counts failed on too many samples.

        Raises:
            RuntimeError: names the reward, how many, and how to go on.
        """
        trainer = self.trainer
        for name, values in self.routed_scores(batch).items():
            failed = float(values.isnan().float().mean()) if len(values) else 0.0
            if name in trainer.combination.weights and failed > trainer.args.max_failed_rewards:
                if trainer.state.step:
                    trainer.save_checkpoint()
                limit = trainer.args.max_failed_rewards
                raise RuntimeError(
                    f"roll-out {trainer.state.rollout}: {name} could not score {int(values.isnan().sum())} of "
                    f"{len(values)} images, and max_failed_rewards = {limit:g} bears no more; "
                    "see the warnings above, then resume_from_checkpoint latest goes on"
                )
