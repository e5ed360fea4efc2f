"""Rules that combine several rewards, named in YAML: `(rewards (K, P, G), weights (K, P, 1), **options) -> (P, G)`.

Each is a function of `diffalign.losses` in this shape. A reward of weight 0 for a prompt is ignored there. A sample
that a counted reward could not score is NaN, except under the ensemble rules, which use the members that could.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses import multi_reward
from diffalign.losses import reward_combination as combination
from diffalign.losses import reward_ensembles as ensembles
from diffalign.losses.ranking import pareto_rank

Rule = Callable[..., Tensor]


def _alike(weights: Tensor, name: str) -> Tensor:
    """`(K, P, 1)` bool, where a reward counts; rules without weights take 0 and 1 alone."""
    if not ((weights == 0) | (weights == 1)).all():
        raise ValueError(f"the rule {name} counts its rewards alike: leave reward_weights out, or give 0 and 1")
    return weights != 0


def product(rewards: Tensor, weights: Tensor) -> Tensor:
    """Return the product of the counted rewards."""
    return combination.product(torch.where(_alike(weights, "product"), rewards, 1.0))


def pareto(rewards: Tensor, weights: Tensor) -> Tensor:
    """Return minus the Pareto front of each sample within its group: 0 for the non-dominated, -1 for the next.

    Weights count by their sign alone.
    """
    whole = (rewards.isfinite() | (weights == 0)).all(0)
    points = torch.where(weights != 0, rewards * weights, 0.0)  # a constant within a group changes no order
    fronts = [0 - pareto_rank(points[:, row].T).rank.to(rewards.dtype) for row in range(points.shape[1])]
    return torch.where(whole, torch.stack(fronts), torch.nan)


def _members(function: Callable[..., Tensor]) -> Rule:
    """An ensemble function as a rule: what does not count is left out of the members."""

    @wraps(function)
    def rule(rewards: Tensor, weights: Tensor, **options: float) -> Tensor:
        return function(torch.where(_alike(weights, function.__name__), rewards, torch.nan), **options)

    return rule


RULES: dict[str, Rule] = {
    "weighted_sum": combination.weighted_sum,
    "product": product,
    "harmonic": combination.harmonic,
    "log_sum": combination.log_sum,
    "minimum": combination.tchebycheff,
    "pareto": pareto,
    "ensemble_mean": _members(ensembles.ensemble_mean),
    "worst_case": _members(ensembles.worst_case),
    "mean_std": _members(ensembles.mean_std),
    "mean_var": _members(ensembles.mean_var),
    "soft_min": _members(ensembles.soft_min),
}
"""Name in YAML -> rule."""

ENSEMBLES = frozenset({"ensemble_mean", "worst_case", "mean_std", "mean_var", "soft_min"})
"""Rules whose rewards estimate the same thing: one that failed is left out of its sample."""

LAGRANGIAN = "lagrangian"
"""The weighted sum with adaptive weights by Lagrange multipliers; see `diffalign.rewards.multipliers`."""

SUMS = ("weighted_sum", LAGRANGIAN)
"""Rules that keep the rewards separate until advantages are computed from them."""


class Normalization(NamedTuple):
    """When the advantages of several rewards are normalised, `normalize` in YAML.

    Attributes:
        combine: `(rewards (K, B, G), weights, advantage=...) -> (B, G)`, of `diffalign.losses.multi_reward`, where
            `advantage` is the group advantage with the settings of the run.
        each: Whether each reward is normalised alone, so that one that failed leaves a sample the others.
        last: What follows the sum where each reward's advantages come from per-prompt histories; `(1, N) -> (1, N)`.
    """

    combine: Callable[..., Tensor]
    each: bool
    last: Callable[[Tensor], Tensor]


def _unchanged(advantages: Tensor) -> Tensor:
    return advantages


def _gdpo(rewards: Tensor, weights: Sequence[float], *, advantage: Callable[..., Tensor]) -> Tensor:
    """GDPO divides by the std of the group whatever `scale_rewards` says, as in TRL."""
    del advantage
    return multi_reward.gdpo_advantage(rewards, weights)


NORMALIZATIONS = {
    "sum": Normalization(multi_reward.advantage_of_sum, False, _unchanged),
    "each": Normalization(multi_reward.sum_of_advantages, True, _unchanged),
    "gdpo": Normalization(_gdpo, True, multi_reward.batch_whiten),
}
"""Name in YAML -> normalization: Flow-GRPO's, MixGRPO's, and GDPO's (TRL's `normalize_then_sum`)."""
