"""PPO-max: rewards and loss of PPO for language models."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from diffalign.losses import policy, value
from diffalign.losses.common import Moments, keep, masked_mean, update_moments
from diffalign.losses.dense_rewards import kl_reward, terminal_reward
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.reward_shaping import standardize
from diffalign.losses.sft import nll


class ValueHead(NamedTuple):
    """Values now and at rollout, and their targets, each ``(B, T)``; only ``values`` has a gradient."""

    values: Tensor
    old_values: Tensor
    returns: Tensor


def ppo_max_rewards(
    stats: Moments, rewards: Tensor, log_ratio: Tensor, mask: Tensor, *, kl: float = 0.02, bound: float = 10.0
) -> tuple[Moments, Tensor]:
    """Return the updated statistics and rewards per token, ``(B, T)``, detached.

    The reward of a response is normalised by running moments, clamped to ``[-bound, bound]`` and added at its last
    token; ``kl`` times the log-ratio to the reference is subtracted at each token. kl is 0.02 in the code and 0.01 in
    its English script, which only divides rewards by their std, without a clip; this is the paper's form.

    Args:
        stats: running moments of all earlier rewards (:func:`diffalign.losses.empty_moments` at the start).
        rewards: ``(B,)``.
        log_ratio: ``(B, T)`` log-prob of the sampling policy minus that of the reference.
        mask: ``(B, T)``, 1 where there is a token.
        kl: coefficient of the token KL.
        bound: of the normalised reward.
    """
    stats = update_moments(stats, rewards)
    terminal = terminal_reward(standardize(rewards, stats, bound=bound), mask)
    return stats, terminal + kl_reward(log_ratio, mask, coef=kl)


@recipe("ppo-max", "policy", eps=0.2, ptx=0.0)
def ppo_max(
    log_ratio: Tensor,
    adv: Tensor,
    *,
    head: ValueHead,
    eps: float,
    ptx: float,
    pretraining: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """PPO-max (arXiv:2307.04964): clipped policy loss, clipped value loss and a pre-training term, ``(B, T)``.

    Formula: clip(rho, A) + max((V - R)**2, (clip(V, V_old +- eps) - R)**2) / 2 + ptx NLL(pretraining text)

    Advantages and returns are those of :func:`diffalign.losses.gae.gae` (gamma 1, lam 0.95) on
    :func:`ppo_max_rewards`. The value head has an optimiser of its own in the released code, hence no weight here. ptx
    is 0 in the shipped script; the paper does not state it.

    Args:
        log_ratio: ``(B, T)`` log-prob now minus log-prob at rollout.
        adv: ``(B, T)`` advantages.
        head: values, old values and returns.
        eps: clip range of the ratio and of the value.
        ptx: weight of the mean negative log-prob of ``pretraining``, which is added to every token.
        pretraining: token log-probs of pre-training text, any shape.
        mask: ``(B, T)``, 1 where valid.
    """
    values = value.clipped(keep(head.values, mask), keep(head.returns, mask), old=keep(head.old_values, mask), clip=eps)
    loss = policy.clip(log_ratio, adv, eps_low=eps, mask=mask) + values
    text = 0.0 if pretraining is None else ptx * masked_mean(nll(pretraining))
    return keep(loss + text, mask)
