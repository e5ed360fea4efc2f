"""Distillation of a teacher's distribution into a student, per position.

All but ``mse`` have one shape, ``(student (..., V), teacher (..., V), *, mask (...)) -> (...)``: logits or log-probs
over V outcomes, teacher detached, masked positions 0 without a gradient. An outcome of logit ``-inf`` has
probability 0.

For Gaussian steps of one variance all of them equal ``|mean_s - mean_t|**2`` up to one factor, so ``mse`` on
predictions replaces each [derived].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffalign.losses.common import check_floating, check_mask, check_probability, check_same_shape, keep


def _inputs(student: Tensor, teacher: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both in fp32, teacher detached; masked rows become 0 first, so that NaN in padding reaches no gradient."""
    check_floating(student=student, teacher=teacher)
    check_same_shape(student=student, teacher=teacher)
    if student.ndim == 0:
        raise ValueError("student and teacher need a last axis, of outcomes or dimensions; got scalars")
    valid = check_mask(student[..., 0], mask)
    wide = None if valid is None else valid[..., None].expand_as(student)
    return keep(student, wide), keep(teacher.detach(), wide)


def _log_probs(student: Tensor, teacher: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    student, teacher = _inputs(student, teacher, mask)
    return student.log_softmax(-1), teacher.log_softmax(-1)


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p || q)`` over the last axis; an outcome without probability under p counts 0 and has no gradient."""
    possible = log_p != -math.inf
    return (log_p.exp() * (keep(log_p, possible) - keep(log_q, possible))).sum(-1)


def forward(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return ``KL(teacher || student)``: mode-covering; the gradient is that of cross-entropy.

    Raises:
        ValueError: shapes differ, or a type is integer.
    """
    log_s, log_t = _log_probs(student, teacher, mask)
    return keep(_divergence(log_t, log_s), mask)


def reverse(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return ``KL(student || teacher)``: mode-seeking. On the student's own samples its sampled form is
    ``policy.reinforce`` with the advantage ``log p_teacher - log p_student``.

    Raises:
        ValueError: shapes differ, or a type is integer.
    """
    log_s, log_t = _log_probs(student, teacher, mask)
    return keep(_divergence(log_s, log_t), mask)


def cross_entropy(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return ``-sum_v p_teacher log p_student``: :func:`forward` plus the teacher's entropy.

    Raises:
        ValueError: shapes differ, or a type is integer.
    """
    log_s, log_t = _log_probs(student, teacher, mask)
    return keep(-(log_t.exp() * keep(log_s, log_t != -math.inf)).sum(-1), mask)


def jsd(student: Tensor, teacher: Tensor, *, beta: float = 0.5, mask: Tensor | None = None) -> Tensor:
    """Return ``beta KL(t || m) + (1 - beta) KL(s || m)`` with the mixture ``m = (1 - beta) s + beta t`` (GKD).

    ``beta`` 0 is :func:`forward` and 1 is :func:`reverse`. These ends are special cases: towards 0 and 1 the formula
    itself goes to 0, and only divided by ``beta`` (by ``1 - beta``) to the two KLs.

    Raises:
        ValueError: shapes differ, a type is integer, or ``beta`` is outside [0, 1].
    """
    check_probability(beta=beta)
    if beta in (0, 1):
        return (reverse if beta else forward)(student, teacher, mask=mask)
    log_s, log_t = _log_probs(student, teacher, mask)
    both = torch.stack([log_s + math.log(1 - beta), log_t + math.log(beta)])
    possible = (both != -math.inf).any(0).expand_as(both)
    log_m = keep(both, possible).logsumexp(0)  # of two zeros its gradient would be NaN
    return keep(beta * _divergence(log_t, log_m) + (1 - beta) * _divergence(log_s, log_m), mask)


def mse(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the mean over the last axis of ``(student - teacher)**2``, ``(...)``, for predictions ``(..., D)``
    (flatten latents first).

    ``D / (2 c**2)`` times this is the KL of two Gaussian steps of standard deviation c, in either direction.

    Raises:
        ValueError: shapes differ, or a type is integer.
    """
    student, teacher = _inputs(student, teacher, mask)
    return ((student - teacher) ** 2).mean(-1)
