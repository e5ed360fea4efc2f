"""Distillation on a model's own samples: ``(B, T, V)`` logits to one loss per token, ``(B, T)``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses import distillation
from diffalign.losses.common import as_float, check_floating, check_mask, check_same_shape, keep
from diffalign.losses.recipes.registry import recipe


@recipe("aligndistil", "distillation", beta=0.1, kappa=10.0)
def aligndistil(
    student: Tensor, teacher: Tensor, opposite: Tensor, *, beta: float, kappa: float, mask: Tensor | None = None
) -> Tensor:
    """AlignDistil (arXiv:2503.02832), the form of the code: reverse KL to an extrapolated teacher, ``(B, T)``.

    Formula: (beta / w) KL(student || softmax(z+ + w (z+ - z-))), w = kappa |p+ - p-|_1 + 1e-3 at each position

    ``z = z+ + w (z+ - z-)`` with ``w = kappa |p+ - p-|_1 + 1e-3`` for each position, loss times ``beta / w``. On
    diffusion models: extrapolated predictions and ``distillation.mse``.

    Args:
        student: ``(B, T, V)`` logits.
        teacher: ``(B, T, V)`` z+ of a model trained by DPO; detached.
        opposite: ``(B, T, V)`` z- of a model trained on swapped pairs; detached.
        beta: strength.
        kappa: 10 or 15.
        mask: ``(B, T)``.
    """
    check_same_shape(student=student, teacher=teacher, opposite=opposite)
    plus, minus = as_float(teacher.detach()), as_float(opposite.detach())
    weight = kappa * (plus.softmax(-1) - minus.softmax(-1)).abs().sum(-1) + 1e-3
    target = plus + weight[..., None] * (plus - minus)
    return keep(distillation.reverse(student, target, mask=mask) * beta / weight, mask)


@recipe("draft-opd", "distillation")
def draft_opd(student: Tensor, teacher: Tensor, exposed: Tensor) -> Tensor:
    """Draft-OPD [derived from the abstract]: reverse KL on the positions checked by the verifier, ``(B, T)``.

    Formula: KL(student || teacher) where exposed, else 0

    Args:
        student: ``(B, T, V)`` logits of the draft model on its own samples.
        teacher: ``(B, T, V)``.
        exposed: ``(B, T)``, 1 where checked by the verifier.
    """
    return distillation.reverse(student, teacher, mask=exposed)


class VideoOpd(NamedTuple):
    """``loss (B, T)`` of the reliable rollouts, 0 for the others; ``priority (B,)`` for resampling them."""

    loss: Tensor
    priority: Tensor


@recipe("video-opd", "distillation")
def video_opd(
    student: Tensor, teacher: Tensor, teacher_reward: Tensor, *, threshold: float, mask: Tensor | None = None
) -> VideoOpd:
    """Video-OPD [derived from the abstract]: reverse KL on own rollouts where the teacher is reliable.

    Formula: loss: 1[R_teacher >= threshold] KL(student || teacher); priority: its sum over t

    The curriculum prefers rollouts on which a reliable teacher disagrees:
    ``priority = 1[reward >= threshold] sum_t KL_t``.

    Args:
        student: ``(B, T, V)`` logits.
        teacher: ``(B, T, V)``.
        teacher_reward: ``(B,)`` reward of the teacher on the prompt.
        threshold: smallest reward of a reliable teacher.
        mask: ``(B, T)``.
    """
    divergence = distillation.reverse(student, teacher, mask=mask)
    if divergence.ndim != 2 or teacher_reward.shape != divergence.shape[:1]:
        raise ValueError(
            f"need logits (B, T, V) and one reward each, got {tuple(student.shape)} and {tuple(teacher_reward.shape)}"
        )
    loss = keep(divergence, (teacher_reward >= threshold)[:, None].expand_as(divergence))
    return VideoOpd(loss, loss.detach().sum(1))


@recipe("keye-mopd", "distillation")
def keye_mopd(student: Tensor, teachers: Tensor, domain: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Multi-teacher distillation of Keye-VL 2.0 [derived]: reverse KL to the teacher of each sample's domain,
    ``(B, T)``.

    Formula: KL(student || teacher of the sample's domain)

    Args:
        student: ``(B, T, V)`` logits.
        teachers: ``(K, B, T, V)``.
        domain: ``(B,)`` integers in 0..K-1.
        mask: ``(B, T)``.

    Raises:
        ValueError: a shape does not fit, or a domain has no teacher.
    """
    count, rows = teachers.shape[0], student.shape[0]
    if teachers.shape[1:] != student.shape or domain.shape != (rows,) or domain.is_floating_point():
        raise ValueError(
            f"need student (B, T, V), teachers (K, B, T, V) and integer domains (B,), got "
            f"{tuple(student.shape)}, {tuple(teachers.shape)} and {domain.dtype} {tuple(domain.shape)}"
        )
    if not bool(((domain >= 0) & (domain < count)).all()):
        raise ValueError(f"domains must be in 0..{count - 1}, one teacher each, got {domain.tolist()}")
    return distillation.reverse(student, teachers[domain, torch.arange(rows, device=domain.device)], mask=mask)


@recipe("dagger-llm", "distillation")
def dagger_llm(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """DAgger [derived from the abstract]: the teacher's labels on visited states, ``(B, T)``.

    Formula: -sum_v p_teacher(v) log p_student(v)

    Cross-entropy to the teacher; rollouts mix teacher and student with a decreasing probability of the teacher (in the
    trainer).

    Args:
        student: ``(B, T, V)`` logits.
        teacher: ``(B, T, V)``.
        mask: ``(B, T)``.
    """
    return distillation.cross_entropy(student, teacher, mask=mask)


@recipe("distil", "distillation")
def distil(student: Tensor, expert: Tensor, logp: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """DistIL (arXiv:2606.05152) [derived from the abstract]: cross-entropy to an expert with credit for later tokens.

    Formula: CE_t + logp_t sg(sum_{t' > t} CE_t'), CE = cross-entropy to the expert

    ``CE_t + logp_t sg(sum over later t' of CE_t')``, ``(B, T)``: the second term is the score-function part of the
    exact gradient. Without it this is DAgger.

    Args:
        student: ``(B, T, V)`` logits on own samples.
        expert: ``(B, T, V)``.
        logp: ``(B, T)`` the student's log-probs of the sampled tokens, with gradient.
        mask: ``(B, T)``.
    """
    check_floating(logp=logp)
    cost = distillation.cross_entropy(student, expert, mask=mask)
    check_same_shape(logp=logp, cost=cost)
    later = cost.detach().flip(1).cumsum(1).flip(1) - cost.detach()
    return cost + keep(logp, check_mask(logp, mask)) * later
