"""Log-ratios as token weights and as rewards.

Steps are tokens or denoising steps, ``(B, T)``; log-ratios of steps come from
:func:`diffalign.losses.log_ratio.token_log_ratio`, with masked ones at 0.
"""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import as_float
from diffalign.losses.log_ratio import log_ratio
from diffalign.losses.preference import logistic, pair_margin
from diffalign.losses.recipes.preference import dpo
from diffalign.losses.recipes.registry import recipe


@recipe("tgdpo", "pair", beta=0.1, alpha=0.5)
def tgdpo(r_w: Tensor, r_l: Tensor, guide_w: Tensor, guide_l: Tensor, *, beta: float, alpha: float) -> Tensor:
    """TGDPO (arXiv:2506.14574): DPO with token weights from a frozen guide model, ``(B,)``.

    Formula: -log sigmoid(beta (sum_t (1 + alpha g_t) r_w,t - sum_t (1 - alpha g_t) r_l,t)), g = beta guide, weights >=
    0

    ``g = beta guide``, the token reward of a frozen DPO model. Weights are clamped to at least 0; in the released code
    they may be negative. Returns ``(B,)``.

    Args:
        r_w: ``(B, T)`` step log-ratios of the policy on the winner.
        r_l: those on the loser.
        guide_w: ``(B, T)`` step log-ratios of the guide, against the same reference; detached.
        guide_l: those on the loser.
        beta: inverse temperature.
        alpha: strength of the guide.
    """
    weight_w = (1 + alpha * beta * as_float(guide_w)).clamp(min=0)
    weight_l = (1 - alpha * beta * as_float(guide_l)).clamp(min=0)
    return dpo(log_ratio(r_w, weight=weight_w), log_ratio(r_l, weight=weight_l), beta=beta)


@recipe("t-reg", "pair", beta=0.1, alpha=0.25)
def t_reg(r_w: Tensor, r_l: Tensor, contrast_w: Tensor, contrast_l: Tensor, *, beta: float, alpha: float) -> Tensor:
    """T-REG (arXiv:2412.02685): DPO plus a likelihood term weighted by token rewards in (-1/2, 1/2), second-hand.

    Formula: -log sigmoid(z) - alpha beta sg(sigmoid(-z)) sum_{t, both} w_t r_t, w = sigmoid(contrast) - 1/2, z = DPO's
    margin

    The term is ``-alpha beta sg(sigmoid(-z)) sum_t w_t r_t`` over both sides, ``w = sigmoid(contrast) - 1/2``, z DPO's
    margin; alpha 0.1, 0.25 or 0.5. On log-ratios instead of log-probs: same gradient up to a constant in value. Returns
    ``(B,)``.

    Args:
        r_w: ``(B, T)`` step log-ratios on the winner.
        r_l: those on the loser.
        contrast_w: ``(B, T)``, log-prob of each step under a prompt for a better answer minus that under a prompt for a
            worse one; detached. On diffusion: two conditionings.
        contrast_l: those on the loser.
        beta: inverse temperature.
        alpha: strength of the term.
    """
    z = pair_margin(log_ratio(r_w), log_ratio(r_l), beta=beta)
    reward_w, reward_l = (as_float(c).sigmoid() - 0.5 for c in (contrast_w, contrast_l))
    likelihood = log_ratio(r_w, weight=reward_w) + log_ratio(r_l, weight=reward_l)
    return logistic(z) - alpha * beta * (-z).sigmoid().detach() * likelihood


@recipe("cdr", "reward")
def cdr(logp_strong: Tensor, logp_weak: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """CDR (arXiv:2411.02481): the log-ratio of a strong to a weak model as a reward, ``(B,)``, detached.

    Formula: sum_t (log p_strong - log p_weak)

    Two frozen models, both prompted with the criterion and examples; best and worst of N form a pair. On images a tuned
    against a base diffusion model: pass the surrogate log-ratio and ``logp_weak=0``.
    """
    return log_ratio(logp_strong.detach(), logp_weak, mask=mask)


@recipe("sr-ppo", "reward")
def sr_ppo(logp_tuned: Tensor, logp_base: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Self-Rewarding PPO (arXiv:2510.21090): the log-ratio of the fine-tuned to the base model as reward, ``(B,)``,
    detached.

    Formula: sum_t (log p_tuned - log p_base)

    The tuned model is the policy after fine-tuning on demonstrations, before PPO. On images average surrogates over
    time steps and pass ``(B,)``.
    """
    return log_ratio(logp_tuned.detach(), logp_base, mask=mask)
