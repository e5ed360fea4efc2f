"""General preference model (arXiv:2410.02197): a skew-symmetric score for intransitive preferences."""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import as_float, check_floating, check_same_shape
from diffalign.losses.preference import logistic, pair_margin
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.regression import regression_loss


def skew_score(v_i: Tensor, v_j: Tensor, *, gate: Tensor | None = None) -> Tensor:
    """Return ``sum_l gate_l (v_i[2l] v_j[2l+1] - v_i[2l+1] v_j[2l])``, ``(...,)``: positive where i is preferred.

    The form of the code. The paper defines ``<R v_i, v_j>`` and later prints ``v_i' R v_j``, of the opposite sign. ``v
    = (r, c)`` with one c for all gives ``c (r_i - r_j)``, Bradley-Terry; three unit vectors at 120 degrees are a cycle.
    Unit norm is in the paper, not in the code's training: normalise before the call.

    Args:
        v_i: ``(..., 2 k)`` embeddings.
        v_j: same shape.
        gate: ``(..., k)`` or ``(k,)``, not negative, e.g. from the prompt; default 1.

    Raises:
        ValueError: shapes differ, or the last axis is odd.
    """
    check_floating(v_i=v_i, v_j=v_j)
    check_same_shape(v_i=v_i, v_j=v_j)
    if v_i.ndim == 0 or v_i.shape[-1] % 2 or v_i.shape[-1] == 0:
        raise ValueError(f"the last axis must be even and not empty, got shape {tuple(v_i.shape)}")
    v_i, v_j = as_float(v_i), as_float(v_j)
    planes = v_i[..., 0::2] * v_j[..., 1::2] - v_i[..., 1::2] * v_j[..., 0::2]
    if gate is None:
        return planes.sum(-1)
    if gate.shape not in (planes.shape, planes.shape[-1:]):
        raise ValueError(f"gate must be {tuple(planes.shape)} or {tuple(planes.shape[-1:])}, got {tuple(gate.shape)}")
    return (as_float(gate) * planes).sum(-1)


def general_preference(v_w: Tensor, v_l: Tensor, *, gate: Tensor | None = None, tau: float = 0.1) -> Tensor:
    """GPM's head: Bradley-Terry on the skew score over ``tau``, ``(B,)``. Embeddings ``(B, 2 k)``, 6 or 8 dimensions
    best; for the sign see :func:`~diffalign.losses.recipes.gpm.skew_score`.
    """
    return logistic(pair_margin(skew_score(v_w, v_l, gate=gate), beta=1 / tau))


@recipe("gpm-gpo", "regression", beta=1e-3)
def gpm_gpo(log_ratio: Tensor, v: Tensor, v_others: Tensor, *, gate: Tensor | None = None, beta: float) -> Tensor:
    """General preference optimisation (arXiv:2410.02197): log-ratios regressed on mean skew scores, ``(B,)``.

    Formula: (beta r - mean_k s(y beats y_k))**2

    The head that gives s is trained by :func:`general_preference`. With ``v = (reward, 1)`` the target is the centred
    reward. Scale: the target is in units of s, beta is for summed log-ratios.

    Args:
        log_ratio: ``(B,)`` to the current iterate.
        v: ``(B, 2 k)`` embeddings.
        v_others: ``(B, G, 2 k)`` of the samples to compare with.
        gate: ``(k,)`` of one prompt for all, or ``(B, 1, k)``.
        beta: 1e-3 in the paper.
    """
    wide = as_float(v)[:, None].expand_as(v_others)
    gate = None if gate is None else gate.expand(*v_others.shape[:2], -1)
    return regression_loss(log_ratio, skew_score(wide, v_others, gate=gate).mean(1), beta=beta)
