"""Nash-MD (arXiv:2312.00886): win rates against a mixture of policy and reference instead of a reward."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.common import (
    as_float,
    check_floating,
    check_not_negative,
    check_probability,
    expand_rows,
    keep,
)
from diffalign.losses.policy import reinforce
from diffalign.losses.recipes.registry import recipe


def nash_advantage(win: Tensor, kl_log_ratio: Tensor, *, tau: float = 0.1, mask: Tensor | None = None) -> Tensor:
    """Return ``(P - 1/2) - tau r_t`` for :func:`diffalign.losses.policy.reinforce`, like ``kl_log_ratio``, detached.

    The KL term of a token has no sum over later tokens (TRL's form), a biased gradient of the trajectory KL.

    Args:
        win: ``(B,)``, probability in [0, 1] that the sample beats the opponent's.
        kl_log_ratio: ``(B,)`` or ``(B, T)``, log-ratio r of the policy to the reference.
        tau: weight of the KL term (.1 in TRL; .008 in the paper, unsure).
        mask: shape of ``kl_log_ratio``.

    Raises:
        ValueError: a shape does not fit, a win rate is outside [0, 1], or ``tau`` is negative.
    """
    check_floating(kl_log_ratio=kl_log_ratio)
    check_probability(win=win)
    check_not_negative(tau=tau)
    better = expand_rows(as_float(win.detach()) - 0.5, kl_log_ratio)
    return keep(better - tau * keep(kl_log_ratio.detach(), mask), mask)


def opponent_mean(mean: Tensor, mean_ref: Tensor, *, mix: float = 0.5) -> Tensor:
    """Return ``(1 - mix) mean + mix mean_ref``, any shape, detached: the opponent of a Gaussian step.

    The geometric mixture of two Gaussians of one variance is the Gaussian of the mixed mean with that variance, so for
    a denoising step this is exact; for tokens mix the logits in the same way. ``mix = 0`` is self-play, 1 the
    reference. TRL: .5; the paper's best: about .125 (unsure).

    Raises:
        ValueError: the shapes differ, or ``mix`` is outside [0, 1].
    """
    check_probability(mix=mix)
    if mean.shape != mean_ref.shape:
        raise ValueError(f"the two means differ in shape: {tuple(mean.shape)} and {tuple(mean_ref.shape)}")
    return torch.lerp(as_float(mean.detach()), as_float(mean_ref.detach()), mix)


@recipe("nash-md", "policy_group", tau=0.1)
def nash_md(log_ratio: Tensor, kl_log_ratio: Tensor, win: Tensor, *, tau: float, mask: Tensor | None = None) -> Tensor:
    """Nash-MD (arXiv:2312.00886), the form of TRL (up to 1.13): REINFORCE on a win rate with a KL penalty.

    Formula: -((P - 1/2) - tau r_t) log_ratio_t, P = win probability, r = log-ratio to the reference

    The opponent is sampled from the geometric mixture of policy and reference with share .5
    (:func:`diffalign.losses.recipes.nash_md.opponent_mean`, exact for Gaussian steps).

    Args:
        log_ratio: ``(B, T)``, to the policy at rollout.
        kl_log_ratio: ``(B, T)``, to the reference; detached.
        win: ``(B,)``, probability of beating the opponent's sample.
        tau: weight of the KL; .1 in TRL, .008 in the paper (unsure).
        mask: ``(B, T)``.
    """
    return reinforce(log_ratio, nash_advantage(win, kl_log_ratio, tau=tau, mask=mask), mask=mask)
