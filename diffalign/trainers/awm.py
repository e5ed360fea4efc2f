"""AWM: flow matching on the policy's own samples, weighted by their advantage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from diffalign.config import key
from diffalign.losses import forward_process, policy
from diffalign.models import WeightCopy
from diffalign.sampling import Trajectory
from diffalign.trainers.forward_process import ForwardProcessTrainer, NoisedSample
from diffalign.trainers.forward_process_config import ForwardProcessConfig
from diffalign.trainers.rollouts.batch import RolloutBatch

MATCHING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "uniform": forward_process.uniform_matching,
    "t": forward_process.linear_matching,
    "t2": forward_process.squared_matching,
    "huber": forward_process.huber_matching,
    "ghuber": forward_process.generalised_huber_matching,
}
"""awm_weighting -> stand-in of the log-prob, (error, t) -> (B,)."""


@dataclass(frozen=True, kw_only=True)
class AWMConfig(ForwardProcessConfig):
    """Advantage-weighted matching."""

    method: str = key("awm", "training method; `--help METHOD` shows its own keys")
    awm_weighting: Literal["uniform", "t", "t2", "huber", "ghuber"] = key(
        "ghuber", "weight of the matching error: 1, t, t^2, Huber or generalised Huber", section="awm"
    )
    epsilon: float = key(1e-4, "ratio clip below 1 (released: 1, off)", above=0, aliases=["clip_range"])
    epsilon_high: float | None = key(None, "ratio clip above 1; default: epsilon", above=0)


class AWMTrainer(ForwardProcessTrainer):
    """Advantage-weighted matching (2509.25050): the policy gradient with minus a matching error as log-prob.

    Ratios are taken to the weights that sampled; in the first update of a rollout these are the policy's own.
    Advantages are divided by their clip, as released.
    """

    Config = AWMConfig
    args: AWMConfig

    def setup_model(self) -> None:
        """A copy of the weights that sampled, where a rollout is used for several updates."""
        super().setup_model()
        self._sampled = WeightCopy(self.policy) if self.updates_per_batch > 1 else None

    def prepare(self, batch: RolloutBatch) -> RolloutBatch:
        """The weights that sampled are kept."""
        if self._sampled is not None:
            self._sampled.average(0.0)
        return super().prepare(batch)

    @property
    def _needs_reward(self) -> bool:
        return self.args.beta == 0 and self.args.beta_old == 0

    def _before(self, trajectory: Trajectory, point: NoisedSample, old: Tensor | None) -> Tensor | None:
        if self._sampled is None or self.state.step % self.updates_per_batch == 0:
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
