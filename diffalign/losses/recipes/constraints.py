"""Objectives with constraints and adaptive multipliers."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffalign.losses import policy
from diffalign.losses.common import as_float, check_not_negative, check_positive, check_probability, keep
from diffalign.losses.constraints import Squash, band, lagrangian, lagrangian_weights, log_barrier, squared_hinge
from diffalign.losses.ranking import pareto_rank
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.reward_combination import weighted_sum
from diffalign.losses.reward_ensembles import soft_min
from diffalign.losses.trackers import Pid, update_pid


@recipe("epo", "regularizer", coef=1e-3, penalty=1.0, low=0.8, high=1.2)
def epo(entropy: Tensor, history: Tensor | float, *, coef: float, penalty: float, low: float, high: float) -> Tensor:
    """EPO (arXiv:2509.22576): an entropy bonus with a penalty outside a band around its running mean.

    Formula: -coef (H - penalty (relu(low h - H) + relu(H - high h))), h = history of H

    The released code adds a constant outside the band, without a gradient; this is the distance from the band [ours].
    Band .8 to 1.2 of the yaml (.5 to 1.5 in the script). With a fixed noise level the entropy is constant: use sample
    diversity instead.

    Args:
        entropy: ``(B,)`` or ``(B, T)``, with gradient.
        history: its running mean at this step (:func:`~diffalign.losses.trackers.update_ema`), positive; detached.
        coef: of the bonus.
        penalty: of the band.
        low: lower end, as a multiple of the history.
        high: upper end.
    """
    check_positive(history=history)
    history = torch.as_tensor(history).to(as_float(entropy))
    return -coef * (as_float(entropy) - penalty * band(entropy, low * history, high * history))


class Constrained(NamedTuple):
    """The policy's advantage, ``(...)``, and the loss of the multipliers, ``(K,)``."""

    advantage: Tensor
    dual_loss: Tensor


@recipe("constrained-rlhf", "constraint", squash=torch.sigmoid)
def constrained_rlhf(
    kl_advantage: Tensor, advantages: Tensor, returns: Tensor, multiplier: Tensor, *, threshold: Tensor, squash: Squash
) -> Constrained:
    """Constrained RLHF (arXiv:2310.04373; its code): each reward is constrained to the threshold beyond which it is
    over-optimised.

    Formula: policy: (K - sum_k mu_k) A_KL + sum_k mu_k A_k, mu = squash(multiplier); dual: sum_k mu_k (return_k -
    threshold_k)

    ``(K - sum mu) A_KL + sum_k mu_k A_k`` for the policy, each advantage normalised separately; the multipliers
    minimise ``mu_k (return_k - threshold_k)``. The sigmoid is mu-PPO (reward at least the threshold);
    ``squash=torch.tanh`` xi-PPO (equality, weights may be negative). Multipliers are initialised from N(0, .01**2); SGD
    with momentum .1 and rate .1 (recipe; .01 in the code); thresholds by Nelder-Mead on a validation score.

    Args:
        kl_advantage: ``(...)``, advantage of the reward ``-KL``.
        advantages: ``(K, ...)``.
        returns: ``(K,)``, mean return of each reward.
        multiplier: ``(K,)``, parameters; gradient through ``dual_loss`` only.
        threshold: ``(K,)``.
        squash: see above.
    """
    weights = lagrangian_weights(multiplier, squash=squash)
    stack = torch.cat([as_float(kl_advantage)[None], as_float(advantages)]).detach()
    return Constrained(weighted_sum(stack, weights), lagrangian(multiplier, returns, threshold, squash=squash))


