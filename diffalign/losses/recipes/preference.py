"""Pair losses with the logistic link: DPO and its variants.

Unless stated otherwise ``r_w`` and ``r_l`` are log-ratios of the winner and the loser, ``(B,)``: summed log-probs
against a reference (:func:`diffalign.losses.log_ratio.log_ratio`) of a language model, or the surrogate of a diffusion
model (then beta is thousands: see the scale rule in :mod:`diffalign.losses.log_ratio`). All return ``(B,)``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from diffalign.losses.common import as_float, check_probability
from diffalign.losses.label_noise import robust_noise, soft_label
from diffalign.losses.log_ratio import mean_log_ratio
from diffalign.losses.preference import logistic, pair_margin
from diffalign.losses.ratio_links import js_link, power_link
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.regularizers import k2
from diffalign.losses.sft import nll


@recipe("dpo", "pair", aliases=("sigmoid",), beta=0.1)
@recipe("con-j", "pair", beta=0.01)
@recipe("mapl", "pair", beta=0.1)
def dpo(r_w: Tensor, r_l: Tensor, *, beta: float | Tensor, label: float | Tensor = 1.0) -> Tensor:
    """DPO (arXiv:2305.18290); beta 0.1, on TL;DR 0.5 [TRL].

    Formula: -log sigmoid(beta (r_w - r_l))

    - Con-J (arXiv:2410.03742): the items are a judge's correct and incorrect verdicts on one labelled pair, beta 0.01
      (trainer's default); the occasional fine-tuning step on the best verdicts is not included.
    - MAPL (arXiv:2505.12845): one response under two prompts, ``r_w = r(y | matching)``, ``r_l = r(y | other)``; beta
      unsure, only this intra-sample term (second-hand).

    Args:
        r_w: ``(B,)`` log-ratio of the winner.
        r_l: ``(B,)`` log-ratio of the loser.
        beta: inverse temperature.
        label: probability that the first item is the better one, a number or ``(B,)``; detached.
    """
    return soft_label(logistic, pair_margin(r_w, r_l, beta=beta), label)


@recipe("dno", "pair", beta=0.1)
def dno(r_1: Tensor, r_2: Tensor, wins_1: Tensor, wins_2: Tensor, *, beta: float) -> Tensor:
    """DNO (arXiv:2404.03715): DPO with a soft label from expected win rates; the reference is the current policy.

    Formula: -p log sigmoid(z) - (1 - p) log sigmoid(-z), z = beta (r_1 - r_2), p = sigmoid(wins_1 - wins_2)

    ``wins`` ``(B,)`` are expected win rates against the current policy; detached. The practical DNO-Prct is DPO on
    pairs of a large gap.
    """
    return dpo(r_1, r_2, beta=beta, label=(as_float(wins_1) - as_float(wins_2)).sigmoid())


@recipe("osp", "pair", beta=0.1)
def osp(r_w: Tensor, r_l: Tensor, strength: Tensor, *, beta: float) -> Tensor:
    """OSP (arXiv:2405.14103), derived from the abstract, beta unsure: DPO with the judged ``strength`` of the
    preference, ``(B,)`` in [0, 1], as label, on pairs of ranked own samples; detached.

    Formula: -s log sigmoid(z) - (1 - s) log sigmoid(-z), z = beta (r_w - r_l)
    """
    check_probability(strength=strength)
    return dpo(r_w, r_l, beta=beta, label=strength)


@recipe("rdpo-robust", "pair", aliases=("robust", "robust-dpo"), beta=0.1)
def rdpo_robust(r_w: Tensor, r_l: Tensor, *, beta: float, flip: float) -> Tensor:
    """rDPO (arXiv:2403.00409), TRL's ``robust``: unbiased under label flips of the true rate ``flip``. Unbounded below:
    log the margin, stop early.

    Formula: (-(1 - flip) log sigmoid(z) + flip log sigmoid(-z)) / (1 - 2 flip), z = beta (r_w - r_l)
    """
    return dpo(r_w, r_l, beta=beta, label=robust_noise(1.0, flip=flip))


@recipe("flex-dpo", "pair", beta=0.1, loser_scale=0.5, sft=0.1)
def flex_dpo(r_w: Tensor, r_l: Tensor, logp_w: Tensor, *, beta: float, loser_scale: float, sft: float) -> Tensor:
    """Flex-DPO (arXiv:2406.07327): a smaller beta for the rejected item, plus fine-tuning on the chosen one.

    Formula: -log sigmoid(beta (r_w - loser_scale r_l)) - sft logp_w

    Second-hand; the settings are ours. ``loser_scale`` is the rejected beta over the chosen one; ``logp_w`` ``(B,)`` is
    reduced (see :func:`rpo_sft`).
    """
    return logistic(pair_margin(r_w, r_l, beta=beta, loser_scale=loser_scale)) + sft * nll(logp_w)


@recipe("rpo-sft", "pair", beta=0.05, eta=0.005)
def rpo_sft(r_w: Tensor, r_l: Tensor, logp_w: Tensor, *, beta: float, eta: float) -> Tensor:
    """RPO (arXiv:2405.16436): DPO plus fine-tuning on the chosen item; beta 0.05 for Gemma, 0.01 for Zephyr.

    Formula: -log sigmoid(beta (r_w - r_l)) - eta logp_w

    ``logp_w`` ``(B,)`` is passed reduced and scaled, since released forms differ: beta times the summed log-prob
    (trainer), the token mean with beta 0.5 and eta 0.2 (OpenRLHF port), the token mean with eta 0.005 (TRL's recipe).
    On diffusion it is minus the denoising error of the winner.
    """
    return dpo(r_w, r_l, beta=beta) + eta * nll(logp_w)


@recipe("hypo", "pair", beta=0.1, lam=1e-4)
def hypo(r_w: Tensor, r_l: Tensor, r_online: Tensor, *, beta: float, lam: float) -> Tensor:
    """HyPO (arXiv:2406.01462): offline DPO plus ``lam`` times the reverse KL on the policy's own samples; lam unsure.

    Formula: -log sigmoid(beta (r_w - r_l)) + lam mean(r_online**2 / 2)

    ``r_online`` ``(N,)`` are live log-ratios of fresh samples. The term is k2, whose gradient ``r grad logp`` is the
    score-function estimate of the KL's gradient; its value is not the KL. The batch mean is added to every pair.
    """
    return dpo(r_w, r_l, beta=beta) + lam * k2(r_online).mean()


@recipe("f-dpo", "pair", beta=0.1, link=js_link)
def f_dpo(r_w: Tensor, r_l: Tensor, *, beta: float, link: Callable[[Tensor], Tensor]) -> Tensor:
    """f-DPO (arXiv:2309.16240): DPO with another divergence, a function of :mod:`diffalign.losses.ratio_links`.

    Formula: -log sigmoid(beta (f(r_w) - f(r_l))); Jensen-Shannon: f(r) = log sigmoid(r); alpha: f(r) = (1 - exp(-alpha
    r)) / alpha

    The default is Jensen-Shannon, bounded, also on surrogates; ``partial(power_link, alpha=1.0)`` is the forward KL.
    """
    return logistic(pair_margin(link(r_w), link(r_l), beta=beta))


@recipe("simpo", "pair", beta=2.0, gamma=0.5)
def simpo(
    logp_w: Tensor,
    logp_l: Tensor,
    *,
    mask_w: Tensor | None = None,
    mask_l: Tensor | None = None,
    beta: float,
    gamma: float,
) -> Tensor:
    """SimPO (arXiv:2405.14734): length-normalised log-probs without a reference, and a target margin.

    Formula: -log sigmoid(beta (mean_t logp_w - mean_t logp_l) - gamma)

    ``logp`` ``(B, T)`` token log-probs, or ``(B,)`` means. Beta 2 to 10, gamma / beta 0.1 to 0.8; TRL's gamma is 0.5. A
    diffusion model has no such log-prob: with minus the denoising error it is a margin on errors.
    """
    s_w, s_l = mean_log_ratio(logp_w, mask=mask_w), mean_log_ratio(logp_l, mask=mask_l)
    return logistic(pair_margin(s_w, s_l, beta=beta, margin=gamma))


@recipe("alphapo", "pair", beta=2.5, gamma=0.1, alpha=0.25)
def alphapo(
    logp_w: Tensor,
    logp_l: Tensor,
    *,
    mask_w: Tensor | None = None,
    mask_l: Tensor | None = None,
    beta: float,
    gamma: float,
    alpha: float,
) -> Tensor:
    """AlphaPO (arXiv:2501.03884): SimPO with a power of the geometric mean probability as reward.

    Formula: -log sigmoid(beta (g(s_w) - g(s_l)) - gamma), g(s) = (1 - exp(-alpha s)) / alpha, s = mean_t logp

    Settings of the Mistral recipe [TRL]; whether the paper's 0.1 is gamma or gamma / beta is unsure. Inputs as in
    :func:`simpo`.
    """
    means = mean_log_ratio(logp_w, mask=mask_w), mean_log_ratio(logp_l, mask=mask_l)
    s_w, s_l = (power_link(mean, alpha=alpha) for mean in means)
    return logistic(pair_margin(s_w, s_l, beta=beta, margin=gamma))
