"""Policy gradient on recorded denoising steps: DDPO, Flow-GRPO and their descendants.

One trainer; the methods differ in dynamics, plan, advantage, ratio, weight and trust region, which are settings
(scripts/recipes).

Differs from the papers in: the last step is deterministic unless sde_last_step (Flow-GRPO adds noise there and drops it
from training); gradients are averaged over samples and steps of an update, whatever the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffalign.losses import (
    cps_scaled,
    dt_scaled_kl,
    gaussian_kl,
    guard_log_ratio,
    guard_weights,
    latent_mean,
    log_prob_difference,
    policy,
    policy_metrics,
    tempflow_weights,
    uniform_weights,
    velocity_kl,
)
from diffalign.sampling import StepOut, StepPlan, Trajectory, replay
from diffalign.trainers.advantages import AdvantageTrainer
from diffalign.trainers.checks.check import Check, kl_has_gradient, no_dropout
from diffalign.trainers.policy_gradient_config import PolicyGradientConfig
from diffalign.trainers.policy_gradient_plan import full_noise, step_choice, trained_mask, training_plan, window_start
from diffalign.trainers.rollouts.batch import MicroBatch, RolloutBatch
from diffalign.trainers.run.batch import gather_rows

STEP_WEIGHTS = {"uniform": uniform_weights, "tempflow": tempflow_weights, "guard": guard_weights}


class TermStats(NamedTuple):
    """What one term of an update measured.

    Attributes:
        rows: (B,) global sample numbers.
        steps: (B,) step index of each sample.
        values: (B, 3) log-ratio, KL to the reference, 1 where the trust region held the step.
    """

    rows: Tensor
    steps: Tensor
    values: Tensor


class PolicyGradientTrainer(AdvantageTrainer):
    """PPO-clipped policy gradient per denoising step; see `BaseTrainer` for the arguments."""

    Config = PolicyGradientConfig
    args: PolicyGradientConfig

    def setup_model(self) -> None:
        """Every window fits the schedule; the weight of each step."""
        super().setup_model()
        self._stats: list[TermStats] = []
        if self.args.kl == "velocity" and self.policy.prediction != "flow":
            raise ValueError(f"kl = velocity is for flow models; this one predicts {self.policy.prediction}: use exact")
        schedule = self.policy.schedule(self.args.num_inference_steps)
        for start in self.args.window_starts():  # the worst one must fit, not only the first rollout's
            training_plan(self.args, schedule, start)
        self.step_weights = STEP_WEIGHTS[self.args.step_weights](
            full_noise(self.args, schedule), schedule.sigma.diff(), trained_mask(self.args, schedule)
        )

    @property
    def keep_means(self) -> bool:
        """The centred ratio and the KL mask compare means."""
        return self.args.ratio == "guard" or self.args.trust_region == "kl_mask"

    def plan(self, index: int) -> StepPlan:
        """The steps of rollout `index`."""
        schedule = self.policy.schedule(self.args.num_inference_steps)
        return training_plan(self.args, schedule, window_start(self.args, index))

    def losses(self, batch: RolloutBatch, number: int, rows: Tensor) -> Iterator[Tensor]:
        """One term per trained step: the graph of one step is in memory at a time."""
        micro, feedback = batch.mine[number], batch.feedback
        advantages, valid = feedback.values[micro.rows], feedback.valid[micro.rows]
        if self.args.beta == 0 and not bool(advantages.any()):
            return  # exactly zero gradient
        trajectory = micro.trajectory
        device = trajectory.x.device
        advantages, valid = advantages.to(device), valid.to(device)
        steps = self._steps(batch, micro)
        term_weight = 1 / (max(int(feedback.valid[rows].sum()), 1) * len(steps))
        for k in steps:
            # First the reference: under full fine-tuning it swaps weights, which an open graph would not survive.
            reference = self._reference_step(trajectory, k) if self.args.beta else None
            out = replay(self.policy, trajectory, k)
            log_ratio = self._log_ratio(out, trajectory, k)
            terms, masked = self._bounded(out, trajectory, k, log_ratio, advantages, valid)
            kl = torch.zeros_like(terms) if reference is None else self._kl(out, reference, trajectory, k)
            indices = torch.as_tensor(k).expand(len(micro.rows))
            stats = torch.stack([log_ratio.detach(), kl.detach(), masked.float()], 1)
            self._stats.append(TermStats(micro.rows, indices, stats.float().cpu()))
            weights = self.step_weights[indices].to(terms)
            yield (weights * terms + self.args.beta * torch.where(valid, kl, 0)).sum() * term_weight

    def _steps(self, batch: RolloutBatch, micro: MicroBatch) -> list[int] | list[Tensor]:
        """What each term trains: one step for all samples, or (B,) a step of its own for each (DanceGRPO)."""
        recorded = micro.trajectory.steps
        if self.args.timestep_selection == "first":
            return list(recorded)
        count = self.args.trained_steps(len(recorded))
        chosen = step_choice(self.args, self.state.batch, batch.samples, len(recorded), count)
        return list(torch.tensor(recorded)[chosen[micro.rows]].unbind(1))

    def _bounded(
        self, out: StepOut, trajectory: Trajectory, k: int | Tensor, log_ratio: Tensor, adv: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B,) terms of the objective inside the trust region, and which of them it masks."""
        if self.args.trust_region == "kl_mask":
            kl = gaussian_kl(out.mean, old_mean(trajectory, k), out.std, reduce=latent_mean)
            terms = policy.kl_mask(log_ratio, adv, kl=kl, limit=self.args.kl_limit, mask=valid)
            return terms, valid & (kl > self.args.kl_limit) & (log_ratio.sign() * adv > 0)
        terms = policy.clip(log_ratio, adv, eps_low=self.args.epsilon, eps_high=self.args.epsilon_high, mask=valid)
        return terms, torch.zeros_like(valid)

    def _log_ratio(self, out: StepOut, trajectory: Trajectory, k: int | Tensor) -> Tensor:
        if self.args.ratio == "guard":
            return guard_log_ratio(picked(trajectory.states, k + 1), out.mean, old_mean(trajectory, k), out.std)
        dense = {step: value for step, value in trajectory.log_probs.items() if value is not None}
        if out.log_prob is None or not {int(step) for step in torch.as_tensor(k).unique()} <= set(dense):
            raise ValueError(f"step {k} of {trajectory.plan.dynamics.name} has no density")
        plain = log_prob_difference(out.log_prob, picked(dense, k))
        return cps_scaled(plain, out.std) if self.args.ratio == "cps" else plain

    def _reference_step(self, trajectory: Trajectory, k: int | Tensor, phase: str = "reference") -> StepOut:
        with torch.no_grad(), self.reference.active(), self.policy.meter.phase(phase):
            return replay(self.policy, trajectory, k)

    def _kl(self, out: StepOut, reference: StepOut, trajectory: Trajectory, k: int | Tensor) -> Tensor:
        """(B,) KL of the step to the reference policy."""
        if self.args.kl == "velocity":
            own, theirs = out.eps_hat - out.x0_hat, reference.eps_hat - reference.x0_hat
            return velocity_kl(own, theirs, reduce=latent_mean)
        if self.args.kl == "mean_squared":
            return latent_mean((out.mean - reference.mean) ** 2)
        if self.args.kl == "exact":
            return gaussian_kl(out.mean, reference.mean, out.std, reduce=latent_mean)
        dt = trajectory.plan.dynamics.schedule.sigma.diff()[k]
        return dt_scaled_kl(out.mean, reference.mean, out.std, dt, reduce=latent_mean)

    def metrics(self, batch: RolloutBatch, rows: Tensor) -> dict[str, Any]:
        """Ratio, clipping and KL per step index and overall, over the samples that were trained."""
        feedback = batch.feedback
        steps = sorted(batch.plan.recorded)
        collected, self._stats = self._stats, []
        column = {k: i for i, k in enumerate(steps)}
        values = torch.zeros(batch.samples, len(steps), 4)
        for samples, indices, stats in collected:
            columns = torch.tensor([column[int(k)] for k in indices])
            values[samples, columns] = torch.cat([stats, torch.ones(len(samples), 1)], 1)
        values = gather_rows(self.accelerator, values, torch.arange(batch.samples), batch.samples).cpu()[rows]
        seen = values[:, :, 3].bool()
        numbers = self.group_metrics(feedback, rows) | {"kl": values[:, :, 1][seen].mean()}
        if self.args.trust_region == "kl_mask":
            numbers["trust/masked"] = values[:, :, 2][seen].mean()
        numbers |= self._ratio_metrics("", values[:, :, 0], feedback.values[rows], seen)
        for i, k in enumerate(steps):
            one = slice(i, i + 1)
            if self.args.timestep_selection == "random" and not seen[:, one].any():
                continue  # no sample drew this step
            numbers |= self._ratio_metrics(f"/{k}", values[:, one, 0], feedback.values[rows], seen[:, one])
        return numbers

    def _ratio_metrics(self, suffix: str, log_ratio: Tensor, advantages: Tensor, mask: Tensor) -> dict[str, Any]:
        found = policy_metrics(
            log_ratio,
            advantages[:, None],
            mask=mask,
            eps_low=self.args.epsilon,
            eps_high=self.args.epsilon_high,
        )
        return {
            f"ratio/mean{suffix}": found["ratio_mean"],
            f"ratio/std{suffix}": found["ratio_std"],
            f"clip/high{suffix}": found["clip_frac_high"],
            f"clip/low{suffix}": found["clip_frac_low"],
            f"dlogp{suffix}": found["log_ratio_abs_mean"],
        }

    def checks(self, batch: RolloutBatch) -> Iterator[Check]:
        """Rewards; ratio 1 at each recorded step before the first update; a KL term that has a gradient."""
        yield from super().checks(batch)
        yield no_dropout(self.args, "The rollout has none, so ratios leave 1 as soon as the LoRA does something")
        if not batch.mine:
            return  # more processes than micro-batches: this one has nothing to look at
        micro = next(iter(batch.mine.values()))
        limit = self.args.epsilon / 10
        for k in micro.trajectory.steps:
            with torch.no_grad():
                out = replay(self.policy, micro.trajectory, k)
            worst = float(self._log_ratio(out, micro.trajectory, k).abs().max())
            yield Check(
                f"ratio is 1 at step {k}",
                worst <= limit,
                f"max |log-ratio| {worst:.2g}, limit {limit:.2g} (a tenth of the clip range)",
                "Rollout and training disagree: set lora_dropout to 0, or raise precision (mixed_precision no).",
            )
        yield self._rounding(micro.trajectory)
        if self.args.beta:
            first = micro.trajectory.steps[0]
            reference = self._reference_step(micro.trajectory, first, phase="preflight")
            with torch.enable_grad():
                kl = self._kl(replay(self.policy, micro.trajectory, first), reference, micro.trajectory, first)
            yield kl_has_gradient(kl)

    @torch.no_grad()
    def _rounding(self, trajectory: Trajectory) -> Check:
        """What this precision makes of the ratio when the same samples are computed in another batch shape."""
        worst = 0.0
        for rows in torch.arange(trajectory.batch).split(max(trajectory.batch // 2, 1)):
            part = trajectory.select(rows)
            for k in part.steps:
                ratio = self._log_ratio(replay(self.policy, part, k), part, k)
                worst = max(worst, float(ratio.abs().max()))
        limit, precision = self.args.epsilon / 10, self.args.mixed_precision.replace("no", "fp32")
        return Check(
            f"rounding in {precision} stays inside the clip range",
            worst <= limit,
            f"max |log-ratio| {worst:.2g} in half batches, limit {limit:.2g} (a tenth of the clip range)",
            "Rounding alone is clipped as if the policy had moved: raise epsilon, or precision (mixed_precision no).",
        )


def picked(table: dict[int, Tensor], k: int | Tensor) -> Tensor:
    """What was recorded at step k, or at each sample's own step of k (B,)."""
    if isinstance(k, int):
        return table[k]
    return torch.stack([table[int(step)][row] for row, step in enumerate(k.tolist())])


def old_mean(trajectory: Trajectory, k: int | Tensor) -> Tensor:
    """(B, ...) means of step k at rollout.

    Raises:
        ValueError: they were not kept.
    """
    missing = {int(step) for step in torch.as_tensor(k).unique()} - set(trajectory.means)
    if missing:
        raise ValueError(
            f"the means of the steps {sorted(missing)} were not kept at rollout, and ratio = guard and trust_region = "
            "kl_mask compare with them: roll out with keep_means = True"
        )
    return picked(trajectory.means, k)
