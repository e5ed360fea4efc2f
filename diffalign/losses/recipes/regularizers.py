"""Terms that methods add to another objective. Unreduced: one value per pair or token."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from diffalign.losses import distillation, sft
from diffalign.losses.common import as_float, check_floating, check_not_negative, check_same_shape, keep
from diffalign.losses.preference import logistic, pair_margin
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.regularizers import k1, k3


@recipe("t1", "regularizer")
def t1(
    log_ratio: Tensor, entropy: Tensor, *, kl_coef: float, entropy_coef: float, mask: Tensor | None = None
) -> Tensor:
    """T1's terms (arXiv:2501.11651): k3 to a *moving* reference minus an entropy bonus, ``(B, T)``; add the policy
    loss. Coefficients are not known. :func:`move_anchor` moves the reference; oversampling is a larger group.

    Formula: kl_coef (exp(-r) + r - 1) - entropy_coef H

    For samplers of fixed variance the entropy is constant and has no gradient.

    Args:
        log_ratio: ``(B, T)`` log-prob minus that of the moving reference, which has no gradient.
        entropy: ``(B, T)`` of the policy, with gradient.
        kl_coef: not negative.
        entropy_coef: not negative.
        mask: ``(B, T)``.
    """
    check_floating(log_ratio=log_ratio, entropy=entropy)
    check_same_shape(log_ratio=log_ratio, entropy=entropy)
    check_not_negative(kl_coef=kl_coef, entropy_coef=entropy_coef)
    return kl_coef * k3(keep(log_ratio, mask)) - entropy_coef * keep(entropy, mask)


def move_anchor(anchor: Mapping[str, Tensor], policy: Mapping[str, Tensor], *, rate: float) -> dict[str, Tensor]:
    """Return a reference's weights after a step of ``rate`` in [0, 1] towards the policy's; 0 keeps it fixed.

    Raises:
        ValueError: ``rate`` is out of range, or the names differ.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate}")
    if anchor.keys() != policy.keys():
        raise ValueError(f"these weights are not in both models: {sorted(anchor.keys() ^ policy.keys())}")
    return {name: old.lerp(policy[name].detach().to(old), rate) for name, old in anchor.items()}


@recipe("vpo", "pair", beta=0.1)
def vpo(r_w: Tensor, r_l: Tensor, calibration: Tensor, *, weight: float, beta: float) -> Tensor:
    """VPO (arXiv:2405.19320): DPO plus a signed term on calibration samples, ``(B,)``.

    Formula: -log sigmoid(beta (r_w - r_l)) - weight r_calibration

    ``weight > 0`` is offline pessimism, ``-weight * r_cal``: with the chosen samples as calibration, DPO with its
    fine-tuning term. ``weight < 0`` is online optimism, which lowers their probability: with reference samples the form
    of XPO (TRL up to 1.13: 1e-5). The paper's alpha and its choice of calibration samples are unsure; beta of DPO.

    Args:
        r_w: ``(B,)``.
        r_l: ``(B,)``.
        calibration: ``(B,)`` log-ratios of calibration samples.
        weight: signed.
        beta: of the pair loss only; some papers write ``alpha * beta`` for the weight.
    """
    check_same_shape(r_w=r_w, r_l=r_l, calibration=calibration)
    return logistic(pair_margin(r_w, r_l, beta=beta)) + weight * sft.nll(calibration)


@recipe("f-sft", "sft")
def f_sft(log_ratio: Tensor, *, beta: float = 1.0, term: Callable[[Tensor], Tensor] = sft.chi2) -> Tensor:
    """f-SFT (arXiv:2507.00018): fine-tuning on positive samples as learning an implicit reward, like ``log_ratio``.

    Formula: term(u), u = beta log_ratio; chi2: -u + u**2 / 4; hellinger: -u / (1 + u); nll: -u

    The closed forms are derived from conjugates and unsure: ``sft.chi2``, ``sft.hellinger``;
    total variation gives plain ``sft.nll``. The paper recommends a learning rate about ten times smaller.

    Args:
        log_ratio: ``(B,)`` or ``(B, T)`` of positive samples to the reference.
        beta: scale of the implicit reward.
        term: one of ``diffalign.losses.sft``.
    """
    return term(beta * as_float(log_ratio))


