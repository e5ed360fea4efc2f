"""Adaptive weights by Lagrange multipliers, which hold rewards above a threshold.

Constrained RLHF (Moskovitz et al. 2023, arXiv:2310.04373) in the form of `diffalign.losses.constraints`. There the
first weight is that of the KL's advantage; here it is that of the rewards without a threshold. One step of plain
gradient descent per rollout, on the mean reward of that rollout, from multipliers 0 (weight 1/2) [ours].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses.common import check_positive
from diffalign.losses.constraints import lagrangian, lagrangian_weights


class Thresholds(NamedTuple):
    """The settings: reward name -> least mean reward, and how fast its multiplier moves.

    `two_sided` holds a reward at its threshold instead (its weight then lies in (-1, 1)).
    """

    thresholds: dict[str, float]
    lr: float = 0.1
    two_sided: bool = False

    @property
    def squash(self) -> Callable[[Tensor], Tensor]:
        """From a multiplier to a weight."""
        return torch.tanh if self.two_sided else torch.sigmoid


def read_thresholds(
    names: list[str], *, thresholds: Mapping[str, float], lr: float = 0.1, two_sided: bool = False
) -> Thresholds:
    """The settings as YAML has them, for the rewards `names` that count.

    Raises:
        ValueError: no threshold, a threshold for every reward, or `lr` is not positive.
    """
    check_positive(lr=lr)
    if not isinstance(thresholds, Mapping) or not thresholds or set(thresholds) >= set(names):
        raise ValueError(
            f"the rule lagrangian needs thresholds for some of the rewards {', '.join(names)} and none for at least "
            f"one of them, got {thresholds!r}"
        )
    return Thresholds({name: float(value) for name, value in thresholds.items()}, float(lr), bool(two_sided))


def _row(settings: Thresholds, multipliers: Mapping[str, float]) -> Tensor:
    """Multipliers `(K,)` in fp64, 0 at the start of a run."""
    return torch.tensor([multipliers.get(name, 0.0) for name in settings.thresholds], dtype=torch.float64)


def reward_weights(settings: Thresholds, multipliers: Mapping[str, float], names: list[str]) -> list[float]:
    """The factor of each reward's own weight: K less the sum of the multipliers' weights for a free reward."""
    free, *held = lagrangian_weights(_row(settings, multipliers), squash=settings.squash).tolist()
    by_name = dict(zip(settings.thresholds, held, strict=True))
    return [by_name.get(name, free) for name in names]


def stepped(settings: Thresholds, multipliers: Mapping[str, float], means: Mapping[str, float]) -> dict[str, float]:
    """The multipliers after one step on the mean rewards of a rollout; a NaN mean moves nothing."""
    xi = _row(settings, multipliers).requires_grad_()
    value = torch.tensor([means[name] for name in settings.thresholds], dtype=torch.float64)
    bound = torch.tensor(list(settings.thresholds.values()), dtype=torch.float64)
    known = value.isfinite()
    with torch.enable_grad():
        loss = lagrangian(xi, value.nan_to_num(), bound, squash=settings.squash).sum()
    (gradient,) = torch.autograd.grad(loss, xi)
    moved = (xi - settings.lr * torch.where(known, gradient, 0.0)).tolist()
    return dict(zip(settings.thresholds, moved, strict=True))
