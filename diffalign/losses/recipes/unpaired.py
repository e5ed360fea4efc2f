"""Losses on single desirable and undesirable samples, or with an advantage.

``log_ratio`` is a log-ratio to the reference, of tokens or a surrogate (:mod:`diffalign.losses.surrogates`). One value
per sample, unreduced; running statistics are passed in and returned.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from diffalign.losses import unpaired
from diffalign.losses.common import (
    Moments,
    check_not_negative,
    check_positive,
    check_probability,
    check_same_shape,
    readable,
    update_moments,
)
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.regression import regression_loss
from diffalign.losses.trackers import update_ema


@recipe("kto", "unpaired", beta=0.1)
def kto(
    log_ratio: Tensor,
    desirable: Tensor,
    kl_log_ratio: Tensor,
    *,
    beta: float,
    weight_d: float = 1.0,
    weight_u: float = 1.0,
) -> Tensor:
    """KTO (arXiv:2402.01306, equation 7; TRL's ``KTOTrainer``): single desirable and undesirable answers against an
    estimate of the KL.

    Formula: w (1 - sigmoid(+-beta (r - z))), + for desirable, z = max(0, mean of r on mismatched pairs)

    Args:
        log_ratio: ``(B,)`` summed log-ratios to the reference.
        desirable: ``(B,)`` bool.
        kl_log_ratio: ``(N,)`` log-ratios of mismatched prompts and answers, over all processes; detached.
        beta: scale of the log-ratio.
        weight_d: weight of desirable samples.
        weight_u: weight of undesirable ones.
    """
    check_positive(beta=beta)
    shift = beta * unpaired.kto_shift(kl_log_ratio)
    return unpaired.kto(beta * log_ratio, desirable, shift=shift, weight_d=weight_d, weight_u=weight_u)


@recipe("apo-zero-unpaired", "unpaired", beta=0.1)
def apo_zero_unpaired(
    log_ratio: Tensor, desirable: Tensor, *, beta: float, weight_d: float = 1.0, weight_u: float = 1.0
) -> Tensor:
    """APO-zero on single samples (arXiv:2408.06266; TRL's KTO with ``loss_type="apo_zero_unpaired"``): KTO without the
    KL.

    Formula: w (1 - sigmoid(beta r)) for desirable, w sigmoid(beta r) for undesirable samples
    """
    check_positive(beta=beta)
    return unpaired.kto(beta * log_ratio, desirable, weight_d=weight_d, weight_u=weight_u)


class Tracked(NamedTuple):
    """A loss, and the running state to pass to the next call."""

    loss: Tensor
    state: Moments | Tensor


@recipe("bco", "unpaired", beta=0.1, low=0.5, high=10.0)
def bco(
    log_ratio: Tensor,
    desirable: Tensor,
    state: Moments,
    *,
    beta: float,
    low: float,
    high: float,
    prompt_prob: Tensor | None = None,
) -> Tracked:
    """Binary classifier optimisation (arXiv:2404.04656; the form of TRL's BCO trainer, up to 1.13, not of its
    ``bco_pair``).

    Formula: -w log sigmoid(+-(beta r - delta)), delta = running mean of beta r, w = clamp(p / (1 - p), low, high) for
    undesirable samples

    The shift is the running mean of the implicit rewards of both labels, this batch included; undesirable samples are
    weighted by the density ratio of their prompt.

    Args:
        log_ratio: ``(B,)`` summed log-ratios to the reference, or surrogates.
        desirable: ``(B,)`` bool.
        state: running moments, :func:`~diffalign.losses.common.empty_moments` at the start.
        beta: scale of the implicit reward.
        low: smallest density ratio.
        high: largest density ratio.
        prompt_prob: ``(B,)`` probability that the prompt belongs to a desirable sample; None for weights of 1.
    """
    check_positive(beta=beta)
    u = beta * log_ratio
    state = update_moments(state, u)
    weight = 1.0 if prompt_prob is None else unpaired.density_ratio(prompt_prob, low=low, high=high)
    return Tracked(unpaired.logistic(u, desirable, shift=state.mean, weight_u=weight), state)


@recipe("vpd", "unpaired", beta=0.1, rate=0.1)
def vpd(log_ratio: Tensor, desirable: Tensor, state: Tensor | None, *, beta: float, rate: float) -> Tracked:
    """Variational policy distillation, teacher step (arXiv:2605.15113, second-hand): the teacher is the policy
    conditioned on the critique; its reference is the *current student*, the policy without the critique.

    Formula: -log sigmoid(+-(beta log_ratio - shift)), shift = moving average of the mean of both class means

    The rate of the moving average is not stated, .1 is [ours]. One such step per five of the student,
    ``distillation.reverse`` on its samples.

    Args:
        log_ratio: ``(B,)`` summed log-prob given prompt and critique minus that given the prompt alone
            (:func:`~diffalign.losses.log_ratio` detaches the second).
        desirable: ``(B,)`` bool.
        state: shift returned by the previous call, None at the start.
        beta: scale of the log-ratio.
        rate: share of this batch in the moving average.
    """
    check_positive(beta=beta)
    u = beta * log_ratio
    state = update_ema(state, unpaired.class_mean_shift(u, desirable), rate=rate)
    return Tracked(unpaired.logistic(u, desirable, shift=state), state)


@recipe("pmpo", "unpaired", alpha=0.5, kl_coef=0.3)
def pmpo(log_ratio: Tensor, desirable: Tensor, kl: Tensor, *, alpha: float, kl_coef: float) -> Tensor:
    """Preference optimisation as probabilistic inference (arXiv:2410.04166, second-hand).

    Formula: -alpha mean_desirable r + (1 - alpha) mean_undesirable r + kl_coef KL(ref || policy)

    Weighted so that the mean over the batch is this loss. For Gaussian steps of one variance both directions of the KL
    are ``gaussian_kl``. kl_coef .3 is a later variant's, with the reverse KL [unsure].

    Args:
        log_ratio: ``(B,)`` log-probs or log-ratios (they differ by a constant), with gradient.
        desirable: ``(B,)`` bool: advantage >= 0, or the better half of a group.
        kl: ``(B,)``, with gradient.
        alpha: share of the desirable, in [0, 1].
        kl_coef: weight of the KL.

    Raises:
        ValueError: undesirable samples with a weight but without a KL term: unbounded below.
    """
    check_probability(alpha=alpha)
    check_not_negative(kl_coef=kl_coef)
    check_same_shape(log_ratio=log_ratio, kl=kl)
    if kl_coef == 0 and alpha < 1 and readable(desirable) and not desirable.all():
        raise ValueError("undesirable samples without a KL term are unbounded below: give kl_coef > 0, or alpha = 1")
    n_d, n_u = (c.sum().clamp(min=1).double() for c in (desirable, ~desirable))
    weights = {"weight_d": alpha * len(kl) / n_d, "weight_u": (1 - alpha) * len(kl) / n_u}
    loss = unpaired.linear(log_ratio, desirable, **weights)
    return loss + kl_coef * kl


@recipe("dapo-direct", "regression", beta=0.02)
def dapo_direct(log_ratio: Tensor, values: Tensor, *, beta: float, mask: Tensor | None = None) -> Tensor:
    """Direct advantage policy optimisation (arXiv:2412.18279, from the abstract): regression of each step's log-ratio
    on its advantage under a frozen critic. beta .02 [unsure].

    Formula: (beta r_t - (V_{t+1} - V_t))**2

    Args:
        log_ratio: ``(B, T)`` log-ratio of each step to the reference, with gradient.
        values: ``(B, T + 1)`` values before each step and after the last; detached.
        beta: scale of the log-ratios; on means over latent elements tune it again.
        mask: ``(B, T)``.
    """
    return regression_loss(log_ratio, values.diff(dim=1), beta=beta, mask=mask)
