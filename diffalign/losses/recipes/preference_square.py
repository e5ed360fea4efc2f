"""Pair losses with the square link: regression of a log-ratio difference on a target in nats.

The target is absolute: on a diffusion surrogate, whose scale is arbitrary, tune tau, eta or beta. All return ``(B,)``;
``r_w`` and ``r_l`` as in :mod:`diffalign.losses.recipes.preference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from diffalign.losses.common import as_float, check_positive, check_probability
from diffalign.losses.label_noise import soft_label
from diffalign.losses.log_ratio import log_ratio
from diffalign.losses.preference import pair_margin, square
from diffalign.losses.recipes.registry import recipe


@recipe("ipo", "pair", tau=0.1)
def ipo(r_w: Tensor, r_l: Tensor, *, tau: float, label: float | Tensor = 1.0) -> Tensor:
    """IPO (arXiv:2310.12036): a square loss with a finite optimum also for deterministic labels.

    Formula: (r_w - r_l - 1 / (2 tau))**2

    Sums as in the paper; TRL divides each log-ratio by its length, as confirmed by the authors: pass
    :func:`diffalign.losses.log_ratio.mean_log_ratio` for that. On images take the mean over latents. ``label`` as in
    DPO; the optimum is ``(2 p - 1) / (2 tau)``.
    """
    check_positive(tau=tau)
    return soft_label(partial(square, target=1 / (2 * tau)), pair_margin(r_w, r_l), label)


@recipe("inpo", "pair", ratio=1 / 3, eta=0.0075)
def inpo(
    logp_w: Tensor, logp_l: Tensor, refs_w: Sequence[Tensor], refs_l: Sequence[Tensor], *, ratio: float, eta: float
) -> Tensor:
    """INPO (arXiv:2407.00617): IPO against a mixture of reference and previous policy.

    Formula: (h - 1 / (2 eta))**2, h = log-ratio of winner minus loser to ref**ratio old**(1 - ratio)

    The settings are from MNPO's code; INPO's own are unsure.

    Args:
        logp_w: ``(B,)`` summed log-probs of the winner (or ``(B, T)`` with masked tokens at 0).
        logp_l: those of the loser.
        refs_w: log-probs of the winner under (reference, previous policy), same shape.
        refs_l: those of the loser.
        ratio: tau / eta, the share of the reference, in [0, 1].
        eta: step size.
    """
    return mnpo(logp_w, logp_l, refs_w, refs_l, ratio=ratio, eta=eta, weights=(1.0,))


def _mixture(ratio: float, weights: Sequence[float], history: int) -> list[float]:
    """Shares of the reference and of ``history`` past policies; unused weights are dropped, the others renormalised."""
    check_probability(ratio=ratio)
    past = list(weights)[:history]
    if len(past) < history:
        raise ValueError(f"{history} past policies need a weight each, got {list(weights)}")
    total = sum(past)
    return [ratio] + [(1 - ratio) * weight / total for weight in past] if total else [1.0, *past]


@recipe("mnpo", "pair", ratio=1 / 3, eta=0.0075, weights=(1.0, 0.0))
def mnpo(
    logp_w: Tensor,
    logp_l: Tensor,
    refs_w: Sequence[Tensor],
    refs_l: Sequence[Tensor],
    *,
    ratio: float,
    eta: float,
    weights: Sequence[float],
) -> Tensor:
    """MNPO (arXiv:2509.23102): INPO against a weighted population of past policies, newest first.

    Formula: (h - 1 / (2 eta))**2, h = log-ratio of winner minus loser to ref**ratio prod_j old_j**((1 - ratio) w_j)

    Coefficients always sum to 1; in the released code not before there is a history.

    Args:
        logp_w: as in :func:`inpo`.
        logp_l: as in :func:`inpo`.
        refs_w: log-probs under the reference, then under each past policy; only the reference at the start.
        refs_l: those of the loser.
        ratio: share of the reference.
        eta: step size.
        weights: one for each past policy.
    """
    check_positive(eta=eta)
    coef = _mixture(ratio, weights, len(refs_w) - 1)
    h = pair_margin(log_ratio(logp_w, refs_w, coef=coef), log_ratio(logp_l, refs_l, coef=coef))
    return square(h, target=1 / (2 * eta))


@recipe("irepo", "pair", beta=0.1)
def irepo(r_1: Tensor, r_2: Tensor, label: Tensor, *, beta: float) -> Tensor:
    """iREPO (arXiv:2405.15230): the margin regressed on the logit of the empirical preference; the reference is the
    last iterate. Second-hand; beta and its position are unsure.

    Formula: (beta (r_1 - r_2) - logit p)**2

    ``label`` ``(B,)`` in [0, 1], clamped to [1e-6, 1 - 1e-6]; detached.
    """
    check_probability(label=label)
    return square(pair_margin(r_1, r_2, beta=beta), target=torch.logit(as_float(label), eps=1e-6))


@recipe("refuel", "pair", eta=1.0)
def refuel(r_1: Tensor, r_2: Tensor, reward_1: Tensor, reward_2: Tensor, *, eta: float) -> Tensor:
    """REFUEL (arXiv:2410.04612): two continuations of one prefix, their log-ratio regressed on the reward difference.

    Formula: (r_1 - r_2 - eta (R_1 - R_2))**2

    ``r`` ``(B,)`` is the log-prob of the continuation minus that at sampling (the old policy's, not a reference's);
    ``R`` ``(B,)`` its reward, a KL penalty to the reference included; detached. eta 1 (HH), 1e3 (setting one).
    """
    return square(pair_margin(r_1, r_2), target=eta * (as_float(reward_1) - as_float(reward_2)))


@recipe("srpo-self-improving", "pair", beta=0.1)
def srpo(r_w: Tensor, r_l: Tensor, revise_w: Tensor, revise_l: Tensor, *, beta: float) -> Tensor:
    """SRPO, self-improving (arXiv:2406.01660): IPO on the direct and the revision policy.

    Formula: (beta (r_w - r_l + revise_w - revise_l) - 1)**2

    Derived from the objective; beta is unsure, and the optional second square is left out. Needs a model conditioned on
    an earlier answer: ``revise_w`` ``(B,)`` is the log-ratio of the winner given the loser, ``revise_l`` the reverse.
    Without revision it is IPO of tau = beta / 2, times beta squared.
    """
    return square(pair_margin(r_w, r_l, beta=beta) + pair_margin(revise_w, revise_l, beta=beta), target=1.0)