@recipe("scir", "pair")
def scir(r_w: Tensor, r_l: Tensor, judge_logits: Tensor, *, beta: float = 0.1, weight: float = 1.0) -> Tensor:
    """SCIR (arXiv:2502.08922) [derived; the exact penalty is not confirmed]: consistency of a model's judge and
    implicit reward, ``(B,)``.

    Formula: 1[both prefer w] (-log sigmoid(z)) + weight JSD(softmax(judge), (sigmoid z, sigmoid -z)), z = beta (r_w -
    r_l)

    DPO on the pairs where both agree, plus ``weight`` times the Jensen-Shannon divergence between the
    two-class distributions, in natural logarithms, on all. The judge is the teacher, detached; its weight is ours.

    Args:
        r_w: ``(B,)``.
        r_l: ``(B,)``.
        judge_logits: ``(B, 2)``, the labelled winner first.
        beta: of DPO.
        weight: of the penalty.
    """
    implicit = beta * torch.stack([as_float(r_w), as_float(r_l)], 1)
    judged = as_float(judge_logits)
    z = pair_margin(r_w, r_l, beta=beta)
    same = z * (judged[:, 0] - judged[:, 1]) > 0
    return keep(logistic(z), same) + weight * distillation.jsd(implicit, judge_logits)


@recipe("papo", "regularizer", kl_coef=0.01, entropy_coef=0.03)
def papo(
    logp: Tensor, logp_masked: Tensor, *, kl_coef: float, entropy_coef: float, mask: Tensor | None = None
) -> Tensor:
    """PAPO's terms (arXiv:2507.06448): perception-aware terms, ``(B, T)``; add the policy loss.

    Formula: -kl_coef k3(logp - logp_masked) - entropy_coef (logp + logp_masked)

    ``-kl_coef k3(logp - logp_masked) - entropy_coef (logp + logp_masked)``: a bonus for the KL to the policy under a
    masked condition (image patches; for generation prompt tokens), which is unbounded, hence the penalty on both
    entropies. 0.02 with a reference KL, 0.05 for 7B models. The code computes masked log-probs without gradient by
    default, so the second entropy is constant there; here it has a gradient.

    Args:
        logp: ``(B, T)`` of the policy on its samples.
        logp_masked: ``(B, T)`` under the masked condition.
        kl_coef: weight of the KL bonus.
        entropy_coef: weight of both entropies; not 0 with a positive ``kl_coef``.
        mask: ``(B, T)``.
    """
    check_floating(logp=logp, logp_masked=logp_masked)
    check_same_shape(logp=logp, logp_masked=logp_masked)
    check_not_negative(kl_coef=kl_coef, entropy_coef=entropy_coef)
    if kl_coef and not entropy_coef:
        raise ValueError("a rewarded KL without an entropy term is unbounded below; give entropy_coef > 0")
    full, blind = keep(logp, mask), keep(logp_masked, mask)
    return -kl_coef * k3(full - blind) - entropy_coef * (full + blind)


@recipe("rdpo-rationales", "pair", beta=0.1, weight=0.1)
def rdpo_rationales(r_w: Tensor, r_l: Tensor, rationale: Tensor, *, beta: float, weight: float) -> Tensor:
    """RDPO (arXiv:2407.14477), the form of the code: DPO plus the likelihood of a rationale, ``(B,)``.

    Formula: -log sigmoid(beta (r_w - r_l)) - weight log sigmoid(beta rationale)

    The README has a weight of 0.001; the paper's derivation has plain ``-weight * rationale`` (``sft.nll``). On images
    any positive sample replaces the rationale.

    Args:
        r_w: ``(B,)``.
        r_l: ``(B,)``.
        rationale: ``(B,)`` log-prob of the rationale of the choice.
        beta: of both terms.
        weight: of the rationale.
    """
    check_same_shape(r_w=r_w, r_l=r_l, rationale=rationale)
    return logistic(pair_margin(r_w, r_l, beta=beta)) + weight * sft.logsigmoid(beta * as_float(rationale))


@recipe("salsa", "regularizer")
def salsa(logp: Tensor, logp_soup: Tensor, *, coef: float) -> Tensor:
    """SALSA (arXiv:2411.01798): PPO's KL penalty against the average of two fine-tuned models, ``(B, T)``, to be added
    to the *reward* (k1, which would have no gradient in a loss). The coefficient is set per task, as in PPO.

    Formula: coef (logp - logp_soup)

    Args:
        logp: ``(B, T)`` of the policy.
        logp_soup: ``(B, T)`` of the average of both models' weights; the policy is initialised from the first.
        coef: not negative.
    """
    check_floating(logp=logp, logp_soup=logp_soup)
    check_same_shape(logp=logp, logp_soup=logp_soup)
    check_not_negative(coef=coef)
    return -coef * k1((as_float(logp) - as_float(logp_soup)).detach())
