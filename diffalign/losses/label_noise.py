"""Uncertain and noisy preference labels.

``p`` is the probability that the first item of a pair is the better one: a number, ``(B,)`` or the shape of the margin,
always detached. :func:`soft_label` weights both signs of a link of :mod:`diffalign.losses.preference`;
:func:`symmetric_noise` and :func:`robust_noise` map p and are inverses of each other; :func:`noise_mixture` models the
noise in the likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from diffalign.losses.common import as_float, check_probability, per_row

Label = TypeVar("Label", float, Tensor)


def soft_label(link: Callable[[Tensor], Tensor], z: Tensor, label: float | Tensor = 1.0) -> Tensor:
    """Return ``p link(z) + (1 - p) link(-z)``, p the probability that the first item is the better one.

    Under the logistic link the slope is ``sigmoid(z) - p`` and the minimum lies at ``logit(p)``; under the square at
    ``(2 p - 1) target``. Labels outside [0, 1], as :func:`robust_noise` makes them, are allowed.

    Args:
        link: a function of :mod:`diffalign.losses.preference`; set its options with ``functools.partial``.
        z: the margin, ``(B,)`` or ``(B, T)``. The reverse term has the same z, with margin and loser scale.
        label: p, a number, ``(B,)`` or the shape of ``z``; detached.
    """
    z = as_float(z)
    p = per_row(label, z).detach()
    return p * link(z) + (1 - p) * link(-z)


def _noise_input(label: Label, flip: float) -> Label:
    check_probability(label=label)
    if not 0 <= flip < 0.5:
        raise ValueError(f"flip is the share of swapped labels and must be in [0, 0.5), got {flip}")
    return as_float(label) if isinstance(label, Tensor) else label


def symmetric_noise(label: Label, *, flip: float) -> Label:
    """Return ``p (1 - 2 flip) + flip``: the expected label under flips of rate ``flip`` (conservative DPO, label
    smoothing).

    Raises:
        ValueError: the label is outside [0, 1], or flip outside [0, 0.5).
    """
    return _noise_input(label, flip) * (1 - 2 * flip) + flip


def robust_noise(label: Label, *, flip: float) -> Label:
    """Return ``(p - flip) / (1 - 2 flip)``, the inverse of :func:`symmetric_noise`: its expected loss under flips of
    rate ``flip`` is the clean loss (rDPO).

    Labels outside [0, 1] make the logistic loss unbounded below (flip 0.2: -16.7 at z = 50): log z, stop early.

    Raises:
        ValueError: the label is outside [0, 1], or flip outside [0, 0.5).
    """
    return (_noise_input(label, flip) - flip) / (1 - 2 * flip)


def noise_mixture(z: Tensor, *, flip: float) -> Tensor:
    """Return ``-log((1 - flip) sigmoid(z) + flip / 2)``: a share ``flip`` of the labels is random (Ibarz et al.).

    Bounded by ``-log(flip / 2)``, which bounds the influence of a mislabelled pair.

    Raises:
        ValueError: flip is outside [0, 1).
    """
    if not 0 <= flip < 1:
        raise ValueError(f"flip is the share of coin tosses and must be in [0, 1), got {flip}")
    z = as_float(z)
    share = torch.full_like(z, flip)
    return -torch.logaddexp((1 - share).log() + F.logsigmoid(z), (share / 2).log())
