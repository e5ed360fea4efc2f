"""Pair losses on token log-probs: CPO, ORPO and TPO without a reference; LD-DPO and WPO with one.

``logp_w`` and ``logp_l`` are token log-probs ``(B, T)`` of the chosen and the rejected answer with masks ``mask_w``,
``mask_l``. All return ``(B,)``. NLL terms are the token mean over the batch, added to every pair, as in released code.
A diffusion model has no log-prob of this kind: minus the denoising error makes these margins on errors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses import preference
from diffalign.losses.common import check_mask, check_probability, masked_mean
from diffalign.losses.label_noise import soft_label, symmetric_noise
from diffalign.losses.log_ratio import log_ratio, mean_log_ratio
from diffalign.losses.preference import logistic, pair_margin
from diffalign.losses.recipes.preference import dpo, simpo
from diffalign.losses.recipes.registry import recipe

Mask = Tensor | None


def _nll(logp: Tensor, mask: Mask) -> Tensor:
    return -masked_mean(logp, mask)


@recipe("cpo", "pair", beta=0.1, sft=1.0)
def cpo(
    logp_w: Tensor,
    logp_l: Tensor,
    *,
    mask_w: Mask = None,
    mask_l: Mask = None,
    beta: float,
    sft: float,
    flip: float = 0.0,
) -> Tensor:
    """CPO (arXiv:2401.08417; TRL's ``CPOTrainer``): DPO without a reference, plus fine-tuning on the chosen answer.

    Formula: -log sigmoid(beta (sum_t logp_w - sum_t logp_l)) + sft NLL(chosen)

    ``flip`` is TRL's label smoothing. With ``loss_type="simpo"`` and an NLL term TRL calls it CPO-SimPO: ``simpo`` plus
    the same term.
    """
    z = pair_margin(log_ratio(logp_w, mask=mask_w), log_ratio(logp_l, mask=mask_l), beta=beta)
    return soft_label(logistic, z, symmetric_noise(1.0, flip=flip)) + sft * _nll(logp_w, mask_w)


@recipe("cpo-hinge", "pair", beta=0.1, sft=1.0)
def cpo_hinge(
    logp_w: Tensor, logp_l: Tensor, *, mask_w: Mask = None, mask_l: Mask = None, beta: float, sft: float
) -> Tensor:
    """CPO with the hinge (TRL's ``loss_type="hinge"``; SLiC without a reference).

    Formula: relu(1 - beta (sum_t logp_w - sum_t logp_l)) + sft NLL(chosen)
    """
    z = pair_margin(log_ratio(logp_w, mask=mask_w), log_ratio(logp_l, mask=mask_l), beta=beta)
    return preference.hinge(z) + sft * _nll(logp_w, mask_w)


@recipe("cpo-ipo", "pair", tau=0.1, sft=1.0)
def cpo_ipo(
    logp_w: Tensor, logp_l: Tensor, *, mask_w: Mask = None, mask_l: Mask = None, tau: float, sft: float
) -> Tensor:
    """CPO with IPO's square on mean log-probs (TRL's ``loss_type="ipo"``).

    Formula: (mean_t logp_w - mean_t logp_l - 1 / (2 tau))**2 + sft NLL(chosen)
    """
    z = pair_margin(mean_log_ratio(logp_w, mask=mask_w), mean_log_ratio(logp_l, mask=mask_l))
    return preference.square(z, target=1 / (2 * tau)) + sft * _nll(logp_w, mask_w)


def log_odds(logp: Tensor) -> Tensor:
    """Return ``log(p / (1 - p))`` of log-probs at most 0, stable at both ends; clamped to ``p <= 1 - 1e-6``."""
    x = logp.clamp(max=-1e-6)
    return x - (-x.expm1()).log()


@recipe("orpo", "pair", beta=0.1)
def orpo(
    logp_w: Tensor,
    logp_l: Tensor,
    *,
    mask_w: Mask = None,
    mask_l: Mask = None,
    beta: float,
    nll: Tensor | None = None,
) -> Tensor:
    """ORPO (arXiv:2403.07691): fine-tuning on the chosen answer plus an odds-ratio penalty, without a reference.

    Formula: NLL(chosen) - beta log sigmoid(log odds(p_w) - log odds(p_l)), p = exp(mean_t logp), odds(p) = p / (1 - p)

    beta is the paper's lambda. TRL's NLL is over prompt and answer: pass it as ``nll``; the default is the answer's.
    """
    odds = [log_odds(mean_log_ratio(x, mask=m)) for x, m in ((logp_w, mask_w), (logp_l, mask_l))]
    return (_nll(logp_w, mask_w) if nll is None else nll) + beta * logistic(pair_margin(*odds))


def _with_gold(loss: Tensor, logp_gold: Tensor | None, mask_gold: Mask, alpha: float) -> Tensor:
    return loss if logp_gold is None else loss + alpha * _nll(logp_gold, mask_gold)


@recipe("tpo", "pair", beta=0.01, alpha=1.0)
def tpo(
    logp_w: Tensor,
    logp_l: Tensor,
    *,
    logp_gold: Tensor | None = None,
    mask_w: Mask = None,
    mask_l: Mask = None,
    mask_gold: Mask = None,
    beta: float,
    alpha: float,
) -> Tensor:
    """TPO (arXiv:2405.16681; TRL's ``TPOTrainer``): CPO's margin plus fine-tuning on a third, gold answer.

    Formula: -log sigmoid(beta (sum_t logp_w - sum_t logp_l)) + alpha NLL(gold)

    TRL's ``hinge`` and ``ipo`` types are ``cpo-hinge`` and ``cpo-ipo`` with ``sft=0`` and this NLL.
    """
    loss = cpo(logp_w, logp_l, mask_w=mask_w, mask_l=mask_l, beta=beta, sft=0.0)
    return _with_gold(loss, logp_gold, mask_gold, alpha)


@recipe("tpo-l", "pair", beta=0.01, gamma=0.5, alpha=1.0)
def tpo_l(
    logp_w: Tensor,
    logp_l: Tensor,
    *,
    logp_gold: Tensor | None = None,
    mask_w: Mask = None,
    mask_l: Mask = None,
    mask_gold: Mask = None,
    beta: float,
    gamma: float,
    alpha: float,
) -> Tensor:
    """TPO-L (arXiv:2405.16681): TPO with SimPO's length-normalised margin.

    Formula: -log sigmoid(beta (mean_t logp_w - mean_t logp_l) - gamma) + alpha NLL(gold)
    """
    loss = simpo(logp_w, logp_l, mask_w=mask_w, mask_l=mask_l, beta=beta, gamma=gamma)
    return _with_gold(loss, logp_gold, mask_gold, alpha)


@recipe("ld-dpo", "pair", beta=0.1, alpha=0.5)
def ld_dpo(
    logp_w: Tensor,
    logp_l: Tensor,
    ref_w: Tensor,
    ref_l: Tensor,
    *,
    mask_w: Mask = None,
    mask_l: Mask = None,
    beta: float,
    alpha: float,
) -> Tensor:
    """LD-DPO (arXiv:2409.06411): DPO with weight ``alpha`` on tokens beyond the shorter answer's length.

    Formula: -log sigmoid(beta (r_w - r_l)), r = sum_t c_t (logp - ref), c_t = 1 up to min(|y_w|, |y_l|), else alpha

    alpha in [0, 1]; 1 is DPO. No released default, .5 is [ours].
    """
    check_probability(alpha=alpha)
    place = [_place(x, m) for x, m in ((logp_w, mask_w), (logp_l, mask_l))]
    shared = torch.minimum(place[0].amax(1), place[1].amax(1))[:, None]
    weight = [torch.where(p <= shared, 1.0, alpha) for p in place]
    r_w = log_ratio(logp_w, ref_w, mask=mask_w, weight=weight[0])
    return dpo(r_w, log_ratio(logp_l, ref_l, mask=mask_l, weight=weight[1]), beta=beta)


def _place(x: Tensor, mask: Mask) -> Tensor:
    """Position of each token among the valid ones, from 1, ``(B, T)``."""
    valid = check_mask(x, mask)
    return (torch.ones_like(x, dtype=torch.bool) if valid is None else valid).long().cumsum(1)


@recipe("wpo", "pair", beta=0.1)
def wpo(
    r_w: Tensor,
    r_l: Tensor,
    logp_w: Tensor,
    logp_l: Tensor,
    log_sum_sq_w: Tensor,
    log_sum_sq_l: Tensor,
    *,
    mask_w: Mask = None,
    mask_l: Mask = None,
    beta: float,
) -> Tensor:
    """WPO (arXiv:2406.11827, equation 2; TRL's ``use_weighting``): DPO weighted by the policy's probability of both
    answers.

    Formula: w_w w_l (-log sigmoid(beta (r_w - r_l))), w = exp(mean_t(logp_t - log sum_v p_t(v)**2)), detached

    The division by the sum of squared probabilities makes the weights of peaked and flat distributions comparable.

    Args:
        r_w: ``(B,)`` summed log-ratio to the reference.
        r_l: see ``r_w``.
        logp_w: ``(B, T)`` token log-probs.
        logp_l: see ``logp_w``.
        log_sum_sq_w: ``(B, T)`` log of the sum of squared probabilities over the vocabulary.
        log_sum_sq_l: see ``log_sum_sq_w``.
        mask_w: ``(B, T)``.
        mask_l: ``(B, T)``.
        beta: inverse temperature.
    """
    sides = ((logp_w, log_sum_sq_w, mask_w), (logp_l, log_sum_sq_l, mask_l))
    aligned = [mean_log_ratio(x.detach(), s, mask=m) for x, s, m in sides]
    return (aligned[0] + aligned[1]).exp() * dpo(r_w, r_l, beta=beta)
