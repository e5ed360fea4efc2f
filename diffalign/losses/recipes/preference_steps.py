"""Pair losses on steps, groups or several conditions, with the logistic link.

Steps are tokens or denoising steps, ``(B, T)``. Masked steps are 0, as
:func:`diffalign.losses.log_ratio.token_log_ratio` returns them. All return ``(B,)`` except :func:`svpo`.
"""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import as_float, check_same_shape, keep, row_mean
from diffalign.losses.log_ratio import log_ratio
from diffalign.losses.preference import hinge, logistic, pair_margin
from diffalign.losses.ranking import rank_agreement
from diffalign.losses.recipes.preference import dpo
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.sft import nll
from diffalign.losses.value import mse


@recipe("tdpo", "pair", beta=0.1, alpha=0.5)
def tdpo(r_w: Tensor, r_l: Tensor, kl_w: Tensor, kl_l: Tensor, *, beta: float, alpha: float) -> Tensor:
    """TDPO2 (arXiv:2404.11999): DPO with a token-level KL margin; no gradient through the winner's KL.

    Formula: -log sigmoid(beta (r_w - r_l) - beta alpha (KL_l - sg KL_w))

    The released configuration ships TDPO1, :func:`tdpo1`.

    Args:
        r_w: ``(B,)`` summed log-ratio of the winner.
        r_l: that of the loser.
        kl_w: ``(B,)`` ``sum_t KL(ref_t || policy_t)`` over the winner's steps; for Gaussian steps of one variance
            :func:`diffalign.losses.gaussian_kl`, summed over steps.
        kl_l: that of the loser, with its gradient.
        beta: inverse temperature.
        alpha: strength of the KL term.
    """
    return logistic(pair_margin(r_w, r_l, beta=beta, margin=beta * alpha * (as_float(kl_l) - as_float(kl_w.detach()))))


def tdpo1(r_w: Tensor, r_l: Tensor, kl_w: Tensor, kl_l: Tensor, *, beta: float = 0.1) -> Tensor:
    """TDPO1 (arXiv:2404.11999): alpha = 1, and both KL terms have a gradient. Arguments as in :func:`tdpo`."""
    return logistic(pair_margin(r_w, r_l, beta=beta, margin=beta * (as_float(kl_l) - as_float(kl_w))))


@recipe("cpl", "pair", alpha=0.1, loser_scale=0.5, discount=1.0)
def cpl(
    steps_w: Tensor, steps_l: Tensor, *, alpha: float, loser_scale: float, discount: float, bc: float = 0.0
) -> Tensor:
    """CPL (arXiv:2310.13639): discounted step sums without a reference, the loser scaled down.

    Formula: -log sigmoid(alpha (sum_t gamma**t logp_w,t - loser_scale sum_t gamma**t logp_l,t)) + bc NLL

    Released code: no discount. CPL-BC has ``loser_scale=1, bc=1`` (bc times the mean step NLL of both segments is
    added); CPL-KL takes log-ratios for steps, with ``alpha=0.2, loser_scale=0.75``, and is DPO at ``loser_scale=1``.

    Args:
        steps_w: ``(B, T)`` log-probs of each action of the preferred segment.
        steps_l: those of the other.
        alpha: temperature.
        loser_scale: in (0, 1]; below 1 the loss is not invariant to a shift of both segments.
        discount: in (0, 1].
        bc: weight of the behaviour-cloning term.
    """
    s_w, s_l = log_ratio(steps_w, discount=discount), log_ratio(steps_l, discount=discount)
    cloning = nll(row_mean(steps_w) + row_mean(steps_l)) / 2
    return logistic(pair_margin(s_w, s_l, beta=alpha, loser_scale=loser_scale)) + bc * cloning


@recipe("dppo-preference", "pair", tau=0.1, loser_scale=1.0)
def dppo_preference(
    distance_w: Tensor,
    distance_l: Tensor,
    *,
    mask_w: Tensor | None = None,
    mask_l: Tensor | None = None,
    tau: float,
    loser_scale: float,
) -> Tensor:
    """DPPO from preferences (arXiv:2301.12842): CPL on the mean distance of the policy's actions.

    Formula: -log sigmoid((-d_w + loser_scale d_l) / tau), d = mean_t distance

    ``distance`` ``(B, T)``: ``|policy(s) - a|_2`` over the range of actions, for each step; on diffusion the denoising
    error. ``loser_scale`` is tuned per environment.
    """
    d_w, d_l = row_mean(distance_w, mask_w), row_mean(distance_l, mask_l)
    return logistic(pair_margin(-d_w, -d_l, beta=1 / tau, loser_scale=loser_scale))


