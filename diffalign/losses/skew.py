"""Preferences that need not be transitive: the skew-symmetric score of two embeddings (GPM, arXiv:2410.02197)."""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import as_float, check_floating, check_same_shape


def skew_score(v_i: Tensor, v_j: Tensor, *, gate: Tensor | None = None) -> Tensor:
    """Return ``sum_l gate_l (v_i[2l] v_j[2l+1] - v_i[2l+1] v_j[2l])``, ``(...,)``: positive where i is preferred.

    The form of the code. The paper defines ``<R v_i, v_j>`` and later prints ``v_i' R v_j``, of the opposite sign.
    ``v = (r, c)`` with one c for all gives ``c (r_i - r_j)``, Bradley-Terry; three unit vectors at 120 degrees beat
    each other in a circle. Unit norm is in the paper, not in the code's training: normalise before the call.

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
