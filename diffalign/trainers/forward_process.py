"""What methods without likelihoods share (DiffusionNFT, AWM): re-noised samples of any sampler.

They share roll-out, rewards, advantages, optimiser and checkpoints with the policy gradient; only the objective
differs. An image is noised to a few levels, the velocity there is predicted (guided as in the roll-out), and the
objective compares it with the noise that was added. A level and its noise are functions of seed, update and sample, so
that batch size and number of processes change nothing.

The old policy is a second set of the trained weights, averaged once per roll-out: ``old <- d old + (1 - d) policy``,
``d = min(old_decay_rate max(step - old_decay_start, 0), old_decay)``. DiffusionNFT samples from it and contrasts with
it; AWM may be held near it (beta_old).
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffalign.losses import latent_mean, velocity_kl
from diffalign.sampling import StepPlan, Trajectory, noise_key, noised, step_noise
from diffalign.sampling.forward_process import denoise
from diffalign.trainers.advantages import AdvantageTrainer
from diffalign.trainers.batch import Batch, MicroBatch, gather_rows
from diffalign.trainers.checks import Check, kl_has_gradient, no_dropout
from diffalign.trainers.distilled import sign_of_distillation
from diffalign.trainers.plans import sampling_plan
from diffalign.trainers.rollout_spec import FORWARD, levels


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


class ForwardProcessTrainer(AdvantageTrainer):
    """What NFT and AWM share; see `BaseTrainer` for the arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._notes: list[tuple[Tensor, Tensor]] = []
        super().__init__(*args, **kwargs)
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

    def losses(self, batch: Batch, micro: MicroBatch, feedback: Any, chunk: Tensor) -> Iterator[Tensor]:
        """One term per level: the graph of one prediction is in memory at a time."""
        advantages, valid = feedback.values[micro.rows], feedback.valid[micro.rows]
        if not bool(valid.any()) or (self._needs_reward and not bool(advantages.any())):
            return  # exactly zero gradient
        trajectory = micro.trajectory
        device = trajectory.x.device
        advantages, valid = advantages.to(device), valid.to(device)
        chosen = levels(self.args, self.state.step, trajectory.seeds.tolist(), trajectory.branch.tolist())
        share_of_term = 1 / (max(int(feedback.valid[chunk].sum()), 1) * chosen.shape[1])
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
            noted = torch.stack([terms, kl, away, log_ratio.abs(), torch.ones_like(kl)], 1)
            self._notes.append((micro.rows, noted.detach().float().cpu()))
            total = terms + self.args.beta * kl + self.args.beta_old * away
            yield torch.where(valid, total, 0).sum() * share_of_term

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

    def metrics(self, batch: Batch, feedback: Any, chunk: Tensor) -> dict[str, Any]:
        """Loss, log-ratio and distances over the samples that were trained."""
        notes, self._notes = self._notes, []
        values = torch.zeros(batch.spec.samples, 5)
        for rows, noted in notes:
            values[rows] += noted
        values = gather_rows(self.accelerator, values, torch.arange(batch.spec.samples), batch.spec.samples).cpu()[
            chunk
        ]
        loss, kl, away, log_ratio, terms = values.sum(0)
        return self.group_numbers(feedback, chunk) | {  # NaN when nothing was trained
            "loss": loss / terms,
            "kl": kl / terms,
            "distance/old": away / terms,
            "dlogp": log_ratio / terms,
        }

    def checks(self, batch: Batch) -> Iterator[Check]:
        """Before the first update the old policy is the policy; a KL term has a gradient."""
        yield no_dropout(self.args, "Dropout would part the policy from its old copy at equal weights")
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
