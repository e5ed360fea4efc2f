"""Methods that learn from their own samples: draw prompts, roll out, score, turn rewards into feedback."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffalign.models import WeightCopy
from diffalign.rewards import Pending
from diffalign.rewards.scoring import score
from diffalign.sampling import StepPlan, rollout
from diffalign.trainers.base import BaseTrainer
from diffalign.trainers.checks.check import Check
from diffalign.trainers.checks.rewards import reward_checks, sensitivity
from diffalign.trainers.on_policy_config import OnPolicyConfig
from diffalign.trainers.rollouts.batch import MicroBatch, RolloutBatch
from diffalign.trainers.rollouts.reference_scores import ReferenceScores
from diffalign.trainers.rollouts.reward_flow import Columns, RewardFlow, combination
from diffalign.trainers.rollouts.spec import RolloutSpec, sample_spec
from diffalign.trainers.run.batch import Record
from diffalign.trainers.run.evaluation import decoded, evaluation_plan


class OnPolicyTrainer(BaseTrainer):
    """A method implements `plan`, `feedback` and `losses`; see `BaseTrainer` for the arguments.

    `samples_with_old` means that rollouts come from the averaged (old) policy; `keep_means` that the means of recorded
    steps are kept.
    """

    Config: ClassVar[type[OnPolicyConfig]]
    args: OnPolicyConfig
    samples_with_old: ClassVar[bool] = False

    @abstractmethod
    def plan(self, index: int) -> StepPlan:
        """The steps of rollout `index`."""

    @abstractmethod
    def feedback(self, batch: RolloutBatch, columns: Columns) -> tuple[Any, dict[str, Any]]:
        """What the rewards of a rollout mean for its samples (advantages, labels), equal on every process.

        Args:
            batch: the rollout.
            columns: its rewards after transforms and combination, with their weights.

        Returns:
            The feedback, and the entries of `state.method` that change with it; nothing is changed here.
        """

    @abstractmethod
    def losses(self, batch: RolloutBatch, number: int, rows: Tensor) -> Iterator[Tensor]: ...  # noqa: D102

    @property
    def keep_means(self) -> bool:
        """Keep the mean of each recorded step."""
        return False

    @property
    def updates_per_batch(self) -> int:
        """Optimiser steps that one rollout is used for."""
        return self.args.updates_per_rollout * self.args.num_iterations

    def setup_data(self) -> None:
        """Rewards and how they are combined; as many trajectories as updates."""
        self.combination = combination(self.args, self.rewards, self.records)
        roots = len(sample_spec(self.args, self.records, 0).seeds)
        if self.args.updates_per_rollout > roots:
            raise ValueError(
                f"updates_per_rollout = {self.args.updates_per_rollout}, but a rollout has only {roots} trajectories "
                "to share out to them; lower it, or raise prompts_per_rollout or num_generations"
            )

    def setup_model(self) -> None:
        """Scoring, the old policy, and a first plan: a window that does not fit the schedule is an error now."""
        self.flow = RewardFlow(
            self.rewards,
            self.combination,
            self.accelerator,
            image_shape=self.policy.image_shape,
            asynchronous=self.args.async_scoring,
        )
        self.references = ReferenceScores(
            self.combination.reference_samples,
            self._reference_scores,
            self.accelerator,
            seed=self.args.seed,
            batch_size=self.args.per_device_train_batch_size,
        )
        self.old = WeightCopy(self.policy) if self.samples_with_old or self.needs_old else None
        self.plan(0)

    @property
    def needs_old(self) -> bool:
        """Keep an averaged copy of the trained weights."""
        return False

    @property
    def needs_reference(self) -> bool:
        """For a KL term, or rewards that are compared with those of the frozen model."""
        return self.args.beta > 0 or bool(self.combination.reference_samples)

    @property
    def counted_rewards(self) -> list[str]:
        """Rewards of a weight other than 0."""
        return list(self.combination.weights)

    def collect(self, index: int) -> RolloutBatch:
        """Roll out and score the samples of rollout `index`; changes nothing."""
        spec, plan = sample_spec(self.args, self.records, index), self.plan(index)
        pieces = spec.micro_batches(self.args.per_device_train_batch_size, self.args.updates_per_rollout)
        numbered = [roots for update in pieces for roots in update]
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine: dict[int, MicroBatch] = {}
        pending: dict[int, Pending] = {}
        sampler = self.old.active() if self.old is not None and self.samples_with_old else nullcontext()
        with torch.no_grad(), sampler, self.clock.phase("rollout"), self.policy.meter.phase("rollout"):
            for number in range(rank, len(numbered), world):
                mine[number] = self._roll_out(spec, plan, numbered[number])
                if self.args.async_scoring:
                    pending[number] = self.flow.submit(spec, mine[number])
        with self.clock.phase("reward"):
            rewards = self.flow.gather(spec, mine, pending)
        return RolloutBatch(spec, plan, pieces, mine, rewards)

    def _roll_out(self, spec: RolloutSpec, plan: StepPlan, roots: Tensor) -> MicroBatch:
        records = [spec.records[int(i)] for i in spec.record_of[roots]]
        trajectory = rollout(
            self.policy,
            plan,
            [record["prompt"] for record in records],
            [spec.seeds[int(i)] for i in roots],
            run_seed=self.args.seed,
            branches=[spec.branches[int(i)] for i in roots],
            negative_prompt=self.args.negative_prompt,
            keep_means=self.keep_means,
        )
        return MicroBatch(spec.sample_rows(roots), trajectory)

    def prepare(self, batch: RolloutBatch) -> RolloutBatch:
        """The rollout with its feedback; moments, multipliers and histories go on by one rollout.

        Raises:
            RuntimeError: a reward failed on too many samples; the run is saved.
        """
        failure = self.flow.check_failure_rate(batch, self.args.max_failed_rewards)
        if failure:
            if self.state.step:
                self.save_checkpoint()
            raise RuntimeError(
                f"rollout {self.state.batch}: {failure}; see the warnings above, then resume_from_checkpoint latest "
                "goes on"
            )
        prepared, changed = self.with_feedback(batch)
        self.state.method = {**self.state.method, **changed}
        return prepared

    def with_feedback(self, batch: RolloutBatch) -> tuple[RolloutBatch, dict[str, Any]]:
        """The rollout with its feedback, and the entries of `state.method` after it; changes nothing."""
        references = self.references.of(list(batch.spec.records))
        columns, moments = self.flow.combined(batch, references, self.state.method.get("rewards", {}))
        feedback, changed = self.feedback(batch, columns)
        return replace(batch, feedback=feedback), {**changed, "rewards": moments}

    def usable(self, batch: RolloutBatch, rows: Tensor) -> bool:
        """Some sample of the update could be scored."""
        return bool(self.flow.usable(batch)[rows].any())

    def unusable_reason(self, batch: RolloutBatch) -> str:
        """The rewards that could not score."""
        dead = [f"{name}: {int(batch.rewards[name].isnan().sum())} NaN" for name in self.combination.weights]
        return f"none of its images could be scored (of {batch.samples} in the rollout, {', '.join(dead)})"

    def batch_metrics(self, batch: RolloutBatch) -> dict[str, Any]:
        """Number of the rollout, statistics of its rewards."""
        multipliers = self.state.method.get("rewards", {}).get("multipliers", {})
        return {"rollout": self.state.batch} | self.flow.numbers(batch, multipliers)

    def progress(self, batch: RolloutBatch) -> dict[str, str]:
        """The mean reward of the rollout."""
        return {"reward": f"{float(torch.stack([values.nanmean() for values in batch.rewards.values()]).mean()):.3f}"}

    def extra_state(self) -> dict[str, Any]:
        """The old policy's weights."""
        return {} if self.old is None else {"old": self.old.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Put them back."""
        if self.old is not None:
            self.old.load_state_dict(state["old"])

    def checks(self, batch: RolloutBatch) -> Iterable[Check]:
        """Rewards are finite and have spread inside groups."""
        return reward_checks(batch, self.flow, across_prompts=self.args.advantage == "running")

    def full_checks(self, batch: RolloutBatch) -> Iterable[Check]:
        """Rewards see noise."""
        return sensitivity(batch, self.flow)

    def _reference_scores(self, prompts: list[str], seeds: list[int], records: list[Record]) -> dict[str, Tensor]:
        """Scores of images of the frozen model: deterministic steps, at the guidance of training."""
        args = self.args
        plan = evaluation_plan(self.policy.schedule(args.num_inference_steps), args.guidance_scale)
        wanted = {name: self.rewards[name] for name in self.combination.reference_samples}
        with torch.no_grad(), self.reference.active(), self.policy.meter.phase("reference"):
            with self.clock.phase("rollout"):
                out = rollout(self.policy, plan, prompts, seeds, negative_prompt=args.negative_prompt)
            with self.clock.phase("reward"):
                return score(wanted, decoded(out), prompts, [record["metadata"] for record in records])
