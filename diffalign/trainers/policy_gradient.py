"""Policy gradient on recorded denoising steps: DDPO, Flow-GRPO and their descendants.

One trainer; the methods differ in dynamics, plan, advantage and ratio, which are settings (scripts/recipes).

Differs from the papers in: the last step is deterministic unless sde_last_step (Flow-GRPO adds noise there and drops it
from training); the unconditional branch carries no graph unless uncond_grad; gradients are averaged over samples and
steps of an update, whatever the number of processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffalign.losses import (
    advantage_of_sum,
    batch_std,
    cps_scaled,
    dt_scaled_kl,
    gaussian_kl,
    group_advantage,
    group_std,
    guard_log_ratio,
    guard_weights,
    latent_mean,
    log_prob_difference,
    no_scale,
    policy,
    policy_metrics,
    running_advantage,
    sum_of_advantages,
    tempflow_weights,
    uniform_weights,
    velocity_kl,
    zero_variance_share,
)
from diffalign.sampling import StepOut, StepPlan, Trajectory, replay
from diffalign.trainers.base import BaseTrainer
from diffalign.trainers.batch import Batch, MicroBatch, counted, scored, share
from diffalign.trainers.draw import window_start, window_starts
from diffalign.trainers.plans import training_plan
from diffalign.trainers.preflight import Check

# eps is what the released code of each adds to the standard deviation: DanceGRPO (group), Flow-GRPO (batch).
SCALES: dict[str, Callable[..., Tensor]] = {
    "group": partial(group_advantage, scale=group_std, eps=1e-8),
    "batch": partial(group_advantage, scale=batch_std, eps=1e-4),
    "none": partial(group_advantage, scale=no_scale),
}
AGGREGATIONS = {"sum_then_normalize": advantage_of_sum, "normalize_then_sum": sum_of_advantages}
STEP_WEIGHTS = {"uniform": uniform_weights, "tempflow": tempflow_weights, "guard": guard_weights}


@dataclass(frozen=True)
class Advantages:
    """What the rewards of a roll-out say.

    Attributes:
        values: (N,) advantages, 0 where a sample could not be scored.
        valid: (N,) bool, the samples that were scored; the others leave the denominator too.
        zero_variance: share of groups without reward spread.
    """

    values: Tensor
    valid: Tensor
    zero_variance: Tensor


class PolicyGradientTrainer(BaseTrainer):
    """PPO-clipped policy gradient per denoising step; see `BaseTrainer` for the arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._notes: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
        super().__init__(*args, **kwargs)
        if self.args.kl == "velocity" and self.policy.prediction != "flow":
            raise ValueError(f"kl = velocity is for flow models; this one predicts {self.policy.prediction}: use exact")
        if self.args.advantage == "running" and self.args.history_min_count > self.args.history_size:
            raise ValueError(
                f"history_min_count = {self.args.history_min_count} is never reached with "
                f"history_size = {self.args.history_size}: keep at least as many rewards as are needed"
            )
        schedule = self.policy.schedule(self.args.num_inference_steps)
        for start in window_starts(self.args):  # the worst one must fit, not only the first roll-out's
            training_plan(self.args, schedule, start)

    def plan(self, index: int) -> StepPlan:
        """The steps of roll-out `index`."""
        schedule = self.policy.schedule(self.args.num_inference_steps)
        return training_plan(self.args, schedule, window_start(self.args, index))

    def feedback(self, batch: Batch) -> Advantages:
        """Advantages of all samples, from group statistics or per-prompt histories."""
        columns = counted(self.args, batch.rewards)
        stacked = torch.stack([batch.by_group(values) for values, _ in columns.values()])
        weights = [weight for _, weight in columns.values()]
        total = torch.stack([weight * values for values, weight in columns.values()]).sum(0)
        if self.args.advantage == "running":
            values = self._running(batch, columns)
        else:
            combine = AGGREGATIONS[self.args.multi_objective_aggregation]
            values = combine(stacked, weights, advantage=SCALES[self.args.scale_rewards]).flatten()
        clipped = values.clamp(-self.args.advantage_clip, self.args.advantage_clip).float()
        return Advantages(clipped, scored(self.args, batch.rewards), zero_variance_share(batch.by_group(total)))

    def _running(self, batch: Batch, columns: dict[str, tuple[Tensor, float]]) -> Tensor:
        """DDPO's per-prompt statistics, on the weighted sum or on each reward."""
        prompts = [str(record["prompt"]) for record in batch.draw.sample_records]
        if self.args.multi_objective_aggregation == "sum_then_normalize":
            columns = {"sum": (torch.stack([weight * values for values, weight in columns.values()]).sum(0), 1.0)}
        total = torch.zeros(batch.draw.samples)
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
        return total

    def losses(self, batch: Batch, micro: MicroBatch, feedback: Any, chunk: Tensor) -> Iterator[Tensor]:
        """One term per trained step: the graph of one step is in memory at a time."""
        advantages, valid = feedback.values[micro.rows], feedback.valid[micro.rows]
        if self.args.beta == 0 and not bool(advantages.any()):
            return  # exactly zero gradient
        device = micro.trajectory.final.device
        advantages, valid = advantages.to(device), valid.to(device)
        steps = micro.trajectory.steps
        share_of_term = 1 / (max(int(feedback.valid[chunk].sum()), 1) * len(steps))
        for k, weight in zip(steps, self._weights(batch.plan, steps), strict=True):
            # First the reference: under full fine-tuning it swaps weights, which an open graph would not survive.
            reference = self._reference_step(micro.trajectory, k) if self.args.beta else None
            out = replay(self.policy, micro.trajectory, k)
            log_ratio = self._log_ratio(out, micro.trajectory, k)
            terms = weight * policy.clip(
                log_ratio, advantages, eps_low=self.args.epsilon, eps_high=self.args.epsilon_high, mask=valid
            )
            kl = torch.zeros_like(terms) if reference is None else self._kl(out, reference, micro.trajectory, k)
            self._notes[k].append((micro.rows, log_ratio.detach(), kl.detach()))
            yield (terms + self.args.beta * torch.where(valid, kl, 0)).sum() * share_of_term

    def _weights(self, plan: StepPlan, steps: tuple[int, ...]) -> list[float]:
        rows = list(steps)
        std, dt = plan.dynamics.c[rows], plan.dynamics.schedule.sigma.diff()[rows]
        return [float(w) for w in STEP_WEIGHTS[self.args.step_weights](std, dt)]

    def _log_ratio(self, out: StepOut, trajectory: Trajectory, k: int) -> Tensor:
        if self.args.ratio == "guard":
            return guard_log_ratio(trajectory.states[k + 1], out.mean, trajectory.means[k], out.std)
        old = trajectory.log_probs[k]
        if out.log_prob is None or old is None:
            raise ValueError(f"step {k} of {trajectory.plan.dynamics.name} has no density")
        plain = log_prob_difference(out.log_prob, old)
        return cps_scaled(plain, out.std) if self.args.ratio == "cps" else plain

    def _reference_step(self, trajectory: Trajectory, k: int, phase: str = "reference") -> StepOut:
        with torch.no_grad(), self.reference.active(), self.policy.meter.phase(phase):
            return replay(self.policy, trajectory, k)

    def _kl(self, out: StepOut, reference: StepOut, trajectory: Trajectory, k: int) -> Tensor:
        """(B,) KL of the step to the reference policy."""
        if self.args.kl == "velocity":
            own, theirs = out.eps_hat - out.x0_hat, reference.eps_hat - reference.x0_hat
            return velocity_kl(own, theirs, reduce=latent_mean)
        if self.args.kl == "exact":
            return gaussian_kl(out.mean, reference.mean, out.std, reduce=latent_mean)
        dt = float(trajectory.plan.dynamics.schedule.sigma.diff()[k])
        return dt_scaled_kl(out.mean, reference.mean, out.std, dt, reduce=latent_mean)

    def metrics(self, batch: Batch, feedback: Any, chunk: Tensor) -> dict[str, Any]:
        """Ratio, clipping and KL per step index and overall, over the samples that were trained."""
        steps = sorted(batch.plan.recorded)
        notes, self._notes = self._notes, defaultdict(list)
        values = torch.zeros(batch.draw.samples, len(steps), 3)
        for column, k in enumerate(steps):
            for rows, log_ratio, kl in notes[k]:
                values[rows, column] = torch.stack([log_ratio, kl, torch.ones_like(kl)], 1).float().cpu()
        values = share(self.accelerator, values, torch.arange(batch.draw.samples), batch.draw.samples).cpu()[chunk]
        seen = values[:, :, 2].bool()
        numbers: dict[str, Any] = {
            "advantage/abs_mean": feedback.values[chunk].abs().mean(),
            "group/zero_std": feedback.zero_variance,
            "kl": values[:, :, 1][seen].mean(),
        }
        numbers |= self._ratio_numbers("", values[:, :, 0], feedback.values[chunk], seen)
        for column, k in enumerate(steps):
            one = slice(column, column + 1)
            numbers |= self._ratio_numbers(f"/{k}", values[:, one, 0], feedback.values[chunk], seen[:, one])
        return numbers

    def _ratio_numbers(self, suffix: str, log_ratio: Tensor, advantages: Tensor, mask: Tensor) -> dict[str, Any]:
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

    def checks(self, batch: Batch) -> Iterator[Check]:
        """Ratio 1 at each recorded step before the first update; a KL term that has a gradient."""
        yield Check(
            "no dropout in updates",
            self.args.lora_dropout == 0,
            f"lora_dropout {self.args.lora_dropout:g}",
            "The roll-out has none, so ratios leave 1 as soon as the LoRA does something: set lora_dropout to 0.",
        )
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
                "Roll-out and training disagree: set lora_dropout to 0, or raise precision (mixed_precision no).",
            )
        if self.args.beta:
            first = micro.trajectory.steps[0]
            reference = self._reference_step(micro.trajectory, first, phase="preflight")
            with torch.enable_grad():
                kl = self._kl(replay(self.policy, micro.trajectory, first), reference, micro.trajectory, first)
            yield Check(
                "KL has a gradient",
                kl.requires_grad and bool(kl.isfinite().all()),
                f"mean KL {float(kl.detach().mean()):.3g}",
                "The KL term is cut off from the weights: report this configuration.",
            )
