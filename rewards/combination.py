"""How several rewards of a rollout become advantages: transforms and routes of each, then one rule with weights.

Everything is named in YAML and read once, before a run:

    reward_funcs: [shapes, jpeg]
    reward_weights: [0.7, 0.3]
    reward_transforms: {jpeg: [{affine: {scale: 0.5, shift: 1}}, {clamp: {low: 0, high: 1}}]}
    reward_combination: {rule: weighted_sum, normalize: gdpo}

The object holds settings only. What a run keeps from one rollout to the next (running moments, multipliers) is passed
in and returned as a `State`, which JSON represents exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffalign.losses.common import Moments, as_float
from diffalign.losses.reward_combination import weighted_sum
from diffalign.naming import unknown
from diffalign.rewards import multipliers
from diffalign.rewards.registry import listed
from diffalign.rewards.routes import Route
from diffalign.rewards.rules import ENSEMBLES, LAGRANGIAN, NORMALIZATIONS, RULES, SUMS
from diffalign.rewards.transforms import Step, check_options, read_steps, transformed

State = dict[str, dict[str, Any]]
"""`{"moments": {reward: {position: [n, mean, m2]}}, "multipliers": {reward: xi}}`; `{}` at the start."""
Record = Mapping[str, Any]


class Combined(NamedTuple):
    """The result of the rule.

    Attributes:
        names: the K rewards that are left: all that count, or the one called `combined`.
        rewards: `(K, P, G)`, fp32.
        weights: K numbers.
    """

    names: list[str]
    rewards: Tensor
    weights: list[float]


class Combination:
    """The rewards that count, and how they become one.

    Args:
        names: reward names in order, as `Reward.name` has them.
        weights: one per reward; 0 = only logged.
        rule: a name, or `{rule: name, normalize: name, option: value, ...}`; default the weighted sum, normalised
            after summing. See `diffalign.rewards.rules`.
        transforms: reward -> list of transforms.
        routes: reward -> condition on prompts.
        aliases: other names that the user may call a reward by -> its name.

    Raises:
        ValueError: an unknown rule, transform, option or reward (the nearest is named), a value that cannot work, or
            a normalization of each reward under a rule that leaves one.

    Attributes:
        normalization: how advantages are computed from what the rule leaves.
    """

    def __init__(
        self,
        names: Sequence[str],
        weights: Sequence[float] | None = None,
        *,
        rule: str | Mapping[str, Any] | None = None,
        transforms: Mapping[str, Any] | None = None,
        routes: Mapping[str, Any] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        names = listed(names)
        self._aliases = {**(aliases or {}), **{name: name for name in names}}
        given = list(weights) if weights is not None else [1.0] * len(names)
        self.weights = {name: weight for name, weight in zip(names, given, strict=True) if weight != 0}
        self.transforms = {
            name: read_steps(name, steps) for name, steps in self._by_name("reward_transforms", transforms).items()
        }
        self.routes = {name: Route(route) for name, route in self._by_name("reward_routes", routes).items()}
        self._read_rule({"rule": rule} if isinstance(rule, str) else dict(rule or {}))

    def _by_name(self, key: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """A mapping under the rewards' own names."""
        for name in given or {}:
            if name not in self._aliases:
                raise unknown(f"reward in {key}:", name, self._aliases)
        return {self._aliases[name]: value for name, value in (given or {}).items()}

    def _read_rule(self, options: dict[str, Any]) -> None:
        self.rule = options.pop("rule", "weighted_sum")
        if self.rule not in (*RULES, LAGRANGIAN):
            raise unknown("rule in reward_combination:", self.rule, [*RULES, LAGRANGIAN])
        normalize = options.pop("normalize", "sum")
        if normalize not in NORMALIZATIONS:
            raise unknown("normalize in reward_combination:", normalize, NORMALIZATIONS)
        self.normalization = NORMALIZATIONS[normalize]
        if self.normalization.each and self.rule not in SUMS:
            raise ValueError(
                f"normalize: {normalize} treats each reward alone, and the rule {self.rule} leaves one: set "
                f"normalize: sum, or the rule to {' or '.join(SUMS)}"
            )
        what = f"option of rule {self.rule}:"
        self.thresholds: multipliers.Thresholds | None = None
        if self.rule == LAGRANGIAN:
            check_options(what, multipliers.read_thresholds, options)
            options["thresholds"] = self._by_name("thresholds", options["thresholds"])
            self.thresholds = multipliers.read_thresholds(list(self.weights), **options)
            return
        check_options(what, RULES[self.rule], options)
        self.options = options
        if self.rule not in SUMS:
            self._try()

    def _try(self) -> None:
        """Refuses a value that can never work before the first rollout."""
        counts = torch.tensor([*self.weights.values()])[:, None, None]
        try:
            RULES[self.rule](torch.full((len(counts), 1, 2), 0.5), counts, **self.options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"reward_combination: {error}") from error

    @property
    def reference_samples(self) -> dict[str, int]:
        """Counted reward -> samples of the reference policy per prompt that its transforms compare with."""
        needed = {name: max((step.samples for step in steps), default=0) for name, steps in self.transforms.items()}
        return {name: count for name, count in needed.items() if count and name in self.weights}

    def routed(self, name: str, records: Sequence[Record]) -> Tensor:
        """`(P,)` bool: the prompts that a reward is for."""
        route = self.routes.get(name)
        return torch.tensor([route is None or route(r["prompt"], r["metadata"]) for r in records], dtype=torch.bool)

    def check_prompts(self, records: Sequence[Record]) -> None:
        """Refuse a route that matches no prompt, and a prompt without a counted reward.

        Raises:
            ValueError: names the reward, or the first such prompt.
        """
        for name in self.routes:
            if not self.routed(name, records).any():
                raise ValueError(f"reward_routes: no training prompt matches the route of {name}; check key and values")
        reached = torch.stack([self.routed(name, records) for name in self.weights]).any(0)
        if not reached.all():
            lost = records[int((~reached).nonzero()[0])]["prompt"]
            raise ValueError(f"reward_routes: {int((~reached).sum())} prompts have no counted reward, first {lost!r}")

    def usable(self, rewards: Mapping[str, Tensor], records: Sequence[Record]) -> Tensor:
        """`(P, G)` bool: the samples that can be learned from, by raw rewards `(P, G)` of the P records."""
        finite = torch.stack([rewards[name].isfinite() for name in self.weights])
        if self.normalization.each or self.rule in ENSEMBLES:
            return finite.any(0)
        return (finite | (self._counts(records) == 0)).all(0)

    def __call__(
        self,
        rewards: Mapping[str, Tensor],
        records: Sequence[Record],
        *,
        references: Mapping[str, Tensor] | None = None,
        state: State | None = None,
    ) -> tuple[Combined, State]:
        """Combines the rewards of one rollout.

        Args:
            rewards: name -> `(P, G)`, NaN = could not be scored.
            records: the P prompts.
            references: name -> `(P, M)`, for the rewards of `reference_samples`.
            state: what the last call returned.

        Raises:
            ValueError: a value that the rule refuses (a negative reward under `harmonic`), or a reference is missing.
        """
        moments: dict[str, Any] = dict((state or {}).get("moments", {}))
        columns = []
        for name in self.weights:
            steps: list[Step] = self.transforms.get(name, [])
            old = {int(at): _moments(values) for at, values in moments.get(name, {}).items()}
            column, new = transformed(
                as_float(rewards[name]), steps, reference=(references or {}).get(name), moments=old
            )
            columns.append(column)
            if new:
                moments[name] = {str(at): [float(x) for x in values] for at, values in new.items()}
        stacked = torch.stack(columns)
        combined, mu = self._ruled(stacked, records, (state or {}).get("multipliers", {}))
        return combined, {key: value for key, value in (("moments", moments), ("multipliers", mu)) if value}

    def _ruled(
        self, rewards: Tensor, records: Sequence[Record], xi: dict[str, float]
    ) -> tuple[Combined, dict[str, float]]:
        """The result of the rule, and the multipliers for the next rollout."""
        names, weights = list(self.weights), list(self.weights.values())
        if self.thresholds is not None:
            means = {name: float(r[r.isfinite()].mean()) for name, r in zip(names, rewards, strict=True)}
            factors = multipliers.reward_weights(self.thresholds, xi, names)
            weights = [weight * factor for weight, factor in zip(weights, factors, strict=True)]
            xi = multipliers.stepped(self.thresholds, xi, means)
        if self.rule in SUMS and (self.normalization.each or not self.routes):
            return Combined(names, rewards, weights), xi
        counts = self._counts(records, weights)
        one = weighted_sum(rewards, counts) if self.rule in SUMS else RULES[self.rule](rewards, counts, **self.options)
        return Combined(["combined"], one[None], [1.0]), xi

    def _counts(self, records: Sequence[Record], weights: Sequence[float] | None = None) -> Tensor:
        """`(K, P, 1)` weights: 0 where a reward is not for a prompt."""
        given = self.weights.values() if weights is None else weights
        rows = [weight * self.routed(name, records).float() for name, weight in zip(self.weights, given, strict=True)]
        return torch.stack(rows)[:, :, None]


def _moments(values: Sequence[float]) -> Moments:
    return Moments(*(torch.tensor(value, dtype=torch.float64) for value in values))
