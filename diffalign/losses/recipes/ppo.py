"""PPO, GRPO and variants in clip range, advantage or reduction.

Shape and conventions: :mod:`diffalign.losses.policy_objectives`. ``Recipe.reduce`` is the reduction of the released
code. The docstring names the method's advantage. With log-probs that are means over latent
elements a clip range of .2 corresponds to about 1e-4.
"""

from __future__ import annotations

from torch import Tensor

from diffalign.losses.common import masked_const, masked_mean, masked_seq_mean
from diffalign.losses.policy import clip, dual_clip, reinforce
from diffalign.losses.recipes.registry import recipe


@recipe("reinforce", "policy", aliases=("policy-gradient",), reduce=masked_mean)
@recipe("gpg", "policy", reduce=masked_mean)
def reinforce_loss(log_ratio: Tensor, adv: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """REINFORCE (Williams 1992) and GPG (arXiv:2504.02546): the plain policy gradient, without ratio or clip.

    Formula: -A log_ratio, which has the gradient of -A log p

    Advantages: any for REINFORCE, ``gpg-advantage`` for GPG.
    """
    return reinforce(log_ratio, adv, mask=mask)


@recipe("ppo", "policy", aliases=("ppo-clip",), reduce=masked_mean, eps=0.2)
def ppo(log_ratio: Tensor, adv: Tensor, *, eps: float, mask: Tensor | None = None) -> Tensor:
    """PPO (arXiv:1707.06347): the clipped surrogate.

    Formula: max(-A rho, -A clip(rho, 1 - eps, 1 + eps)), rho = exp(log_ratio)

    Advantage: ``gae``. The value loss is :func:`diffalign.losses.value.clipped`.
    """
    return clip(log_ratio, adv, eps_low=eps, mask=mask)


@recipe("dual-clip-ppo", "policy", aliases=("vanilla", "dual-clip"), reduce=masked_mean, eps=0.2, bound=3.0)
def dual_clip_ppo(log_ratio: Tensor, adv: Tensor, *, eps: float, bound: float, mask: Tensor | None = None) -> Tensor:
    """Dual-clip PPO (arXiv:1912.09729), verl's default policy loss ``vanilla``: PPO with a bound for A < 0.

    Formula: PPO's loss; where A < 0, min(that, -bound A)

    TRL's ``delta`` is the same bound on the ratio (INTELLECT-2).
    """
    return dual_clip(log_ratio, adv, eps_low=eps, bound=bound, mask=mask)


@recipe("grpo", "policy", reduce=masked_seq_mean, eps=0.2)
def grpo(log_ratio: Tensor, adv: Tensor, *, eps: float, mask: Tensor | None = None) -> Tensor:
    """GRPO (arXiv:2402.03300): PPO's clip on group-normalised advantages, mean over tokens, then over sequences.

    Formula: max(-A rho, -A clip(rho, 1 - eps, 1 + eps)), A = (R - mean R) / (std R + 1e-4) in each group

    Advantage: ``grpo-advantage``. The paper adds ``beta * k3`` to the reference (.04); TRL's default is 0.
    """
    return clip(log_ratio, adv, eps_low=eps, mask=mask)


@recipe("dapo", "policy", reduce=masked_mean, eps_low=0.2, eps_high=0.28)
def dapo(log_ratio: Tensor, adv: Tensor, *, eps_low: float, eps_high: float, mask: Tensor | None = None) -> Tensor:
    """DAPO (arXiv:2503.14476): GRPO with a higher upper clip range and the mean over all tokens of the batch.

    Formula: max(-A rho, -A clip(rho, 1 - eps_low, 1 + eps_high))

    Advantage: ``grpo-advantage``; groups of equal rewards are resampled
    (:func:`diffalign.losses.group_filters.variance`). No KL. TRL's default ``loss_type``.
    """
    return clip(log_ratio, adv, eps_low=eps_low, eps_high=eps_high, mask=mask)


@recipe("dr-grpo", "policy", reduce=masked_const, eps=0.2)
def dr_grpo(log_ratio: Tensor, adv: Tensor, *, eps: float, mask: Tensor | None = None) -> Tensor:
    """Dr. GRPO (arXiv:2503.20783): GRPO without the std and without division by a sequence's length.

    Formula: max(-A rho, -A clip(rho, 1 - eps, 1 + eps)), A = R - mean R in each group

    Advantage: ``dr-grpo-advantage``. Reduce by ``masked_const(loss, mask, norm=B * longest length)``.
    """
    return clip(log_ratio, adv, eps_low=eps, mask=mask)


@recipe("trl-bnpo", "policy", reduce=masked_mean, eps=0.2)
def trl_bnpo(log_ratio: Tensor, adv: Tensor, *, eps: float, mask: Tensor | None = None) -> Tensor:
    """TRL's ``loss_type="bnpo"``: GRPO with the mean over the tokens of the *local* batch.

    Formula: max(-A rho, -A clip(rho, 1 - eps, 1 + eps))

    Not BNPO (arXiv:2506.02864), which normalises by a Beta density: ``bnpo``. With one sequence per device it is GRPO.
    """
    return clip(log_ratio, adv, eps_low=eps, mask=mask)
