"""Transforms of one reward: ``(r, ..., *, ...) -> like r``, unreduced fp32 (fp64 kept).

- ``r``: ``(B,)`` or ``(B, G)``, larger is better; integers and half precision are widened. With gradient, for reward
  back-propagation.
- ``ref``: ``(B, M)``, rewards of M reference samples of the same prompts, for example of the frozen model; detached.
  NaN ones are left out; a prompt without a valid one gets NaN.
- statistics, thresholds and confidences are detached.

NaN means "could not be scored" and stays NaN, so that later means leave the sample out.

Group-centred advantages cancel a shift per prompt (``center``, ``affine`` with scale 1). With a critic a shift ``b``
changes the discounted return of T steps by ``b (1 - gamma**T) / (1 - gamma)``. A reference *inside* a sigmoid does not
cancel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from diffalign.losses.common import Moments, as_float, check_positive, check_probability, check_same_shape, keep


def _refs(r: Tensor, ref: Tensor) -> Tensor:
    """Reference rewards ``(B, M)`` as ``(B, M)`` or ``(B, 1, M)``, one axis more than ``r``; invalid ones NaN."""
    if r.ndim not in (1, 2) or ref.ndim != 2 or ref.shape[0] != r.shape[0] or ref.shape[1] == 0:
        raise ValueError(
            f"rewards must have shape (B,) or (B, G) and their references (B, M) with M >= 1, "
            f"got {tuple(r.shape)} and {tuple(ref.shape)}"
        )
    ref = ref.detach().to(as_float(r).dtype)
    ref = ref.masked_fill(~ref.isfinite(), torch.nan)
    return ref if r.ndim == 1 else ref[:, None]


def affine(r: Tensor, *, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Return ``scale * r + shift`` (ToolRL maps a match in [0, S] to [-3, 3]; reward shift)."""
    return scale * as_float(r) + shift


def center(r: Tensor, ref: Tensor) -> Tensor:
    """Return ``r - mean(ref)`` (contrastive rewards; FREEHAND's first stage). Cancelled by group centring."""
    return as_float(r) - _refs(r, ref).nanmean(-1)


def standardize(r: Tensor, stats: Moments, *, bound: float = torch.inf, eps: float = 1e-8) -> Tensor:
    """Return ``(r - mean) / std``, clamped to ``[-bound, bound]`` (PPO-max with running statistics; 10 in its code).

    Args:
        r: any shape.
        stats: running moments, with or without this batch.
        bound: largest absolute value; the gradient of a bounded reward is 0.
        eps: least std.

    Raises:
        ValueError: ``bound`` or ``eps`` is not positive.
    """
    check_positive(eps=eps)
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound}")
    r = as_float(r)
    return ((r - stats.mean.to(r)) / stats.std.to(r).clamp(min=eps)).clamp(-bound, bound)


def sigmoid_ref(r: Tensor, ref: Tensor, *, k: float = 1.0) -> Tensor:
    """Return ``mean_m sigmoid(k (r - ref_m))``, in (0, 1) (PAR, arXiv:2502.18770, its code; M <= 10, 1 will do).

    The mean Bradley-Terry win rate against the references: 1/2 at a single reference, slope at most ``k / 4``. It
    saturates far above the references, against reward hacking.

    Raises:
        ValueError: ``k`` is not positive, or a shape does not fit.
    """
    check_positive(k=k)
    gap = k * (as_float(r)[..., None] - _refs(r, ref))
    known = ~_refs(r, ref).isnan().expand_as(gap)  # NaN is replaced before the sigmoid, or it would reach the gradient
    return keep(keep(gap, known).sigmoid(), known).sum(-1) / known.sum(-1)


def logsigmoid_ref(r: Tensor, ref: Tensor, *, quantile: float = 0.85) -> Tensor:
    """Return ``log sigmoid(r - q)`` with ``q`` the quantile of the references, <= 0 (LSC, arXiv:2402.00742).

    The slope ``sigmoid(q - r)`` is small for high rewards. The sum over several rewards is the log of a product of
    probabilities, a logical AND. The percentile is from a third-party port [second-hand].

    Raises:
        ValueError: ``quantile`` is outside [0, 1], or a shape does not fit.
    """
    check_probability(quantile=quantile)
    return logsigmoid(as_float(r) - _refs(r, ref).nanquantile(quantile, -1))


def logit_winrate(win_rate: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Return ``logit(p)`` with ``p`` clamped to ``[eps, 1 - eps]`` (P2R, arXiv:2306.14111).

    Args:
        win_rate: any shape, share of votes for the sample against one fixed baseline sample of its prompt, in [0, 1].
            Under Bradley-Terry its logit is ``r - r_baseline``.
        eps: bound; unanimous votes give +-13.8.

    Raises:
        ValueError: a win rate is outside [0, 1], or ``eps`` outside (0, 1).
    """
    win_rate = as_float(win_rate)
    check_probability(win_rate=win_rate.nan_to_num(nan=0.5))
    check_probability(eps=eps, open_ends=True)
    return win_rate.double().clamp(eps, 1 - eps).logit().to(win_rate.dtype)  # in fp32, 1 - eps is off by 1 %


def clipped_prob(q: Tensor, *, prior: float | Tensor) -> Tensor:
    """Return ``max(q - prior, 0)`` (IRRL's clipped linear reward, arXiv:2302.00270, its code).

    Args:
        q: any shape, a discriminator's probability of the correct one of n classes.
        prior: prior probability, 1 / n. The unclipped form is ``affine(q, shift=-prior)``; ``log q - log prior``, which
            this replaces, is not bounded below.

    Raises:
        ValueError: a probability is outside [0, 1].
    """
    q = as_float(q)
    check_probability(q=q.nan_to_num(nan=0.5), prior=prior)
    return relu(q - torch.as_tensor(prior).detach().to(q))


def deadband(r: Tensor, *, low: float, high: float) -> Tensor:
    """Return 0 below ``low``, 1 above ``high``, ``r`` in between (Vision-R1's criteria, arXiv:2503.18013, its code).

    ``low=0, high=1`` is the identity on [0, 1]; ``low = high`` a step.

    Raises:
        ValueError: ``low`` exceeds ``high``.
    """
    if not low <= high:
        raise ValueError(f"low must not exceed high, got {low} and {high}")
    r = as_float(r)
    return torch.where(r < low, torch.zeros_like(r), torch.where(r > high, torch.ones_like(r), r))


def threshold(z: Tensor, *, tau: float = -0.5) -> Tensor:
    """Return ``z`` where it exceeds ``tau``, else 0 (ONI, arXiv:2410.23022, its code). ``z`` is a running z-score."""
    z = as_float(z)
    return torch.where(z <= tau, torch.zeros_like(z), z)


def count_discount(r: Tensor, count: Tensor, *, power: float = 3.0) -> Tensor:
    """Return ``r * count**-power`` (ONI): decay by the number of occurrences in the episode.

    Raises:
        ValueError: a count is not positive, ``power`` is negative, or the shapes differ.
    """
    check_same_shape(r=r, count=count)
    if not power >= 0:
        raise ValueError(f"power must not be negative, got {power}")
    check_positive(count=count)
    r = as_float(r)
    return r * count.detach().to(r.dtype) ** -power


def distance_decay(distance: Tensor, *, limit: float) -> Tensor:
    """Return ``max(0, 1 - distance / limit)``, 1 at distance 0 and 0 beyond ``limit`` (LPO, arXiv:2506.09373).

    Raises:
        ValueError: ``limit`` is not positive.
    """
    check_positive(limit=limit)
    return relu(1 - as_float(distance) / limit)
