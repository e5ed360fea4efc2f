"""Advantages from the utility of samples and the diversity of sets (SGRPO, arXiv:2605.08659).

Three combinations, of one shape, ``(utility, diversity, *, credit, weight, temperature) -> (S, N, G)``:

- ``utility (S, N, G)``: rewards of G samples in each of N sets in each of S supergroups (one prompt each);
- ``diversity (S, N)``: of each set, for example 1 - mean pairwise similarity; optionally through
  :func:`gate_diversity`;
- ``credit (S, N, G)``: decrease of the set's diversity without the sample, to distribute it among the members; None for
  equal shares;
- ``weight``: share of diversity in [0, 1]; 0 is leave-one-out over the N G samples;
- ``temperature``: of the shares, > 0.

Baselines are leave-one-out, without a std; the result has no gradient; samples without a finite utility are left out
and get 0. Form: IDEA-XL/SGRPO src/rl_shared/sgrpo.py, whose trainer's default is :func:`advantage_sum` without credit
and most of whose configurations use :func:`reward_sum` with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.advantages import group_advantage, loo_center, no_scale
from diffalign.losses.common import as_float, check_positive, check_probability, check_same_shape, keep

CREDIT_EPS = 1e-4


def gate_diversity(diversity: Tensor, utility: Tensor, *, threshold: float) -> Tensor:
    """Return ``diversity (S, N)``, 0 for sets whose mean utility is not above the threshold. ``utility (S, N, G)``."""
    utility, diversity = _inputs(utility, diversity)
    return torch.where(utility.nanmean(2) > threshold, diversity, torch.zeros_like(diversity)).detach()


def _inputs(utility: Tensor, diversity: Tensor) -> tuple[Tensor, Tensor]:
    if utility.ndim != 3 or diversity.shape != utility.shape[:2]:
        raise ValueError(
            f"expected utility (S, N, G) and diversity (S, N), got {tuple(utility.shape)} and {tuple(diversity.shape)}"
        )
    if utility.shape[1] < 2:
        raise ValueError(f"a set needs another to be compared with: N >= 2, got {tuple(utility.shape)}")
    return as_float(utility), as_float(diversity)


def _rloo(x: Tensor) -> Tensor:
    """``x`` ``(groups, members)`` minus the mean of the others of the group; 0 where it is not finite."""
    return group_advantage(x, center=loo_center, scale=no_scale)


def credit_weights(credit: Tensor, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the shares of a gain and of a loss, each like ``credit (S, N, G)`` with mean 1 in each set.

    ``G softmax(+-z / temperature)``, z the credit standardised in its set (unbiased std + 1e-4): members with a high
    credit get more of a gain and less of a loss.

    Raises:
        ValueError: the temperature is not positive.
    """
    check_positive(temperature=temperature)
    z = group_advantage(credit.flatten(0, 1), eps=CREDIT_EPS).view_as(credit) / temperature
    return credit.shape[2] * z.softmax(2), credit.shape[2] * (-z).softmax(2)


def _shared(utility: Tensor, diversity: Tensor, credit: Tensor | None, temperature: float) -> Tensor:
    """Advantage of each set's diversity over the other sets, ``(S, N, 1)``, or distributed, ``(S, N, G)``."""
    adv = _rloo(diversity)[:, :, None]
    if credit is None:
        return adv
    check_same_shape(utility=utility, credit=credit)
    gain, loss = credit_weights(credit, temperature=temperature)
    return adv.relu() * gain - (-adv).relu() * loss


def reward_sum(
    utility: Tensor,
    diversity: Tensor,
    *,
    credit: Tensor | None = None,
    weight: float = 0.9,
    temperature: float = 1.0,
) -> Tensor:
    """Return the leave-one-out advantage of ``(1 - weight) u + weight D`` over all N G samples; ``D`` is the set's
    diversity, distributed with its mean in the set unchanged.
    """
    check_probability(weight=weight)
    utility, diversity = _inputs(utility, diversity)
    shared = _shared(utility, diversity, credit, temperature)
    own = diversity[:, :, None] + shared - _rloo(diversity)[:, :, None]
    return _rloo(((1 - weight) * utility + weight * own).flatten(1)).view_as(utility)


def advantage_sum(
    utility: Tensor,
    diversity: Tensor,
    *,
    credit: Tensor | None = None,
    weight: float = 0.9,
    temperature: float = 1.0,
) -> Tensor:
    """Return ``(1 - weight)`` times the leave-one-out advantage of utility over all N G samples plus ``weight`` times
    that of diversity over the N sets, distributed.
    """
    check_probability(weight=weight)
    utility, diversity = _inputs(utility, diversity)
    own = _rloo(utility.flatten(1)).view_as(utility)
    return keep((1 - weight) * own + weight * _shared(utility, diversity, credit, temperature), torch.isfinite(utility))


def hierarchical_sum(
    utility: Tensor,
    diversity: Tensor,
    *,
    credit: Tensor | None = None,
    weight: float = 0.9,
    temperature: float = 1.0,
) -> Tensor:
    """Return :func:`advantage_sum` with utility compared inside each *set*: the shared reward minus ``(1 - weight)``
    times the others' mean utility in the set and ``weight`` times the mean diversity of the other sets.
    """
    check_probability(weight=weight)
    utility, diversity = _inputs(utility, diversity)
    own = _rloo(utility.flatten(0, 1)).view_as(utility)
    return keep((1 - weight) * own + weight * _shared(utility, diversity, credit, temperature), torch.isfinite(utility))
