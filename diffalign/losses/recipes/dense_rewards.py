"""Rewards per token or denoising step, ``(B, T)``, for GAE. ``mask (B, T)`` is 1 where there is a step."""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import check_same_shape, keep
from diffalign.losses.dense_rewards import kl_reward, potential_reward, step_reward, terminal_reward
from diffalign.losses.recipes.registry import recipe


@recipe("rto", "reward", coef=0.05, clip=0.05, kl_coef=0.01, terminal_clip=10.0)
def rto(
    terminal: Tensor,
    dpo_log_ratio: Tensor,
    log_ratio: Tensor,
    mask: Tensor,
    *,
    coef: float,
    clip: float,
    kl_coef: float,
    terminal_clip: float,
) -> Tensor:
    """RTO (arXiv:2404.18922; its code): a DPO model's log-ratio as a dense reward, clipped after scaling.

    Formula: clamp(coef d_t, +-clip) - kl_coef r_t + 1[t last] clamp(terminal, +-terminal_clip)

    ``clamp(.05 d_t, +-.05) - .01 r_t + 1[last] clamp(terminal, +-10)``. On images the steps come from a frozen
    Diffusion-DPO adapter.

    Args:
        terminal: ``(B,)``, reward-model score, z-normalised.
        dpo_log_ratio: ``(B, T)``, ``d``: log-prob of the DPO model minus that of the reference.
        log_ratio: ``(B, T)``, ``r``: log-prob of the policy minus that of the reference.
        mask: ``(B, T)``, 1 where there is a step.
        coef: of ``d``.
        clip: of ``coef * d``.
        kl_coef: of ``r``.
        terminal_clip: of the score.
    """
    dense = step_reward(dpo_log_ratio, mask, coef=coef, clip=clip) + kl_reward(log_ratio, mask, coef=kl_coef)
    return dense + terminal_reward(terminal, mask, clip=terminal_clip)


@recipe("drlc", "reward")
def drlc(terminal: Tensor, spans: Tensor, mask: Tensor, *, terminal_coef: float, span_coef: float) -> Tensor:
    """DRLC (arXiv:2401.07382) [derived]: terminal reward plus a critic's label of each span, -1, 0 or 1.

    Formula: terminal_coef terminal 1[t last] + span_coef span_t

    Both coefficients are unconfirmed. ``spans`` ``(B, T)`` is the label of each step's span; on images, per denoising
    step.

    Raises:
        ValueError: a label is not -1, 0 or 1.
    """
    spans = keep(spans, mask)
    if not ((spans == 0) | (spans.abs() == 1)).all():
        raise ValueError("a critic's verdict is -1, 0 or 1")
    return terminal_reward(terminal_coef * terminal, mask) + step_reward(spans, mask, coef=span_coef)


@recipe("text2grad", "reward")
def text2grad(scores: Tensor, skipped: Tensor, log_ratio: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """Text2Grad (arXiv:2505.22338) [its trainer in part, the rest from the abstract]: span scores and a KL per token.

    Formula: score_t (1 - skipped_t) - kl_coef log_ratio_t

    Args:
        scores: ``(B, T)``, score of each token's span, 0 outside spans.
        skipped: ``(B, T)``, 1 for punctuation and special tokens, whose score is set to 0.
        log_ratio: ``(B, T)``, log-prob of the policy minus that of the reference.
        mask: ``(B, T)``, 1 where there is a step.
        kl_coef: weight of the KL; not stated in the paper.
    """
    check_same_shape(scores=scores, skipped=skipped, mask=mask)
    return step_reward(scores, mask.bool() & ~skipped.bool()) + kl_reward(log_ratio, mask, coef=kl_coef)


@recipe("teamwork-potential", "reward", gamma=1.0)
def teamwork_potential(terminal: Tensor, potential: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """Potential-based shaping from ranked states (arXiv:2502.03723) [derived]: ``r + gamma Phi' - Phi``.

    Formula: 1[t last] terminal + gamma Phi_{t+1} - Phi_t

    The paper learns the potential from a language model's rankings of states by Bradley-Terry, one per agent. On images
    it is the reward of the preview ``x0_hat``, 0 after the last step, which keeps the order of samples. Credit between
    agents is not included.

    Args:
        terminal: ``(B,)``.
        potential: ``(B, T + 1)``.
        mask: ``(B, T)``, 1 where there is a step.
        gamma: discount of the return.
    """
    return terminal_reward(terminal, mask) + potential_reward(potential, mask, gamma=gamma)


@recipe("reward-design-thesis", "reward")
def reward_design_thesis(rewards: Tensor, potential: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """Potential-based shaping of rewards per step, which does not change the optimal policy.

    Formula: r_t + gamma Phi_{t+1} - Phi_t

    The discount must be that of the return, so it has no default. The thesis's tabular designs are not included.

    Args:
        rewards: ``(B, T)``.
        potential: ``(B, T + 1)``.
        mask: ``(B, T)``, 1 where there is a step.
        gamma: discount of the return.
    """
    return step_reward(rewards, mask) + potential_reward(potential, mask, gamma=gamma)