@recipe("c-morl", "policy", share=0.9, t=20.0, eps=0.2)
def c_morl(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    returns: Tensor,
    mask: Tensor | None = None,
    share: float,
    t: float,
    eps: float,
) -> Tensor:
    """C-MORL (arXiv:2410.02236; its code): PPO on one objective with log barriers for the others.

    Formula: clip(rho, A) - (1 / t) mean_k log max(clip(rho) J_k - share J_k, 1e-3)

    ``clip(rho, A) + mean_k barrier(clip(rho) J_k; share J_k)``: the clipped ratio models the change of the other
    returns. Share .9 and t 20 are unsure, the clip is PPO's. (The code slices the batch axis instead of the objectives;
    this does not.) Stage two starts from the policies of :func:`c_morl_starts`. Without other objectives this is PPO.

    Args:
        log_ratio: ``(B,)`` or ``(B, T)``, log-prob of the policy minus that at rollout.
        adv: advantages of the one objective, as in :mod:`diffalign.losses.policy`.
        returns: ``(K - 1,)``, mean returns of the others, positive.
        mask: shape of ``log_ratio``, 1 where valid.
        share: smallest share of each other return, in (0, 1).
        t: sharpness of the barrier.
        eps: clip range.
    """
    check_probability(share=share, open_ends=True)
    check_positive(returns=returns)
    loss = policy.clip(log_ratio, adv, eps_low=eps, mask=mask)
    rho = keep(log_ratio, mask).clamp(math.log1p(-eps), math.log1p(eps)).exp()
    barriers = [keep(log_barrier(rho * j, share * j, t=t), mask) for j in returns.detach().to(rho)]
    return loss + torch.stack(barriers).mean(0) if barriers else loss


def c_morl_starts(scores: Tensor, *, n: int) -> Tensor:
    """Return the initial policies of C-MORL's second stage, at most ``n`` indices: those of the Pareto front by
    descending crowding distance.

    Args:
        scores: ``(N, K)``, returns of N trained policies in K objectives; NaN where unknown.
        n: number of policies, at least 1.
    """
    check_positive(n=n)
    rank, crowding = pareto_rank(scores)
    order = crowding.argsort(descending=True, stable=True)
    return order[(rank[order] == 0) & scores.isfinite().all(1)[order]][:n]


class Safe(NamedTuple):
    """Value of the ensemble of critics, ``(...)``, and the KL penalty, like ``kl``."""

    value: Tensor
    penalty: Tensor


@recipe("safe-kl", "constraint", temperature=0.3, coef=0.1)
def safe_kl(
    values: Tensor,
    kl: Tensor,
    *,
    ema: Tensor | float,
    threshold: Tensor | float,
    entropy: Tensor | float,
    temperature: float,
    coef: float,
) -> Safe:
    """SAFE (arXiv:2602.04651; its code): soft minimum of the critics, and a KL penalty above a moving threshold.

    Formula: value: -a log mean exp(-V / a); penalty: coef relu(ema - threshold)**2 max(1/2, 2 / (entropy + .1)) KL

    The penalty is ``coef relu(ema - threshold)**2 max(.5, 2 / (entropy + .1))`` *times the KL tensor*. The released
    code builds it from plain numbers, without a gradient.

    Args:
        values: ``(M, ...)``, M = 2 critics.
        kl: ``(B,)`` or ``(B, T)``, with gradient.
        ema: running mean of the KL, rate .1 (:func:`~diffalign.losses.trackers.update_ema`).
        threshold: of :func:`safe_threshold`.
        entropy: of the policy.
        temperature: of the soft minimum.
        coef: of the penalty.
    """
    check_not_negative(entropy=entropy)
    kl = as_float(kl)
    running, limit, h = (torch.as_tensor(x).detach().to(kl) for x in (ema, threshold, entropy))
    gain = squared_hinge(running, limit, coef=2 * coef) * (2 / (h + 0.1)).clamp(min=0.5)
    return Safe(soft_min(values, temperature=temperature), gain * kl)


def safe_threshold(state: Pid, velocity: Tensor | float, *, phase: float) -> tuple[Pid, Tensor]:
    """Return the controller's state and SAFE's threshold, ``clamp((.3 + PID) * phase, .1, .6)`` (its code).

    Args:
        state: :func:`~diffalign.losses.trackers.empty_pid` at the start.
        velocity: change of the running mean of the reward; the controller's error is ``velocity - .001``.
        phase: 1.5 while warming up, 1.2 climbing, .8 on the plateau, 1 when converged.
    """
    check_positive(phase=phase)
    state, output = update_pid(state, torch.as_tensor(velocity, dtype=torch.float64) - 0.001)
    return state, ((0.3 + output) * phase).clamp(0.1, 0.6)
