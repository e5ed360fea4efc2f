"""Selection of pairs to label or to train on.

All have one shape, ``(margins (N,), *, ...) -> (N,)`` bool, True where the pair is kept; ``margins`` is first minus
second, by a reward or by ``beta * log-ratio``. NaN is never selected; of equal margins the first is selected. All
detached.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_not_negative, check_same_shape


def _flat(**values: Tensor) -> list[Tensor]:
    """The values ``(N,)`` in fp32."""
    check_same_shape(**values)
    for name, x in values.items():
        if x.ndim != 1 or not len(x):
            raise ValueError(f"{name} must have shape (N,) with N >= 1, got {tuple(x.shape)}")
    return [as_float(x) for x in values.values()]


def largest(values: Tensor, *, keep: int) -> Tensor:
    """Select the ``keep`` largest of ``values (N,)``.

    Raises:
        ValueError: ``keep`` is not in 1..N, or the shape does not fit.
    """
    (values,) = _flat(values=values)
    if not 1 <= keep <= len(values):
        raise ValueError(f"keep must be in 1..N = {len(values)}, got {keep}")
    order = torch.where(values.isnan(), -math.inf, values).argsort(descending=True, stable=True)
    chosen = torch.zeros_like(values, dtype=torch.bool).index_fill(0, order[:keep], True)
    return chosen & ~values.isnan()


def small_margin(margins: Tensor, *, keep: int) -> Tensor:
    """Select the ``keep`` pairs of smallest ``|margin|``, the most uncertain ones, for labelling (arXiv:2406.17312).

    Raises:
        ValueError: see :func:`largest`.
    """
    return largest(-margins.abs(), keep=keep)


def large_margin(margins: Tensor, *, keep: int) -> Tensor:
    """Select the ``keep`` pairs of largest ``|margin|`` (RLP's confident pseudo-labels, practical DNO).

    Raises:
        ValueError: see :func:`largest`.
    """
    return largest(margins.abs(), keep=keep)


def above_margin(margins: Tensor, *, threshold: float) -> Tensor:
    """Select the pairs with ``|margin| > threshold`` (mixed PO's easy set).

    Raises:
        ValueError: ``threshold`` is negative, or the shape does not fit.
    """
    check_not_negative(threshold=threshold)
    (margins,) = _flat(margins=margins)
    return margins.abs() > threshold


def agree(margins: Tensor, other: Tensor) -> Tensor:
    """Select the pairs with the same sign in two judgements or two orders of presentation; a tie never agrees. Both
    ``(N,)``.

    Raises:
        ValueError: shapes differ.
    """
    margins, other = _flat(margins=margins, other=other)
    return margins.sign() * other.sign() > 0


def cross_small_loss(losses_a: Tensor, losses_b: Tensor, *, keep: int) -> tuple[Tensor, Tensor]:
    """Return the pairs for models a and b: each trains on the ``keep`` pairs of smallest loss under the *other* (CRM).

    Args:
        losses_a: ``(N,)`` losses of model a on the same pairs.
        losses_b: ``(N,)`` of model b.
        keep: pairs for each.

    Returns:
        Masks for a and for b, ``(N,)`` each.

    Raises:
        ValueError: shapes differ, or ``keep`` is not in 1..N.
    """
    losses_a, losses_b = _flat(losses_a=losses_a, losses_b=losses_b)
    return largest(-losses_b, keep=keep), largest(-losses_a, keep=keep)
