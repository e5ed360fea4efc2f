"""Methods with advantages over several groups: sets of samples, bundles of prompts."""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import as_float
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.risk import risk_advantage, share_by_merit
from diffalign.losses.set_advantages import gate_diversity, reward_sum
from diffalign.losses.trackers import update_quantile


@recipe("sgrpo-supergroup", "advantage", weight=0.9, temperature=1.0)
def sgrpo(
    utility: Tensor,
    diversity: Tensor,
    credit: Tensor | None,
    *,
    weight: float,
    temperature: float,
    threshold: float | None = None,
) -> Tensor:
    """SGRPO (arXiv:2605.08659), the form of most released configurations, ``(S, N, G)``.

    Formula: RLOO over all N G samples of (1 - w) utility + w D, D = set diversity allocated by softmax(+-credit)

    The set's diversity, distributed by leave-one-out credit, is added to the reward. Utility ``(S, N, G)``, diversity
    ``(S, N)``, credit ``(S, N, G)``; diversity counts only above a threshold on the set's mean utility. Trainer there:
    8 sets of 64, clip .5, k3 with .005. See :mod:`diffalign.losses.set_advantages` for the other two forms.
    """
    if threshold is not None:
        diversity = gate_diversity(diversity, utility, threshold=threshold)
    return reward_sum(utility, diversity, credit=credit, weight=weight, temperature=temperature)


@recipe("riskpo", "advantage", a_lo=0.2, a_hi=0.8, omega=1.5, natural_baseline=True)
def riskpo(
    rewards: Tensor,
    quantiles: tuple[Tensor, Tensor] | None,
    *,
    a_lo: float,
    a_hi: float,
    omega: float,
    natural_baseline: bool,
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """RiskPO (arXiv:2510.00911, its code in tracking mode): advantages of bundles of prompts that weigh the lower part
    of the scores.

    Formula: (omega c + g) / (1 + omega), c = -(q_lo - S)_+ / a_lo, g = ((S - q_lo)_+ - (S - q_hi)_+ - (q_hi - q_lo)) /
    (a_hi - a_lo)

    The score of a bundle sums sample g of each of its prompts; its advantage is distributed by merit. Quantiles are
    those of earlier calls, of this batch in the first call. The natural baseline is on in the yaml, off in the
    published script; the optional division by the bundle's std is left to the caller.

    Args:
        rewards: ``(N, P, G)``, N bundles of P = 5 prompts with G = 10 samples.
        quantiles: quantiles returned by the previous call, None at the start.
        a_lo: lower level.
        a_hi: upper level, .9 on MATH.
        omega: weight of the shortfall.
        natural_baseline: subtract ``q_hi - q_lo``, so that a bundle above ``q_hi`` gets 0.

    Returns:
        The quantiles for the next call, and advantages ``(N, P, G)``.
    """
    scores = as_float(rewards).sum(-2)
    old = quantiles or (None, None)
    new = (update_quantile(old[0], scores, level=a_lo), update_quantile(old[1], scores, level=a_hi))
    low, high = quantiles or new
    adv = risk_advantage(scores, low, high, a_lo=a_lo, a_hi=a_hi, omega=omega, natural_baseline=natural_baseline)
    return new, share_by_merit(adv, rewards)
