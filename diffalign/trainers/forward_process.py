"""Methods without likelihoods (DiffusionNFT, AWM): re-noised samples of any sampler.

They share rollout, rewards, advantages, optimiser and checkpoints with the policy gradient; only the objective
differs. An image is noised to a few levels, the velocity there is predicted (guided as in the rollout), and the
objective compares it with the noise that was added. A level and its noise are functions of seed, update and sample, so
that batch size and number of processes change nothing.

The old policy is a second set of the trained weights, averaged once per rollout: ``old <- d old + (1 - d) policy``,
``d = min(old_decay_rate max(step - old_decay_start, 0), old_decay)``. DiffusionNFT samples from it and contrasts with
it; AWM may be held near it (beta_old).
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from diffalign.losses import latent_mean, velocity_kl
from diffalign.sampling import StepPlan, Trajectory, noise_key, noised, step_noise
from diffalign.sampling.forward_process import denoise
from diffalign.trainers.advantages import AdvantageTrainer
from diffalign.trainers.checks.check import Check, kl_has_gradient, no_dropout
from diffalign.trainers.forward_process_config import ForwardProcessConfig
from diffalign.trainers.rollouts.batch import RolloutBatch
from diffalign.trainers.rollouts.plans import sampling_plan
from diffalign.trainers.rollouts.spec import FORWARD, LEVELS
from diffalign.trainers.run.batch import gather_rows
from diffalign.trainers.run.distilled import sign_of_distillation


class NoisedSample(NamedTuple):
    """Samples at the level where they are trained.

    Attributes:
        k: (B,) step index, whose sigma is t.
        t: (B,) noise level in (0, 1].
        x0: (B, ...) clean latents, fp32.
        noise: (B, ...) what was added.
        x: (B, ...) noised latents.
    """

    k: Tensor
    t: Tensor
    x0: Tensor
    noise: Tensor
    x: Tensor


def levels(config: ForwardProcessConfig, step: int, seeds: Sequence[int], branches: Sequence[int]) -> Tensor:
    """(B, n) step indices whose noise levels each sample is trained at, in one update.

    The available levels are cut into n parts with one draw from each (AWM), or n of them are drawn (DiffusionNFT); a
    function of seed, update and sample alone.

    Args:
        config: the run configuration.
        step: optimiser step.
        seeds: (B,) seeds of x_T.
        branches: (B,) keys that distinguish samples of one seed.
    """
    first, last = config.levels.start, config.levels.stop
    count = config.levels_per_update
    rows = []
    for seed, branch in zip(seeds, branches, strict=True):
        generator = torch.Generator().manual_seed(noise_key(config.seed, LEVELS, step, seed, branch))
        if config.timestep_selection == "random":
            rows.append(first + torch.randperm(last - first, generator=generator)[:count])
        else:
            edges = torch.linspace(first, last, count + 1).floor()
            rows.append((edges[:-1] + torch.rand(count, generator=generator) * edges.diff()).long())
    return torch.stack(rows)


class ForwardProcessTrainer(AdvantageTrainer):
    """Shared by NFT and AWM; see `BaseTrainer` for the arguments."""

    Config: ClassVar[type[ForwardProcessConfig]]
    args: ForwardProcessConfig

    def setup_model(self) -> None:
        """A flow model, and preferably one that was not distilled to few steps."""
        super().setup_model()
        self._stats: list[tuple[Tensor, Tensor]] = []
        if self.policy.prediction != "flow":
            raise ValueError(
                f"method = {self.args.method} is for flow models; this one predicts {self.policy.prediction}: "
                "use method = policy_gradient with sde_type = ddim"
            )
        sign = sign_of_distillation(self.policy)
        if sign:
            warnings.warn(
                f"this looks like a few-step distilled model ({sign}): a matching loss on its own samples averages "
                f"its one-step predictions, and images grow blurry. Use method = {self.args.method} on the undistilled "
                "model, or method = policy_gradient here",
                stacklevel=2,
            )

    def plan(self, index: int) -> StepPlan:
        """Any sampler: only the image counts."""
        return sampling_plan(self.args, self.policy.schedule(self.args.num_inference_steps))

    @property
    def needs_old(self) -> bool:
        """Held near the averaged policy."""
        return self.args.beta_old > 0

    def finish(self, batch: RolloutBatch) -> None:
        """The old policy follows the trained one."""
        if self.old is not None:
            self.old.average(self.args.decay_at(self.state.step))

    def losses(self, batch: RolloutBatch, number: int, rows: Tensor) -> Iterator[Tensor]:
        """One term per level: the graph of one prediction is in memory at a time."""
        micro, feedback = batch.mine[number], batch.feedback
        advantages, valid = feedback.values[micro.rows], feedback.valid[micro.rows]
        if not bool(valid.any()) or (self._needs_reward and not bool(advantages.any())):
            return  # exactly zero gradient
        trajectory = micro.trajectory
        device = trajectory.x.device
        advantages, valid = advantages.to(device), valid.to(device)
        chosen = levels(self.args, self.state.step, trajectory.seeds.tolist(), trajectory.branch.tolist())
        term_weight = 1 / (max(int(feedback.valid[rows].sum()), 1) * chosen.shape[1])
        same = self.old is not None and self.old.equals_policy()  # then its prediction is the policy's own
        for draw in range(chosen.shape[1]):
            point = self._point(trajectory, chosen[:, draw], draw)
            # First the other policies: they exchange weights, which an open graph would not survive.
            reference = self._predict_with(self.reference, trajectory, point) if self.args.beta else None
            old = None if self.old is None or same else self._predict_with(self.old, trajectory, point)
            before = self._before(trajectory, point, old)
            value = denoise(self.policy, trajectory.plan, trajectory.conditioning, point.k, point.x)
            if same:
                old = value.detach()
                before = old if before is None else before
            terms, log_ratio = self.objective(value, before, point, advantages)
            kl = torch.zeros_like(terms) if reference is None else velocity_kl(value, reference, reduce=latent_mean)
            away = torch.zeros_like(terms) if old is None else velocity_kl(value, old, reduce=latent_mean)
            stats = torch.stack([terms, kl, away, log_ratio.abs(), torch.ones_like(kl)], 1)
            self._stats.append((micro.rows, stats.detach().float().cpu()))
            total = terms + self.args.beta * kl + self.args.beta_old * away
            yield torch.where(valid, total, 0).sum() * term_weight

    @abstractmethod
    def objective(
        self, value: Tensor, before: Tensor | None, point: NoisedSample, advantages: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B,) terms to minimise, and (B,) log-ratios for the log (0 where there are none).

        Args:
            value: (B, ...) the policy's velocity.
            before: (B, ...) that of the weights which the update compares with, None where they are the policy's own.
            point: where.
            advantages: (B,), clipped.
        """

    @property
    def _needs_reward(self) -> bool:
        """True when samples of advantage 0 have no gradient."""
        return False

    def _before(self, trajectory: Trajectory, point: NoisedSample, old: Tensor | None) -> Tensor | None:
        """Velocity of the weights that sampled; None where they are the policy's own."""
        return old

    def _point(self, trajectory: Trajectory, k: Tensor, draw: int) -> NoisedSample:
        schedule = trajectory.plan.dynamics.schedule
        x0 = trajectory.x.float()
        key = noise_key(self.args.seed, FORWARD, self.state.step)
        shape = tuple(x0.shape[1:])
        noise = step_noise(shape, trajectory.seeds.tolist(), trajectory.branch.tolist(), draw, key).to(x0.device)
        return NoisedSample(k, schedule.sigma[k].to(x0), x0, noise, noised(schedule, k, x0, noise))

    def _predict_with(
        self, weights: Any, trajectory: Trajectory, point: NoisedSample, phase: str = "reference"
    ) -> Tensor:
        with torch.no_grad(), weights.active(), self.policy.meter.phase(phase):
            return denoise(self.policy, trajectory.plan, trajectory.conditioning, point.k, point.x)

    def metrics(self, batch: RolloutBatch, rows: Tensor) -> dict[str, Any]:
        """Loss, log-ratio and distances over the samples that were trained."""
        collected, self._stats = self._stats, []
        values = torch.zeros(batch.samples, 5)
        for samples, stats in collected:
            values[samples] += stats
        values = gather_rows(self.accelerator, values, torch.arange(batch.samples), batch.samples).cpu()[rows]
        loss, kl, away, log_ratio, terms = values.sum(0)
        return self.group_metrics(batch.feedback, rows) | {  # NaN when nothing was trained
            "loss": loss / terms,
            "kl": kl / terms,
            "distance/old": away / terms,
            "dlogp": log_ratio / terms,
        }

    def checks(self, batch: RolloutBatch) -> Iterator[Check]:
        """Rewards; before the first update the old policy is the policy; a KL term has a gradient."""
        yield from super().checks(batch)
        yield no_dropout(self.args, "Dropout makes the policy differ from its old copy at equal weights")
        if not batch.mine:
            return  # more processes than micro-batches: this one has nothing to look at
        trajectory = next(iter(batch.mine.values())).trajectory
        chosen = levels(self.args, 0, trajectory.seeds.tolist(), trajectory.branch.tolist())
        point = self._point(trajectory, chosen[:, 0], 0)
        with torch.no_grad():
            value = denoise(self.policy, trajectory.plan, trajectory.conditioning, point.k, point.x)
        if self.old is not None:
            gap = float((value - self._predict_with(self.old, trajectory, point, "preflight")).abs().max())
            yield Check(
                "the old policy starts as the policy",
                gap <= 1e-3 * float(value.abs().max()),
                f"largest difference of velocities {gap:.2g}",
                "Two predictions with one set of weights differ: set lora_dropout to 0, or raise precision.",
            )
        if self.args.beta:
            reference = self._predict_with(self.reference, trajectory, point, "preflight")
            with torch.enable_grad():
                kl = velocity_kl(
                    denoise(self.policy, trajectory.plan, trajectory.conditioning, point.k, point.x),
                    reference,
                    reduce=latent_mean,
                )
            yield kl_has_gradient(kl)
