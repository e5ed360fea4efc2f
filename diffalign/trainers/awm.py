"""AWM: flow matching on the policy's own samples, weighted by their advantage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from diffalign.losses import forward_process, policy
from diffalign.models import WeightCopy
from diffalign.sampling import Trajectory
from diffalign.trainers.advantages import Advantages
from diffalign.trainers.batch import Batch
from diffalign.trainers.forward_process import ForwardProcessTrainer, NoisedSample

MATCHING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "uniform": forward_process.uniform_matching,
    "t": forward_process.linear_matching,
    "t2": forward_process.squared_matching,
    "huber": forward_process.huber_matching,
    "ghuber": forward_process.generalised_huber_matching,
}
"""awm_weighting -> stand-in of the log-prob, (error, t) -> (B,)."""


class AWMTrainer(ForwardProcessTrainer):
    """Advantage-weighted matching (2509.25050): the policy gradient with minus a matching error as log-prob.

    Ratios are taken to the weights that sampled; in the first update of a roll-out these are the policy's own.
    Advantages are divided by their clip, as released.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sampled = WeightCopy(self.policy) if self.steps_per_rollout > 1 else None

    @property
    def _needs_reward(self) -> bool:
        return self.args.beta == 0 and self.args.beta_old == 0

    def feedback(self, batch: Batch) -> Advantages:
        """Advantages; the weights that sampled are remembered."""
        if self._sampled is not None:
            self._sampled.average(0.0)
        return super().feedback(batch)

    def _before(self, trajectory: Trajectory, point: NoisedSample, old: Tensor | None) -> Tensor | None:
        if self._sampled is None or self.state.step % self.steps_per_rollout == 0:
            return None
        return self._predict_with(self._sampled, trajectory, point, "old")

    def objective(
        self, value: Tensor, before: Tensor | None, point: NoisedSample, advantages: Tensor
    ) -> tuple[Tensor, Tensor]:
        """PPO's clip on the ratio of matching errors."""
        matching = MATCHING[self.args.awm_weighting]

        def log_prob(velocity: Tensor) -> Tensor:
            return matching(forward_process.matching_error(velocity, point.x0, point.noise), point.t)

        own = log_prob(value)
        log_ratio = own - (own.detach() if before is None else log_prob(before))
        scaled = advantages / self.args.advantage_clip
        terms = policy.clip(log_ratio, scaled, eps_low=self.args.epsilon, eps_high=self.args.epsilon_high)
        return terms, log_ratio