@recipe("cream", "pair", beta=0.1, per_prompt=False)
def cream(r_w: Tensor, r_l: Tensor, scores: Tensor, scores_before: Tensor, *, beta: float, per_prompt: bool) -> Tensor:
    """CREAM (arXiv:2410.12735): DPO with the rank agreement of two models on the same samples as label; beta unsure.

    Formula: -C log sigmoid(z) - (1 - C) log sigmoid(-z), z = beta (r_w - r_l), C = share of concordant pairs

    Args:
        r_w: ``(B,)`` log-ratio of the sample with the highest score.
        r_l: that of the one with the lowest.
        scores: ``(B, G)`` implicit rewards of all samples under the model; detached.
        scores_before: those under its predecessor. Ties count half (by index in the released code).
        beta: inverse temperature.
        per_prompt: one label per prompt instead of the average over the batch (over the data set in the released code).
    """
    agreement = rank_agreement(scores, scores_before)
    return dpo(r_w, r_l, beta=beta, label=agreement if per_prompt else agreement.mean())


@recipe("gepo", "pair", beta=0.1, lam=1.0)
def gepo(
    r_w: Tensor,
    r_l: Tensor,
    *,
    mask_w: Tensor | None = None,
    mask_l: Tensor | None = None,
    beta: float,
    lam: float,
) -> Tensor:
    """GEPO (arXiv:2505.12723): DPO between group means, plus ``lam`` times the variance of the winners' log-ratios.

    Formula: -log sigmoid(beta (mean r_w - mean r_l)) + lam var r_w

    Mixed into the RL loss with weight 0.01. The variance is the population's, 0 for one winner [ours]; beta unsure.

    Args:
        r_w: ``(B, N)`` log-ratios of N equally good items.
        r_l: ``(B, K)`` those of K equally poor ones.
        mask_w: ``(B, N)``, 1 where valid.
        mask_l: ``(B, K)``.
        beta: inverse temperature.
        lam: weight of the variance.
    """
    mean = row_mean(r_w, mask_w)
    spread = row_mean((keep(r_w, mask_w) - mean[:, None]) ** 2, mask_w)
    return dpo(mean, row_mean(r_l, mask_l), beta=beta) + lam * spread


@recipe("svpo", "pair", beta=0.1, value=1.0, margin=1.0)
def svpo(
    r_w: Tensor, r_l: Tensor, values: Tensor, targets: Tensor, *, beta: float, value: float, margin: float
) -> Tensor:
    """SVPO (arXiv:2406.10858): DPO on two sibling steps of one state, plus a value head's error and margin.

    Formula: -log sigmoid(beta (r_w - r_l)) + value (sum_w,l (V - target)**2 / 2 + relu(margin - (V_w - V_l)))

    Second-hand, and the three settings are unsure. The tree search for siblings and targets is not included.

    Args:
        r_w: ``(B,)`` or ``(B, T)`` log-ratios of the better sibling steps.
        r_l: those of the worse ones.
        values: ``(2, ...)`` predictions for winner and loser, stacked over the shape of ``r_w``.
        targets: same shape, value estimates of the search, detached.
        beta: inverse temperature.
        value: weight of the value terms.
        margin: margin of the winner's value over the loser's.
    """
    check_same_shape(values=values, targets=targets)
    error = mse(values, targets).sum(0)
    ranking = hinge(as_float(values[0]) - as_float(values[1]), target=margin)
    return dpo(r_w, r_l, beta=beta) + value * (error + ranking)


@recipe("opa-dpo", "pair", beta=0.1, masked=0.2, anchor=1.0, shift=0.0)
def opa_dpo(
    r_w: Tensor, r_l: Tensor, r_masked: Tensor, *, beta: float, masked: float, anchor: float, shift: float
) -> Tensor:
    """OPA-DPO (arXiv:2501.09695): three terms for one preferred answer; sum the losses of the expert's and of the
    revised answer.

    Formula: -log sigmoid(beta (r_w - r_l)) - masked log sigmoid(beta (r_w - r_masked)) - anchor log sigmoid(beta r_w -
    shift)

    Summed log-ratios and signs as in the paper: the released code applies the link per token, and its anchor on the
    revised answer has the opposite sign. Which answers the masked pair covers is unsure.

    Args:
        r_w: ``(B,)`` log-ratio of the preferred answer.
        r_l: that of the model's own answer.
        r_masked: that of the preferred answer with 30 % of the condition (image) masked.
        beta: inverse temperature.
        masked: weight of the pair against the masked condition.
        anchor: weight of the anchor, ``-log sigmoid(beta r_w - shift)``.
        shift: neutral value of the anchor.
    """
    held = logistic(pair_margin(r_w, beta=beta, margin=shift))
    return dpo(r_w, r_l, beta=beta) + masked * dpo(r_w, r_masked, beta=beta) + anchor * held
